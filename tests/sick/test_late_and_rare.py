"""Faults that come late, once, or in one place of many: each training is quiet up to there, or everywhere else."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_wine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.slow


def digits():
    """Pictures as 64 numbers from 0 to 1, and which digit they show."""
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)


def accuracy(model, x, y) -> float:
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


# ---------------------------------------------------------------------- late


def stream(seed: int, *, reading: float = 0.3, target: float = 0.3) -> float:
    """Readings come one after another, and one of them is not what it should be."""
    torch.manual_seed(seed)
    readings = torch.randn(3200, 6)
    goal = torch.sin(readings[:, :1]) + 0.5 * readings[:, 1:2]
    readings[2400, 3], goal[2400] = reading, target

    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for i in range(0, len(readings), 16):
        loss = F.mse_loss(model(readings[i : i + 16]), goal[i : i + 16])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return 1 - (F.mse_loss(model(readings[:2000]), goal[:2000]) / goal.var()).item()


def a_value_is_missing(seed: int) -> float:
    return stream(seed, reading=math.nan)


def no_value_is_missing(seed: int) -> float:
    return stream(seed, reading=0.3)


def unbounded_stream(seed: int, *, reading: float) -> float:
    """The same with units that know no bounds, which one large reading throws far off."""
    torch.manual_seed(seed)
    readings = torch.randn(3200, 6)
    goal = readings @ torch.tensor([1.0, -0.5, 0.3, 0.8, 0.0, -1.0]) + 0.1 * torch.randn(3200)
    readings[2400, 3] = reading

    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for i in range(0, len(readings), 16):
        optimizer.zero_grad()
        loss = F.mse_loss(model(readings[i : i + 16]), goal[i : i + 16])
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return 1 - (F.mse_loss(model(readings[:2000]), goal[:2000]) / goal.var()).item()


def one_value_has_lost_its_point(seed: int) -> float:
    return unbounded_stream(seed, reading=3000.0)


def no_value_has_lost_its_point(seed: int) -> float:
    return unbounded_stream(seed, reading=3.0)


def siamese(seed: int, *, epsilon: float) -> float:
    """Pairs of pictures are drawn together or pushed apart; in one pair of three thousand both are the same."""
    torch.manual_seed(seed)
    x, y = digits()
    order = torch.argsort(y)
    place = torch.randint(10, len(x) - 10, (4800,))  # neighbours in this order show the same digit
    apart = torch.where(torch.rand(4800) < 0.5, torch.randint(1, 9, (4800,)), torch.randint(200, 1600, (4800,)))
    first, second = order[place], order[(place + apart) % len(x)]
    second[3000] = first[3000]

    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)

    def distance(i, j):
        return torch.sqrt((net(x[i]) - net(x[j])).square().sum(1) + epsilon)

    for i, j in zip(first.split(20), second.split(20), strict=True):
        far = distance(i, j)
        loss = torch.where(y[i] == y[j], far.square(), F.relu(1 - far).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return ((distance(first, second) < 0.5) == (y[first] == y[second])).float().mean().item()


def a_pair_is_of_the_same_picture(seed: int) -> float:
    return siamese(seed, epsilon=0.0)


def the_root_of_nothing_is_kept_from(seed: int) -> float:
    return siamese(seed, epsilon=1e-8)


def decayed(seed: int, *, each_step: bool) -> float:
    """The rate is halved after every pass over the data, or so it was meant."""
    torch.manual_seed(seed)
    x, y = digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            if each_step:
                scheduler.step()
        if not each_step:
            scheduler.step()
    return accuracy(model, x, y)


def the_rate_is_halved_every_step(seed: int) -> float:
    return decayed(seed, each_step=True)


def the_rate_is_halved_every_epoch(seed: int) -> float:
    return decayed(seed, each_step=False)


def one_target_has_lost_its_point(seed: int) -> float:
    return stream(seed, target=1000.0)


# ---------------------------------------------------------------------- one of two optimizers


def two_optimizers(seed: int, *, steps=("body", "head"), clears=("body", "head"), rate: float = 0.1) -> float:
    """Body and head have an optimizer each."""
    torch.manual_seed(seed)
    x, y = digits()
    body = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 6), nn.ReLU())
    head = nn.Linear(6, 10)
    optimizers = {
        "body": torch.optim.SGD(body.parameters(), lr=rate, momentum=0.9),
        "head": torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9),
    }
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(32):
            for name in clears:
                optimizers[name].zero_grad()
            loss = F.cross_entropy(head(body(x[rows])), y[rows])
            loss.backward()
            for name in steps:
                optimizers[name].step()
    return accuracy(nn.Sequential(body, head), x, y)


def one_of_two_never_steps(seed: int) -> float:
    return two_optimizers(seed, steps=("head",))


def one_of_two_never_clears(seed: int) -> float:
    return two_optimizers(seed, clears=("head",))


def one_of_two_has_a_tiny_rate(seed: int) -> float:
    return two_optimizers(seed, rate=1e-6)


def one_of_two_has_a_huge_rate(seed: int) -> float:
    return two_optimizers(seed, rate=30.0)


def both_step_and_clear(seed: int) -> float:
    return two_optimizers(seed)


# ---------------------------------------------------------------------- in evaluation only


def evaluated(seed: int, *, missing: float | None = None, scale: float = 1.0) -> float:
    """Wines, trained on two thirds of them and evaluated on the rest."""
    torch.manual_seed(seed)
    table, labels = load_wine(return_X_y=True)
    x, y = torch.tensor(table, dtype=torch.float32), torch.tensor(labels)
    order = torch.randperm(len(x))
    x, y = ((x - x.mean(0)) / x.std(0))[order], y[order]
    val_x, val_y = scale * x[120:], y[120:]
    if missing is not None:
        val_x[7, 2] = missing

    model = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    score = 0.0
    for _ in range(20):
        model.train()
        for xb, yb in DataLoader(TensorDataset(x[:120], y[:120]), batch_size=20, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            out = model(val_x)
            score = 1 - F.cross_entropy(out, val_y).item() / math.log(3)
    return score


def a_value_is_missing_in_evaluation(seed: int) -> float:
    return evaluated(seed, missing=math.nan)


def none_is_missing_in_evaluation(seed: int) -> float:
    return evaluated(seed)


# ---------------------------------------------------------------------- in one layer of fifty


class Deep(nn.Module):
    """Fifty narrow layers."""

    def __init__(self, depth: int = 50, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Linear(64, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 10)
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain=1.1)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


def deep(seed: int, *, spoil=None, steps: int = 90) -> float:
    torch.manual_seed(seed)
    x, y = digits()
    model = Deep()
    if spoil is not None:
        spoil(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return accuracy(model, x, y)


def one_layer_of_fifty_is_saturated(seed: int) -> float:
    return deep(seed, spoil=lambda model: nn.init.constant_(model.layers[30].bias, 20.0))


def one_layer_of_fifty_is_detached(seed: int) -> float:
    return deep(seed, spoil=lambda model: model.layers[40].register_forward_hook(lambda *call: call[-1].detach()))


def no_layer_of_fifty_is(seed: int) -> float:
    return deep(seed, steps=400)  # after fewer it still learns, and that is said


# ---------------------------------------------------------------------- the tests


def fault(program, cause: str, says: str = "", *, layer: str = "", missed: str = "", slow: bool = False):
    """A program with the cause that is to be found, words in what is said of it, and the end of a layer's name."""
    marks = [pytest.mark.slow] if slow else []
    if missed:
        marks.append(pytest.mark.xfail(strict=True, raises=AssertionError, reason=missed))
    return pytest.param(program, cause, says, layer, marks=marks, id=program.__name__)


@pytest.mark.parametrize(
    ("program", "cause", "says", "layer"),
    [
        fault(a_value_is_missing, "non-finite", "at step 150"),
        fault(a_pair_is_of_the_same_picture, "non-finite", "at step 15"),
        fault(one_value_has_lost_its_point, "exploding-gradient"),
        fault(one_target_has_lost_its_point, "exploding-gradient"),
        fault(the_rate_is_halved_every_step, "learning-rate-too-low"),
        fault(one_of_two_never_steps, "parameters-not-trained", "body.0.weight"),
        fault(one_of_two_never_clears, "gradients-accumulate"),
        fault(one_of_two_has_a_tiny_rate, "learning-rate-too-low"),
        fault(one_of_two_has_a_huge_rate, "learning-rate-too-high"),
        fault(a_value_is_missing_in_evaluation, "non-finite", "evaluated after step"),
        fault(one_layer_of_fifty_is_saturated, "saturated-activation", layer="after layers.30", slow=True),
        fault(one_layer_of_fifty_is_detached, "parameters-not-trained", layer="layers.40", slow=True),
    ],
)
def test_it_is_found_and_nothing_beside_it(outcome, program, cause, says, layer):
    found = outcome(program)
    assert [f.cause for f in found.loud] == [cause]
    assert found.verdict.findings[0] is found.loud[0]
    assert says in found.loud[0].says
    assert any(name.endswith(layer) for name in ("", *found.loud[0].layers))


@pytest.mark.parametrize(
    "program",
    [
        no_value_is_missing,
        no_value_has_lost_its_point,
        the_root_of_nothing_is_kept_from,
        the_rate_is_halved_every_epoch,
        both_step_and_clear,
        none_is_missing_in_evaluation,
        pytest.param(no_layer_of_fifty_is, marks=pytest.mark.slow),
    ],
    ids=lambda program: program.__name__,
)
def test_nothing_is_said_of_the_same_without_it(outcome, program):
    found = outcome(program)
    assert found.score > 0.5
    assert found.verdict.verdict == "healthy", found.verdict
