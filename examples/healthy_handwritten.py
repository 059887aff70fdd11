"""Handwritten digits with plain tensors: no nn.Module, no optimizer, the update written by hand. Healthy."""

import math
from pathlib import Path

import numpy as np
import torch

torch.manual_seed(0)
table = np.loadtxt(Path(__file__).parent / "data" / "digits.csv.gz", delimiter=",", dtype=np.float32)
x, y = torch.tensor(table[:, :64]) / 16 - 0.3, torch.tensor(table[:, 64]).long()
order = torch.randperm(len(x))
x_train, y_train, x_valid, y_valid = x[order[:1400]], y[order[:1400]], x[order[1400:]], y[order[1400:]]

w1 = torch.randn(64, 50) * math.sqrt(2 / 64)
b1 = torch.zeros(50)
w2 = torch.randn(50, 10) * math.sqrt(1 / 50)
b2 = torch.zeros(10)
parameters = [w1, b1, w2, b2]
for p in parameters:
    p.requires_grad_()


def model(batch):
    hidden = (batch @ w1 + b1).clamp(min=0)
    logits = hidden @ w2 + b2
    return logits - logits.logsumexp(dim=1, keepdim=True)


def loss_fn(log_probabilities, labels):
    return -log_probabilities[torch.arange(len(labels)), labels].mean()


learning_rate = 0.2
for epoch in range(60):
    if epoch == 45:
        learning_rate = 0.05
    for batch in torch.randperm(len(x_train)).split(32):
        loss = loss_fn(model(x_train[batch]), y_train[batch])
        loss.backward()
        with torch.no_grad():
            for p in parameters:
                p -= learning_rate * p.grad
                p.grad.zero_()
    if epoch % 5 == 4:
        with torch.no_grad():
            print(f"epoch {epoch + 1}: validation loss {loss_fn(model(x_valid), y_valid):.4f}")

with torch.no_grad():
    accuracy = (model(x_valid).argmax(dim=1) == y_valid).float().mean()
print(f"final validation accuracy {accuracy:.3f}")
