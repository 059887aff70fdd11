"""Plain tensors that start as `randn`, not scaled by the number of their inputs."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits


def train(seed: int, *, scaled: bool) -> float:
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)

    def weight(inputs: int, outputs: int) -> torch.Tensor:
        w = torch.randn(inputs, outputs)
        return (w / inputs**0.5 if scaled else w).requires_grad_()

    w1, w2, w3 = weight(64, 150), weight(150, 150), weight(150, 10)
    b1, b2, b3 = (torch.zeros(n, requires_grad=True) for n in (150, 150, 10))
    for _ in range(7):
        for rows in torch.randperm(len(x)).split(50):
            h1 = F.relu(x[rows] @ w1 + b1)
            h2 = F.relu(h1 @ w2 + b2)
            loss = F.cross_entropy(h2 @ w3 + b3, y[rows])
            loss.backward()
            with torch.no_grad():
                for p in (w1, b1, w2, b2, w3, b3):
                    p -= 0.1 * p.grad
                    p.grad = None
    out = F.relu(F.relu(x @ w1 + b1) @ w2 + b2) @ w3 + b3
    return (out.argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, scaled=False)


def healthy(seed: int) -> float:
    return train(seed, scaled=True)
