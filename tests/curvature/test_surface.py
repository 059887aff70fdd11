"""Losses along lines and in planes are those of the function there, and nothing is left changed, whatever happens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from unstuck.curvature.directions import Direction, Trajectory, principal_directions, random_direction
from unstuck.curvature.objective import Objective
from unstuck.curvature.surface import line, plane, project
from unstuck.errors import MisuseError

U, V = torch.eye(3, dtype=torch.float64)[:2]


def bowl(*at: float, num_batches: int = 1) -> tuple[Objective, torch.Tensor]:
    """(x² + 4 y² + 9 z²)/2."""
    x = torch.tensor(at or (0.0, 0.0, 0.0), dtype=torch.float64)
    curvatures = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    return Objective(lambda _: (curvatures * x**2).sum() / 2, [x], [None] * num_batches), x


def trained(steps: int = 60) -> tuple[Objective, Trajectory]:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    inputs = torch.randn(64, 6, generator=generator)
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))
    loss = lambda x: (net(x)[:, 0] - x[:, 0] * x[:, 1]).square().mean()  # noqa: E731
    objective = Objective(loss, net, [inputs[:48], inputs[48:]], mode="train")
    trajectory = Trajectory(objective, most=16)
    trajectory.record()
    for _ in range(steps):
        objective.move(-0.05 * objective.gradient())
        trajectory.record()
    return objective, trajectory


def state(objective: Objective) -> list[torch.Tensor]:
    """Everything that must be as it was, the numbers to the last bit."""
    buffers = [b for m in objective.modules for b in m.buffers()]
    modes = torch.tensor([part.training for m in objective.modules for part in m.modules()])
    return [t.detach().clone() for t in (*objective.params, *buffers, modes, torch.get_rng_state())]


def same(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_line_through_a_bowl():
    objective, _ = bowl(1.0, 1.0, 0.0)
    found = line(objective, Direction(2 * U, "x"), span=(-2.0, 1.0), num=7)
    assert found.coordinates.tolist() == [-2, -1.5, -1, -0.5, 0, 0.5, 1]
    assert np.allclose(found.losses, (1 + 2 * found.coordinates) ** 2 / 2 + 2, rtol=1e-15)
    assert found.centre == 2.5 and (found.along.made, found.along.length) == ("x", 2.0)
    assert found.passes == 8 and found.stopped == ""


def test_a_plane_through_a_bowl_rows_are_the_second_direction():
    objective, _ = bowl(0.0, 0.0, 1.0)
    found = plane(objective, U, U + V, spans=((-1.0, 1.0), (0.0, 3.0)), num=5)
    x, y = np.meshgrid(found.x, found.y)
    assert np.allclose(found.losses, ((x + y) ** 2 + 4 * y**2 + 9) / 2, rtol=1e-14)
    assert found.cosine == pytest.approx(0.5**0.5) and found.second.length == pytest.approx(2**0.5)
    assert found.losses.shape == (5, 5) and found.y[-1] == 3


def test_a_line_between_two_points():
    objective, x = bowl(3.0, 0.0, 0.0)
    other = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    found = line(objective, other - objective.at(), span=(0.0, 1.0), num=3)
    assert found.losses.tolist() == [4.5, (1.5**2 + 4 * 0.25) / 2, 2.0]
    assert x.tolist() == [3, 0, 0]


@pytest.mark.slow
def test_a_network_is_as_it_was_and_the_same_twice():
    objective, trajectory = trained()
    before = state(objective)
    first, second = principal_directions(objective, trajectory)
    one, other = (plane(objective, first, second, path=trajectory, num=5) for _ in range(2))
    assert same(before, state(objective))
    assert np.array_equal(one.losses, other.losses)
    assert one.stated == "modules in training mode, the same random numbers for each batch (seed 0)"


@pytest.mark.slow
def test_a_grid_holds_what_is_computed_point_by_point():
    objective, _ = trained()
    direction = random_direction(objective, seed=4)
    found = line(objective, direction, num=5)
    here = objective.at()
    for coordinate, loss in zip(found.coordinates, found.losses, strict=True):
        objective.move(here + coordinate * direction.vector - objective.at())
        assert objective.value() == pytest.approx(loss, rel=1e-5)  # float32: moved twice


@pytest.mark.parametrize("fails_at", [0, 1, 7])
def test_after_an_exception_all_is_as_it_was(fails_at):
    objective, x = bowl(0.1, 0.2, 0.3)
    x.mul_(1 / 3)
    before, calls = state(objective), []

    def failing(_):
        calls.append(None)
        if len(calls) > fails_at:
            raise RuntimeError("out of memory")
        return (x**2).sum()

    objective._loss = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        plane(objective, U, V)
    assert same(before, state(objective))


def test_losses_that_are_no_numbers_are_kept():
    x = torch.tensor([1.0])
    objective = Objective(lambda: x.log().sum(), [x])
    losses = line(objective, torch.ones(1), span=(-2.0, 2.0), num=5).losses
    assert math.isnan(losses[0]) and losses[1] == -math.inf and losses[2] == 0
    assert x.item() == 1


@pytest.mark.slow
def test_a_limit_on_losses_makes_the_grid_coarser():
    objective, _ = bowl(num_batches=3)
    whole = plane(objective, U, V, num=17)
    limited = plane(objective, U, V, num=17, most=3 * (9 * 9 + 1))
    assert whole.passes == 3 * (17 * 17 + 1) and limited.passes == 3 * (9 * 9 + 1)
    assert np.array_equal(limited.losses, whole.losses[::2, ::2]) and np.array_equal(limited.x, whole.x[::2])
    assert limited.stopped == "81 of 289 points, since 246 losses were allowed"


def test_a_limit_that_allows_no_grid_is_misuse():
    with pytest.raises(MisuseError, match="a grid of 25 points and the centre take 26 losses of a batch, and 25 were"):
        plane(bowl()[0], U, V, most=25)


def test_a_limit_on_seconds_makes_the_grid_coarser(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("unstuck.curvature.surface.time.monotonic", lambda: now[0])
    objective, _ = bowl()
    inner = objective._loss

    def slow(batch):
        now[0] += 1
        return inner(batch)

    objective._loss = slow
    assert len(line(objective, U, num=33, seconds=20.0).losses) == 17
    assert now[0] == 18  # the next 16 would have ended at 34: not begun
    coarsest = line(objective, U, num=33, seconds=0.5)
    assert len(coarsest.losses) == 5 and np.isfinite(coarsest.losses).all()
    assert coarsest.stopped == "5 of 33 points, since 0.5 seconds were allowed"


def test_a_round_that_takes_longer_than_expected_is_dropped(monkeypatch):
    now, calls = [0.0], [0]
    monkeypatch.setattr("unstuck.curvature.surface.time.monotonic", lambda: now[0])
    objective, _ = bowl()
    inner = objective._loss

    def slowing(batch):
        calls[0] += 1
        now[0] += 1 if calls[0] < 12 else 10
        return inner(batch)

    objective._loss = slowing
    found = line(objective, U, num=17, seconds=30.0)
    assert len(found.losses) == 9 and np.isfinite(found.losses).all() and found.stopped.startswith("9 of 17 points")
    assert now[0] < 30 + 10 + 1


@pytest.mark.parametrize(
    "num, rounds", [(3, [3]), (5, [5]), (9, [5, 9]), (33, [5, 9, 17, 33]), (25, [7, 13, 25]), (50, [50])]
)
def test_rounds_are_nested(num, rounds, monkeypatch):
    objective, _ = bowl()
    found = [len(line(objective, U, num=num, most=r + 1).losses) for r in rounds]
    assert found == rounds


def test_a_path_in_a_plane():
    objective, _ = bowl(1.0, 1.0, 1.0)
    end = objective.at()
    w = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    path = project(objective, [end + 3 * U + 4 * w, end + 2 * V, end], U, 2 * V)
    assert path.points.tolist() == [[3, 0], [0, 1], [0, 0]]
    assert path.inside.tolist() == pytest.approx([9 / 25, 1, 1])
    assert path.share == pytest.approx(13 / 29)


def test_coordinates_are_least_squares_where_directions_are_not_orthogonal():
    objective, _ = bowl()
    point = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    path = project(objective, [point], U, U + V)
    solved = np.linalg.lstsq(torch.stack([U, U + V]).T.numpy(), point.numpy(), rcond=None)[0]
    assert np.allclose(path.points[0], solved) and path.inside[0] == pytest.approx(5 / 30)


def test_the_end_is_added_where_the_trajectory_has_thinned_it_out():
    objective, trajectory = trained(steps=61)
    first, second = principal_directions(objective, trajectory)
    path = project(objective, trajectory, first, second)
    assert path.steps.tolist() == [*range(0, 61, 4), 61] and path.points[-1].tolist() == [0, 0]
    assert path.share == pytest.approx(first.share + second.share, abs=1e-5)


@pytest.mark.slow
def test_a_plane_shows_the_whole_path():
    objective, trajectory = trained()
    first, second = principal_directions(objective, trajectory)
    found = plane(objective, first, second, path=trajectory, num=5)
    assert found.path is not None
    for axis, points in ((found.x, found.path.points[:, 0]), (found.y, found.path.points[:, 1])):
        assert axis[0] < points.min() and points.max() < axis[-1] and points.min() <= 0 <= points.max()
    assert found.first.share == first.share


def test_a_path_that_stood_still():
    objective, _ = bowl()
    found = plane(objective, U, V, path=[objective.at()] * 2, num=3)
    assert found.path is not None and found.path.share == 1 and found.losses.max() < 1e-20


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda o: line(o, torch.ones(4)), r"a direction has shape \(3,\), and this has \(4,\)"),
        (lambda o: line(o, torch.zeros(3)), "a direction has a length above zero, and this has not: direction given"),
        (lambda o: line(o, torch.full((3,), math.nan)), "a direction has a length above zero"),
        (lambda o: line(o, U, span=(1.0, 1.0)), "from a lower to a higher number, not from 1.0 to 1.0"),
        (lambda o: line(o, U, num=2), "three points at least, not 2"),
        (lambda o: plane(o, U, -2 * U), "the two directions are parallel"),
    ],
)
def test_misuse(call, says):
    objective, x = bowl(1.0, 2.0, 3.0)
    with pytest.raises(MisuseError, match=says):
        call(objective)
    assert x.tolist() == [1, 2, 3]


def test_half_precision_weights_move_and_come_back():
    x = torch.tensor([1.0, -0.333], dtype=torch.bfloat16)
    before = x.clone()
    found = line(Objective(lambda: (x.float() ** 2).sum(), [x]), torch.tensor([0.5, 0.5]), num=3)
    assert torch.equal(x, before) and found.losses[2] == pytest.approx(1.5**2 + 0.167**2, abs=0.01)  # 8 bits
