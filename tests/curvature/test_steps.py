from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Dense
from unstuck.curvature.steps import Scaled, bound, critical_rate, edge, searched, stable_rate
from unstuck.errors import MisuseError

Maker = Callable[[list[Tensor], float], torch.optim.Optimizer]

SGD: dict[str, Maker] = {
    "plain": lambda p, lr: torch.optim.SGD(p, lr),
    "momentum 0.5": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.5),
    "momentum 0.9": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
    "dampening": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, dampening=0.5),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True),
    "decay": lambda p, lr: torch.optim.SGD(p, lr, weight_decay=2.0),
    "decay and momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.8, weight_decay=1.0),
    "two groups": lambda p, lr: torch.optim.SGD([{"params": p[:1], "lr": lr}, {"params": p[1:], "lr": 3 * lr}]),
}
FROZEN = 1 - 1e-12  # of the squares: a preconditioner that doesn't change
ADAPTIVE: dict[str, Maker] = {
    "adam": lambda p, lr: torch.optim.Adam(p, lr, betas=(0.9, FROZEN)),
    "adam 0.5": lambda p, lr: torch.optim.Adam(p, lr, betas=(0.5, FROZEN)),
    "adam, decay": lambda p, lr: torch.optim.Adam(p, lr, betas=(0.9, FROZEN), weight_decay=1.0),
    "amsgrad": lambda p, lr: torch.optim.Adam(p, lr, betas=(0.9, FROZEN), amsgrad=True),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr, betas=(0.9, FROZEN), weight_decay=1e-4),
    "nadam": lambda p, lr: torch.optim.NAdam(p, lr, betas=(0.9, FROZEN)),
    "nadam, half": lambda p, lr: torch.optim.NAdam(p, lr, betas=(0.9, FROZEN), momentum_decay=0.0),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr, alpha=FROZEN),
    "rmsprop, momentum": lambda p, lr: torch.optim.RMSprop(p, lr, alpha=FROZEN, momentum=0.9),
    "adagrad": lambda p, lr: torch.optim.Adagrad(p, lr),
}
SCALES = torch.tensor([0.5, 2.0, 1.0, 4.0, 0.25, 1.0, 3.0], dtype=torch.float64)  # squares of the preconditioner


def regression() -> tuple[list[Tensor], Callable[[], Tensor]]:
    """Linear regression of two tensors, 1e-6 off its minimum, so that squares of gradients don't count."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 7, generator=generator, dtype=torch.float64) * torch.linspace(0.5, 2, 7, dtype=torch.float64)
    params = [1e-6 * torch.randn(n, generator=generator, dtype=torch.float64) for n in (4, 3)]
    for param in params:
        param.requires_grad_(True)
    return params, lambda: (x @ torch.cat(params)).square().mean() / 2


def prepare(optimizer: torch.optim.Optimizer, params: list[Tensor]) -> None:
    """As after very many steps, with the squares given."""
    for param, scales in zip(params, SCALES.split([4, 3]), strict=True):
        state = optimizer.state[param]
        state["step"] = torch.tensor(1e14, dtype=torch.float64)
        for name in ("exp_avg", "momentum_buffer", "grad_avg"):
            state[name] = torch.zeros_like(param)
        for name in ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"):
            state[name] = scales.clone()
        state["mu_product"] = torch.tensor(0.0, dtype=torch.float64)


def diverges(make: Maker, rate: float, *, adaptive: bool) -> bool:
    params, loss = regression()
    optimizer = make(params, rate)
    if adaptive:
        prepare(optimizer, params)
    for _ in range(1500):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        size = float(torch.cat(params).detach().abs().max())
        if not size < 1e-3:
            return True
    return size > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SGD, *ADAPTIVE])
def test_the_bound_is_where_linear_regression_diverges(name):
    adaptive = name in ADAPTIVE
    make = (ADAPTIVE if adaptive else SGD)[name]
    params, loss = regression()
    optimizer = make(params, 0.01)
    if adaptive:
        prepare(optimizer, params)
    found = stable_rate(Objective(loss, params), optimizer, tolerance=1e-4)
    assert found.multiple == pytest.approx(found.rate / 0.01)
    # exact on a parabola; 2% allow for the 1500 steps in which what grows must grow a thousandfold
    assert not diverges(make, 0.98 * found.rate, adaptive=adaptive)
    assert diverges(make, 1.02 * found.rate, adaptive=adaptive)


def test_the_bounds_in_closed_form():
    assert bound() == bound(momentum=0.0, averaged=True) == 2
    assert bound(momentum=0.9) == pytest.approx(3.8) and bound(momentum=0.9, averaged=True) == pytest.approx(38)
    assert bound(momentum=0.9, dampening=0.5) == pytest.approx(7.6)
    assert bound(momentum=0.9, nesterov=True) == pytest.approx(3.8 / 2.8)
    # a mean that looks ahead by as much as it remembers is Nesterov's, weakened like a mean; by all of it, Adam's
    assert bound(momentum=0.9, averaged=True, ahead=0.9) == pytest.approx(38 / 2.8)
    assert bound(momentum=0.9, averaged=True, ahead=1.0) == pytest.approx(38)


def test_of_gradient_descent_it_is_two_over_the_largest_eigenvalue():
    x = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    found = stable_rate(Objective(lambda: (torch.tensor([1.0, 4.0, -9.0]).double() * x**2).sum() / 2, [x]))
    assert (found.rate, found.sharpness, found.bound) == (pytest.approx(0.5), pytest.approx(4.0), 2.0)
    assert math.isnan(found.multiple) and found.method == "gradient descent" and found.products == 3


def test_where_nothing_curves_upwards_any_rate_is_stable():
    x = torch.ones(2)
    assert stable_rate(Objective(lambda: -(x**2).sum(), [x])).rate == math.inf


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adamax])
def test_before_the_first_step_the_gradient_stands_in(make):
    x = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    objective = Objective(lambda: (x**2).sum() / 2, [x])
    optimizer = make([x], lr=0.1)
    found = stable_rate(objective, optimizer)
    # 1 / |g| = 1/2 and 1/3 times curvature 1: the largest is 1/2
    assert found.sharpness == pytest.approx(0.5, rel=1e-6)
    objective.value(), x.square().sum().backward()
    optimizer.step()
    assert stable_rate(objective, optimizer).sharpness < math.inf


def test_the_state_that_it_has_is_used():
    x = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.1, betas=(0.9, 0.5))
    (3 * x[0] + 4 * x[1]).backward()
    optimizer.step()  # mean squares 9 and 16, corrected for the start
    found = stable_rate(Objective(lambda: (9 * x[0] ** 2 + 4 * x[1] ** 2) / 2, [x]), optimizer)
    assert found.sharpness == pytest.approx(3.0, rel=1e-6)  # 9 / 3 and 4 / 4
    assert found.rate == pytest.approx(38 / 3, rel=1e-6) and found.method == "Adam"


def test_what_makes_no_sense_is_said():
    x, y = torch.ones(2, requires_grad=True), torch.ones(1, requires_grad=True)
    objective = Objective(lambda: x.sum() + y.sum(), [x, y])
    for optimizer, words in (
        (torch.optim.SGD([x], 0.1), "doesn't hold 1 of the 2"),
        (torch.optim.SGD([x, y], 0.0), "learning rate is 0"),
        (torch.optim.SGD([x, y], 0.1, maximize=True), "uphill"),
        (torch.optim.Rprop([x, y]), "Rprop isn't known"),
    ):
        with pytest.raises(MisuseError, match=words):
            stable_rate(objective, optimizer)
    for arguments in ({"momentum": 1.0}, {"dampening": -0.1}, {"nesterov": True, "momentum": 0.9, "dampening": 0.5}):
        with pytest.raises(MisuseError):
            bound(**arguments)


# ---------------------------------------------------------------------- networks, which are no parabolas


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(3, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3)), (10,), 0.1),
    "cnn": (
        lambda: nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 3)), (1, 8, 8), 0.1
    ),
    "lstm": (Recurrent, (12, 3), 0.5),
}  # fmt: skip


def rises(objective: Objective, rate: float, steps: int) -> bool:
    """Whether gradient descent on all data takes the loss above its start within some steps."""
    start = objective.value()
    with objective.moved() as move:
        by = torch.zeros(objective.size)
        for _ in range(steps):
            by -= rate * objective.gradient()
            move(by)
            if not objective.value() <= start:
                return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 50])
@pytest.mark.parametrize("name", NETS)
def test_of_networks_it_is_right_within_a_factor_of_two(name, steps):
    make, shape, rate = NETS[name]
    for seed in range(3):
        torch.manual_seed(seed)
        module, x = make(), torch.randn(128, *shape)
        y = (x.reshape(128, -1)[:, -1] > 0).long() + (x.reshape(128, -1)[:, -2] > 0).long()
        optimizer = torch.optim.SGD(module.parameters(), rate)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(module(x), y).backward()
            optimizer.step()
        objective = Objective(lambda b, m=module, y=y: F.cross_entropy(m(b), y), module, [x])
        found = stable_rate(objective)
        assert not rises(objective, found.rate / 2, 10)
        assert rises(objective, 2 * found.rate, 10)


# ---------------------------------------------------------------------- losses along a step


@pytest.mark.parametrize("curvature", [1e-3, 1.0, 300.0])
def test_of_a_parabola_the_critical_rate_is_two_over_its_curvature(curvature):
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    objective = Objective(lambda: curvature * (x**2).sum() / 2, [x])
    found = critical_rate(objective, -objective.gradient(), tolerance=0.01)
    assert found.multiple == pytest.approx(2 / curvature, rel=0.01)  # the tolerance asked for
    assert found.best == pytest.approx(1 / curvature, rel=0.5) and found.gain > 0.5 * objective.value()
    assert x.tolist() == [1.0, -2.0] and found.losses < 24


def test_few_losses_are_enough():
    x = torch.tensor([1.0], dtype=torch.float64)
    made = []

    def loss():
        made.append(1)
        return (x**2).sum()

    found = critical_rate(Objective(loss, [x]), -0.8 * 2 * x)  # a rate of 0.8, of 1 at most
    assert found.multiple == pytest.approx(1.25, rel=0.1) and found.losses == len(made) <= 10
    assert found.multiple <= found.above <= 1.1 * 1.25 and found.start == 1


def test_downhill_for_ever_and_uphill_at_once():
    assert searched(lambda m: -m).multiple == math.inf
    up = searched(lambda m: m)
    assert (up.multiple, up.best, up.gain) == (0.0, 0.0, 0.0)
    broken = searched(lambda m: (m - 1) ** 2 if m < 3 else math.inf)
    assert broken.multiple == pytest.approx(2, rel=0.1) and broken.best == 1


def test_a_loss_that_breaks_down_ahead_counts_as_higher():
    x = torch.tensor([1.0], dtype=torch.float64)
    found = critical_rate(Objective(lambda: -x.log().sum(), [x]), torch.tensor([-1.0], dtype=torch.float64))
    assert found.multiple == 0.0  # it rises at once on the way to the pole
    found = critical_rate(Objective(lambda: x.sqrt().sum(), [x]), torch.tensor([-0.3], dtype=torch.float64))
    assert found.multiple == pytest.approx(1 / 0.3, rel=0.1)  # the root isn't defined beyond


# ---------------------------------------------------------------------- its parts


def test_a_scaled_matrix():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    diagonal, added, vector = (torch.rand(5, generator=generator, dtype=torch.float64) for _ in range(3))
    scaled = Scaled(Dense(matrix), diagonal, added)
    dense = diagonal.diag() @ (matrix + added.diag()) @ diagonal.diag()
    torch.testing.assert_close(scaled @ vector, dense @ vector)
    assert float(scaled.dot(vector, vector)) == pytest.approx(float(vector @ vector))


def test_the_edge_is_at_one():
    assert edge([10.0, 20.0], [0.1, 0.1]) == [0.5, 1.0]
    assert edge([380.0], [0.1], limit=38.0) == [1.0]
