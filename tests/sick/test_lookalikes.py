"""Healthy trainings that have, at first sight, what a fault has: nothing louder than a note may be said of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

pytestmark = pytest.mark.slow


def digits():
    """Pictures as 64 numbers from 0 to 1, and which digit they show."""
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)


def diabetes():
    """Ten standardised features, and a standardised target, of which they tell half."""
    table, progression = load_diabetes(return_X_y=True)
    x, y = torch.tensor(table, dtype=torch.float32), torch.tensor(progression, dtype=torch.float32)[:, None]
    return x / x.std(0), (y - y.mean()) / y.std()


def share_right(model, x, y) -> float:
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def two_samples_a_step(seed: int) -> float:
    """Their loss is often above that of a constant, as it would be for the best of models."""
    torch.manual_seed(seed)
    x, y = diabetes()
    model = nn.Sequential(nn.Linear(10, 24), nn.Tanh(), nn.Linear(24, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(800):
        rows = torch.randint(len(x), (2,))
        loss = F.mse_loss(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return 1 - (F.mse_loss(model(x), y) / y.var()).item()


def half_of_the_target_is_noise(seed: int) -> float:
    """What Adam gets beyond it, on the one batch there is, it has learned by heart."""
    torch.manual_seed(seed)
    x, y = diabetes()
    model = nn.Sequential(nn.Linear(10, 128), nn.Tanh(), nn.Linear(128, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in range(400):
        loss = F.mse_loss(model(x[:150]), y[:150])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return 1 - (F.mse_loss(model(x[300:]), y[300:]) / y[300:].var()).item()


def events_are_rare(seed: int) -> float:
    """A batch holds none of them or three, and its loss jumps as the number does; half of them are told."""
    torch.manual_seed(seed)
    event = (torch.rand(3000) < 0.05).float()[:, None]
    x = torch.randn(3000, 8) + 0.75 * event
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    criterion = nn.BCEWithLogitsLoss()
    for _ in range(6):
        for xb, yb in DataLoader(TensorDataset(x, event), batch_size=50, shuffle=True):
            optimizer.zero_grad()
            criterion(model(xb), yb).backward()
            optimizer.step()
    with torch.no_grad():
        named = model(x) > 0
        return (named & (event > 0)).sum().item() / event.sum().item()


def a_code_is_narrow_and_linear(seed: int) -> float:
    """Two linear layers with nothing between, as principal components are; sixteen numbers for sixty-four."""
    torch.manual_seed(seed)
    x, _ = digits()
    x = x - x.mean(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.Linear(16, 64))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(7):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x[rows]), x[rows])
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return 1 - (F.mse_loss(model(x), x) / x.var()).item()


def features_are_random_on_purpose(seed: int) -> float:
    """Most of the numbers are frozen, and the rest is enough."""
    torch.manual_seed(seed)
    x, y = digits()
    features = nn.Sequential(nn.Linear(64, 300), nn.ReLU()).requires_grad_(False)
    head = nn.Linear(300, 10)
    model = nn.Sequential(features, head)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return share_right(model, x, y)


def four_batches_make_a_step(seed: int) -> float:
    """Gradients are left to add up, and their losses are divided by four."""
    torch.manual_seed(seed)
    x, y = digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.8)
    for _ in range(6):
        for number, rows in enumerate(torch.randperm(1792).split(16), start=1):
            (F.cross_entropy(model(x[rows]), y[rows]) / 4).backward()
            if number % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()
    return share_right(model, x, y)


def a_sum_at_a_rate_that_suits_it(seed: int) -> float:
    """The loss is summed, and the rate is as much smaller."""
    torch.manual_seed(seed)
    x, y = digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=5e-3)
    for _ in range(7):
        for rows in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows], reduction="sum").backward()
            optimizer.step()
    return share_right(model, x, y)


def a_quantile_for_each_column(seed: int) -> float:
    """One target is stretched against three predictions, as it should be."""
    torch.manual_seed(seed)
    x, y = diabetes()
    levels = torch.tensor([0.1, 0.5, 0.9])
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(20):
        for rows in torch.randperm(len(x)).split(34):
            error = y[rows] - model(x[rows])
            loss = torch.maximum(levels * error, (levels - 1) * error).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return 1 - (F.mse_loss(model(x)[:, 1:2], y) / y.var()).item()


def each_part_by_its_own_numbers(seed: int) -> float:
    """Training and evaluation are standardised each by itself, which is no clean way, and nothing that would show."""
    torch.manual_seed(seed)
    table, labels = load_breast_cancer(return_X_y=True)
    parts = train_test_split(table, labels, test_size=0.25, random_state=seed)
    x, test_x = (torch.tensor(StandardScaler().fit_transform(part), dtype=torch.float32) for part in parts[:2])
    y, test_y = (torch.tensor(part) for part in parts[2:])
    model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        share_right(model, test_x, test_y)
    return share_right(model, test_x, test_y)


def targets_stop_at_zero(seed: int) -> float:
    """Outputs end in a ReLU, where the targets begin."""
    torch.manual_seed(seed)
    x = torch.rand(900, 3)
    y = F.relu(x[:, :1] + x[:, 1:2] - 2 * x[:, 2:])
    model = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 1), nn.ReLU())
    nn.init.constant_(model[2].bias, 0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(10):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=30, shuffle=True):
            optimizer.zero_grad()
            F.mse_loss(model(xb), yb).backward()
            optimizer.step()
    with torch.no_grad():
        return 1 - (F.mse_loss(model(x), y) / y.var()).item()


def rare_samples_come_often(seed: int) -> float:
    """Batches are drawn so that both classes are even: the few of the one are in many batches."""
    torch.manual_seed(seed)
    ill = (torch.rand(3000) < 0.04).long()
    x = torch.randn(3000, 4) + 0.6 * ill[:, None]
    sampler = WeightedRandomSampler((1 / ill.bincount())[ill].tolist(), len(ill))
    loader = DataLoader(TensorDataset(x, ill), batch_size=150, sampler=sampler)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(15):
        for xb, yb in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
    right = model(x).argmax(1) == ill
    return (right[ill == 0].float().mean() + right[ill == 1].float().mean()).item() - 1


@pytest.mark.parametrize(
    "program",
    [
        two_samples_a_step,
        events_are_rare,
        a_code_is_narrow_and_linear,
        features_are_random_on_purpose,
        four_batches_make_a_step,
        a_sum_at_a_rate_that_suits_it,
        a_quantile_for_each_column,
        each_part_by_its_own_numbers,
        targets_stop_at_zero,
    ],
    ids=lambda program: program.__name__,
)
def test_nothing_is_said_of_it(outcome, program):
    found = outcome(program)
    assert found.score > 0.3
    assert found.verdict.verdict == "healthy", found.verdict


@pytest.mark.parametrize(
    "program",
    [
        half_of_the_target_is_noise,
        rare_samples_come_often,
    ],
    ids=lambda program: program.__name__,
)
def test_experiments_add_nothing_to_it(outcome, program):
    found = outcome(program, experiments=True)
    assert found.score > 0.3
    assert found.verdict.verdict == "healthy", found.verdict
