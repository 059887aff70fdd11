from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim import LBFGS, SGD, Adam
from torch.utils.data import DataLoader, TensorDataset

from unstuck.errors import MisuseError
from unstuck.optim.rate_range import _tail, rate_range

pytestmark = pytest.mark.slow

FEW = {"steps": 30, "trial_steps": 20, "low": 1e-4}


def digits(size=32, seed=0, most=1797):
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))[:most]
    x, y = torch.tensor(data.data[order] / 16, dtype=torch.float32), torch.tensor(data.target[order])
    return list(zip(x.split(size), y.split(size), strict=True))


def mlp(seed=0, depth=1, activation=nn.ReLU):
    torch.manual_seed(seed)
    hidden = [part for _ in range(depth) for part in (nn.Linear(32, 32), activation())]
    return nn.Sequential(nn.Linear(64, 32), activation(), *hidden[2:], nn.Linear(32, 10))


def made(model, kind=SGD, rate=0.01, **settings):
    return model, kind(model.parameters(), lr=rate, **settings)


def found(model, loss=cross_entropy, batches=None, *, kind=SGD, **settings):
    model, optimizer = made(model, kind)
    return rate_range(model, loss, optimizer, digits() if batches is None else batches, **settings)


# ---------------------------------------------------------------------- a rate that is known


def quadratic(curvature=4.0, size=40):
    """A weight that is to be 2, of inputs that are all alike: the loss is h (w - 2)²/2, whose best rate is 1/h and highest 2/h."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    x = torch.full((8, 1), math.sqrt(curvature), dtype=torch.float64)
    return model, lambda o, t: mse_loss(o, t) / 2, [(x, 2 * x)] * size


@pytest.mark.slow
def test_on_a_parabola_it_finds_one_over_the_curvature():
    for curvature in (0.25, 25.0):
        model, loss, batches = quadratic(curvature)
        result = found(
            model, loss, batches, low=1e-4 / curvature, high=1e3 / curvature, steps=200, smoothing=0.0, trial_steps=3
        )
        assert result.suggested is None  # all targets are alike: shuffled they are the same
        best = min(result.trials, key=lambda trial: trial.loss)
        assert best.rate * curvature == pytest.approx(1, rel=0.75)
        assert result.diverges_from is not None
        assert 2 < result.diverges_from * curvature < 20  # a sweep is near the minimum before, and has to climb back up
        for trial in result.trials:  # three steps of 1 - rate h each, exactly
            assert math.isinf(trial.loss) or trial.loss == pytest.approx(
                result.start * (1 - trial.rate * curvature) ** 6, rel=1e-6
            )


def test_a_trial_is_plain_training_from_the_start():
    """By hand: the same updates, and the loss of the batches that were held out."""
    batches, model = digits(), mlp()
    result = found(model, batches=batches, held_out=4, **FEW)
    held = np.unique(np.linspace(0, len(batches) - 1, 4).round().astype(int)).tolist()
    train = [b for i, b in enumerate(batches) if i not in held]
    trial = result.trials[0]
    with torch.no_grad():
        before = [float(cross_entropy(model(batches[i][0]), batches[i][1])) for i in held]
    optimizer = SGD(model.parameters(), lr=trial.rate)
    for x, y in train[: FEW["trial_steps"]]:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        after = [float(cross_entropy(model(batches[i][0]), batches[i][1])) for i in held]
    assert result.start == pytest.approx(np.mean(before))
    assert trial.loss == pytest.approx(np.mean(after))
    assert trial.fall == pytest.approx(np.mean(before) - np.mean(after))
    falls = np.array(before) - np.array(after)
    expected = student.sf(falls.mean() / falls.std(ddof=1) * 2, 3)
    assert trial.p_fall == pytest.approx(expected, rel=1e-3)


def test_the_sweep_is_a_run_at_growing_rates():
    batches, model = digits(), mlp()
    result = found(model, batches=batches, held_out=4, smoothing=0.5, **FEW)
    rates = np.geomspace(1e-4, 10, 30)
    assert result.rates == pytest.approx(rates[: len(result.rates)])
    held = np.unique(np.linspace(0, len(batches) - 1, 4).round().astype(int)).tolist()
    train = [b for i, b in enumerate(batches) if i not in held]
    optimizer = SGD(model.parameters(), lr=1.0)
    for (x, y), rate, seen in zip(train, result.rates, result.losses, strict=False):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        assert seen == pytest.approx(loss.item(), rel=1e-5)
        loss.backward()
        optimizer.step()
    first, second = result.held_out[:2]
    assert result.smoothed[0] == pytest.approx(first)
    assert result.smoothed[1] == pytest.approx((0.25 * first + 0.5 * second) / 0.75)


@pytest.mark.parametrize("freedom", [1, 2, 3, 6, 7, 19, 99, 100])
def test_the_tail_is_that_of_students_t(freedom):
    for value in (-3.0, -0.1, 0.0, 0.5, 2.0, 6.0):
        assert _tail(value * 0.3, 0.3, freedom) == pytest.approx(student.sf(value, freedom), rel=1e-9, abs=1e-13)
    assert (_tail(0.0, 0.0, freedom), _tail(0.1, 0.0, freedom)) == (1.0, 0.0)


# ---------------------------------------------------------------------- nothing helps


class Fresh:
    """Batches whose targets have nothing to do with their inputs, each time others."""

    def __init__(self, seed=0, classes=10):
        self.generator, self.classes = torch.Generator().manual_seed(seed), classes
        self.x = torch.cat([x for x, _ in digits()])

    def __iter__(self):
        for _ in range(60):
            chosen = torch.randint(len(self.x), (32,), generator=self.generator)
            if self.classes:
                yield self.x[chosen], torch.randint(self.classes, (32,), generator=self.generator)
            else:
                yield self.x[chosen], torch.randn(32, 1, generator=self.generator)


def dead(net):
    nn.init.constant_(net[0].bias, -1e3)
    return net


def test_a_loss_without_gradient():
    result = found(mlp(), lambda o, t: cross_entropy(o.detach(), t), **FEW)
    assert not result.helps and "doesn't depend on the parameters" in result.says
    for net, loss in (
        (dead(nn.Sequential(nn.Linear(64, 10), nn.ReLU())), cross_entropy),
        (nn.Linear(64, 1), lambda o, t: cross_entropy(o, torch.zeros_like(t))),
    ):
        result = found(net, loss, **FEW)
        assert not result.helps and "the gradient is zero on all of" in result.says
        assert result.trials == ()


def test_a_loss_that_is_not_finite():
    result = found(mlp(), lambda o, t: cross_entropy(o, t) * math.nan, **FEW)
    assert not result.helps and "the loss is nan before any step" in result.says


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize(
    "make",
    [lambda: dead(mlp()), lambda: mlp(depth=20, activation=nn.Sigmoid)],
    ids=["dead ReLU", "20 layers of sigmoid"],
)
def test_a_net_that_learns_nothing_but_how_frequent_classes_are(make, kind):
    data = [(x, torch.where(y < 5, torch.zeros_like(y), y)) for x, y in digits()]  # one class has half of all
    result = found(make(), batches=data, kind=kind)
    assert not result.helps
    assert result.steepest is not None  # the loss does fall
    assert "as far with shuffled targets" in result.says


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("classes", [10, 0], ids=["classes", "numbers"])
def test_targets_that_are_random(classes, kind):
    for seed in range(3):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes or 1))
        result = found(net, cross_entropy if classes else mse_loss, Fresh(seed, classes), kind=kind)
        assert not result.helps, result.says


# ---------------------------------------------------------------------- a rate helps


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x):
        return self.out(self.lstm(x.view(-1, 8, 8))[0][:, -1])


def cnn():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, 10),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("make", [mlp, cnn, Reader], ids=["mlp", "cnn", "lstm"])
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_the_rate_is_near_the_best_of_a_grid(make, kind):
    """As many updates at rates a factor of 1.78 apart, on the same batches, judged by batches that the range test never saw."""
    torch.manual_seed(0)
    model, data = make(), digits(seed=1)
    known, held = data[:42], data[42:]
    result = found(model, batches=known, kind=kind)

    def after(rate):
        net = copy.deepcopy(model)
        optimizer = kind(net.parameters(), lr=rate)
        for step in range(100):
            x, y = known[step % len(known)]
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(torch.stack([cross_entropy(net(x), y) for x, y in held]).mean())
        return loss if math.isfinite(loss) else math.inf

    assert result.suggested is not None
    grid = [result.suggested * 1.778**power for power in range(-5, 6)]
    best = min(grid, key=after)
    assert 1 / 3.2 < result.suggested / best < 3.2
    assert result.says.startswith(f"a rate of {result.suggested:.2g} brings the loss from {result.start:.3g}")


def test_proportions_of_groups_are_kept():
    model = mlp()
    groups = [
        {"params": model[0].parameters(), "lr": 0.001},
        {"params": model[2].parameters(), "lr": torch.tensor(0.01)},
    ]
    seen = []

    class Watched(SGD):
        def step(self, closure=None):
            seen.append([float(group["lr"]) for group in self.param_groups])
            return super().step(closure)

    optimizer = Watched(groups, lr=1.0)
    result = rate_range(model, cross_entropy, optimizer, digits(), **FEW)
    assert np.allclose(np.divide(*np.array(seen).T), 0.1)
    assert [r for _, r in seen[: len(result.rates)]] == pytest.approx(result.rates)
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.001, 0.01])


def test_pretrained_weights_are_the_start():
    model = mlp()
    optimizer = Adam(model.parameters(), lr=0.01)
    for x, y in digits() * 8:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    assert found(model, kind=SGD, **FEW).start < 0.1


@pytest.mark.slow
def test_few_batches_are_judged_by_themselves():
    result = found(mlp(), batches=digits(600, most=1200), **FEW)
    assert result.helps and "on the batches that it was trained on" in result.says
    assert all(math.isnan(trial.p_fall) for trial in result.trials)
    alone = found(mlp(), batches=digits(1, most=300), **FEW, held_out=50)
    assert all(not math.isnan(trial.p_shuffled) for trial in alone.trials)


def test_batches_of_any_kind_and_without_targets():
    def forward(model, batch):
        return model(batch["x"]), {"classes": batch["y"], "twice": batch["y"] * 2}

    data = [{"x": x, "y": y} for x, y in digits()]
    result = found(
        mlp(), lambda o, t: cross_entropy(o, t["classes"]) + 0 * t["twice"].sum(), data, forward=forward, **FEW
    )
    assert result.helps and result.trials[0].p_shuffled < 0.01
    alone = found(
        nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 64)), lambda o, _: o.square().mean(), [x for x, _ in digits()],
        forward=lambda model, batch: (model(batch) - batch, None), **FEW,
    )  # fmt: skip
    assert alone.helps and all(math.isnan(trial.p_shuffled) for trial in alone.trials if math.isfinite(trial.loss))


def test_clipping_bears_higher_rates():
    free, clipped = (found(mlp(), steps=60, trial_steps=10, clip=clip).diverges_from for clip in (None, 0.01))
    assert free is not None
    assert clipped is None or clipped > 5 * free


# ---------------------------------------------------------------------- afterwards all is as before


def state(model, optimizer):
    return copy.deepcopy([model.state_dict(), optimizer.state_dict(), [m.training for m in model.modules()]])


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("fails", [False, True])
def test_all_is_as_before(fails):
    model = cnn()
    model[2].eval()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = digits()[0]
    cross_entropy(model(x), y).backward()
    optimizer.step()
    gradients = [p.grad for p in model.parameters()]
    values = copy.deepcopy(gradients)
    generator, drawn = torch.Generator().manual_seed(3), np.random.default_rng(3)
    loader = DataLoader(
        TensorDataset(*map(torch.cat, zip(*digits(), strict=True))), 64, shuffle=True, generator=generator
    )
    loader.sampler.extra = drawn
    before = state(model, optimizer)
    numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy(), generator.get_state()
    calls = 0

    def loss(outputs, targets):
        nonlocal calls
        calls += 1
        if fails and calls > 50:
            raise ZeroDivisionError
        np.random.rand(), random.random(), drawn.random()
        return cross_entropy(outputs, targets)

    if fails:
        with pytest.raises(ZeroDivisionError):
            rate_range(model, loss, optimizer, loader, **FEW)
    else:
        rate_range(model, loss, optimizer, loader, **FEW)
    assert same(state(model, optimizer), before)
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True)) and same(gradients, values)
    now = torch.get_rng_state(), random.getstate(), np.random.get_state()[1], generator.get_state()
    assert torch.equal(now[0], numbers[0]) and now[1] == numbers[1] and (now[2] == numbers[2]).all()
    assert torch.equal(now[3], numbers[3]) and drawn.random() == np.random.default_rng(3).random()


@pytest.mark.slow
def test_it_gives_the_same_each_time():
    model, data = cnn(), digits()
    one, other = (found(model, batches=data, **FEW) for _ in range(2))
    assert one == other
    assert found(model, batches=data, **FEW, seed=5).losses != one.losses  # of dropout


# ---------------------------------------------------------------------- misuse


def test_it_says_what_is_wrong():
    model, optimizer = made(mlp())
    data = digits()
    for settings, message in (
        ({"low": 1.0, "high": 0.1}, "above 0 and ascend"),
        ({"steps": 1}, "steps is 1"),
        ({"smoothing": 1.0}, "smoothing 1.0"),
        ({"held_out": 100}, "held_out is 100"),
    ):
        with pytest.raises(MisuseError, match=message):
            rate_range(model, cross_entropy, optimizer, data, **settings)
    with pytest.raises(MisuseError, match="there are no batches"):
        rate_range(model, cross_entropy, optimizer, [])
    with pytest.raises(MisuseError, match="gone through once only"):
        rate_range(model, cross_entropy, optimizer, iter(data))
    with pytest.raises(MisuseError, match="must be inputs and targets"):
        rate_range(model, cross_entropy, optimizer, [x for x, _ in data])
    with pytest.raises(MisuseError, match="LBFGS"):
        rate_range(model, cross_entropy, LBFGS(model.parameters()), data)
    with pytest.raises(MisuseError, match="use the model from outside"):
        rate_range(model, cross_entropy, optimizer, data, forward=lambda _, batch: (model(batch[0]), batch[1]))
    model.kept = model[0].weight * 2  # no leaf: torch refuses to copy it
    with pytest.raises(MisuseError, match="can't be copied"):
        rate_range(model, cross_entropy, optimizer, data)
