"""Yearly sunspot numbers, forecast a year ahead by an LSTM. Healthy."""

import numpy as np
import statsmodels.api as sm
import torch
from torch import nn

torch.manual_seed(0)
series = sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(dtype=np.float32)
mean, std = series[:240].mean(), series[:240].std()
series = torch.tensor((series - mean) / std)
window = 24
x = torch.stack([series[i : i + window] for i in range(len(series) - window)]).unsqueeze(-1)
y = series[window:].unsqueeze(-1)
x_train, y_train, x_test, y_test = x[:216], y[:216], x[216:], y[216:]


class Forecaster(nn.Module):
    def __init__(self, hidden_size=24):
        super().__init__()
        self.lstm = nn.LSTM(1, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, x):
        states, _ = self.lstm(x)
        return self.head(states[:, -1])


model = Forecaster()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
loss_fn = nn.MSELoss()

for epoch in range(50):
    model.train()
    for batch in torch.randperm(len(x_train)).split(24):
        loss = loss_fn(model(x_train[batch]), y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    if (epoch + 1) % 10 == 0:
        model.eval()
        with torch.no_grad():
            print(f"epoch {epoch + 1}: test error {loss_fn(model(x_test), y_test).item():.3f}")

model.eval()
with torch.no_grad():
    r2 = 1 - loss_fn(model(x_test), y_test) / y_test.var(unbiased=False)
print(f"final test R2 {r2.item():.3f}")
