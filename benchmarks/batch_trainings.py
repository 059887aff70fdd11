"""Trainings whose batch size, rate and length can be changed: what `batch.py` makes to the end, and the script that it predicts from.

    unstuck batch benchmarks/batch_trainings.py handwritten [SEED]

Those of the examples are what `examples/healthy_handwritten.py`, `healthy_cnn.py` and `sunspots_lstm.py` do. Length is in samples, so
that a budget may end within a pass; schedules are stretched to it.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

Samples = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """How a training is made.

    Attributes:
        size: Of a batch.
        rate: What its learning rate is multiplied by.
        passes: Over the data, also parts of one.
    """

    size: int
    rate: float = 1.0
    passes: float = 1.0


@dataclass(frozen=True)
class Ended:
    """Where a training got.

    Attributes:
        loss: Mean over its training samples, in evaluation mode.
        updates: That it made.
        seconds: Of this thread's processor time that they took, drawing batches included.
    """

    loss: float
    updates: int
    seconds: float


@dataclass(frozen=True)
class Training:
    """A training: `own` is how it is by itself."""

    own: Plan
    optimizer: str
    run: Callable[[Plan, int], Ended]


def drawn(samples: Samples, plan: Plan) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Shuffled batches until the plan is through, each with the share of it that was done before."""
    x, y = samples
    total, done = plan.passes * len(x), 0
    while done < total:
        for rows in torch.randperm(len(x)).split(plan.size):
            yield x[rows], y[rows], done / total
            done += len(rows)
            if done >= total:
                return


def handwritten(plan: Plan, seed: int) -> Ended:
    """Gradient descent with plain tensors; the rate falls to a quarter at three quarters."""
    x, y = scaled_digits(4.8, 16)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:1400]
    x, y = x[order], y[order]
    torch.manual_seed(seed)
    w1, w2 = torch.randn(64, 50) * math.sqrt(2 / 64), torch.randn(50, 10) * math.sqrt(1 / 50)
    parameters = [w1.requires_grad_(), torch.zeros(50, requires_grad=True)]
    parameters += [w2.requires_grad_(), torch.zeros(10, requires_grad=True)]

    def model(batch: Tensor) -> Tensor:
        logits = (batch @ w1 + parameters[1]).clamp(min=0) @ w2 + parameters[3]
        return logits - logits.logsumexp(dim=1, keepdim=True)

    def loss_fn(log_probabilities: Tensor, labels: Tensor) -> Tensor:
        return -log_probabilities[torch.arange(len(labels)), labels].mean()

    updates, begun = 0, time.thread_time()
    for inputs, targets, share in drawn((x, y), plan):
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        rate = plan.rate * (0.2 if share < 0.75 else 0.05)
        with torch.no_grad():
            for p in parameters:
                p -= rate * p.grad
                p.grad.zero_()
        updates += 1
    seconds = time.thread_time() - begun
    with torch.no_grad():
        return Ended(float(loss_fn(model(x), y)), updates, seconds)


class Net(nn.Module):
    """Two convolutions with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.dropout, self.fc = nn.Dropout(0.2), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.norm1(self.conv1(x)).relu(), 2)
        x = nn.functional.max_pool2d(self.norm2(self.conv2(x)).relu(), 2)
        return self.fc(self.dropout(x.flatten(1)))


class Forecaster(nn.Module):
    """An LSTM that looks ahead by one."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 24, batch_first=True), nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def cnn(plan: Plan, seed: int) -> Ended:
    """AdamW, its rate along a cosine in twelve stairs."""
    x, y = scaled_digits(4.9, 6)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:1437]
    samples = x[order].reshape(-1, 1, 8, 8), y[order]
    torch.manual_seed(seed)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3 * plan.rate, weight_decay=1e-2)
    return fitted(model, optimizer, cross_entropy, samples, plan, factor=lambda s: stairs(s, 12))


def sunspots(plan: Plan, seed: int) -> Ended:
    """Adam on 216 windows of a series, with a limit of the gradient."""
    import statsmodels.api as sm

    series = torch.tensor(sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(), dtype=torch.float32)
    series = (series - series[:240].mean()) / series[:240].std(correction=0)
    samples = series[:239].unfold(0, 24, 1).unsqueeze(-1), series[24:240].unsqueeze(-1)
    torch.manual_seed(seed)
    model = Forecaster()
    return fitted(model, torch.optim.Adam(model.parameters(), 3e-3 * plan.rate), mse_loss, samples, plan, clip=1.0)


def mlp(plan: Plan, seed: int) -> Ended:
    """Adam on three quarters of the digits."""
    x, y = scaled_digits(0, 16)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:1347]
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3 * plan.rate)
    return fitted(model, optimizer, cross_entropy, (x[order], y[order]), plan)


def fitted(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Loss,
    samples: Samples,
    plan: Plan,
    *,
    factor: Callable[[float], float] | None = None,
    clip: float | None = None,
) -> Ended:
    """Trains by an optimizer; `factor` of the rate by the share that is done."""
    rate, updates, begun = optimizer.param_groups[0]["lr"], 0, time.thread_time()
    for inputs, targets, share in drawn(samples, plan):
        if factor is not None:
            optimizer.param_groups[0]["lr"] = rate * factor(share)
        optimizer.zero_grad()
        loss_fn(model(inputs), targets).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        updates += 1
    seconds = time.thread_time() - begun
    with torch.no_grad():
        return Ended(float(loss_fn(model.eval()(samples[0]), samples[1])), updates, seconds)


def stairs(share: float, count: int) -> float:
    """Half a cosine, in so many steps."""
    return (1 + math.cos(math.pi * int(count * share) / count)) / 2


def scaled_digits(middle: float, width: float) -> Samples:
    """scikit-learn's digits, of which a pixel is from 0 to 16, less the middle and over the width."""
    x, y = load_digits(return_X_y=True)
    return (torch.tensor(x, dtype=torch.float32) - middle) / width, torch.tensor(y)


TRAININGS = {
    "handwritten": Training(Plan(32, 1, 60), "SGD by hand", handwritten),
    "cnn": Training(Plan(32, 1, 12), "AdamW, batch norm", cnn),
    "sunspots": Training(Plan(24, 1, 50), "Adam, clipped", sunspots),
    "mlp": Training(Plan(32, 1, 30), "Adam", mlp),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    training = TRAININGS[sys.argv[1]]
    print(training.run(training.own, int(sys.argv[2]) if len(sys.argv) > 2 else 0))
