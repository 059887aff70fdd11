"""Directions are as long as they say, point where they should, and the trajectory stays within its memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unstuck.curvature.directions import (
    Trajectory,
    descent_direction,
    eigen_directions,
    principal_directions,
    random_direction,
)
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Dense
from unstuck.curvature.spectrum import extremes
from unstuck.errors import MisuseError


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))


def objective_of(net: nn.Module) -> Objective:
    return Objective(lambda x: net(x).square().mean(), net, [torch.ones(5, 2, 4, 4)])


def still(size: int) -> tuple[Objective, torch.Tensor]:
    """An objective whose tensor is moved by hand."""
    x = torch.zeros(size, dtype=torch.float64)
    return Objective(lambda: (x**2).sum(), [x]), x


def test_each_filter_is_as_long_as_that_of_the_weights():
    net = small_net()
    objective = objective_of(net)
    parts = objective.split(random_direction(objective).vector)
    for param, part in zip(objective.params, parts, strict=True):
        if param.dim() > 1:
            assert torch.allclose(part.flatten(1).norm(dim=1), param.detach().flatten(1).norm(dim=1), rtol=1e-5)
        else:
            assert not part.any()


def test_biases_and_norms_can_be_scaled_as_a_whole():
    objective = objective_of(small_net())
    parts = objective.split(random_direction(objective, others="scaled").vector)
    for param, part in zip(objective.params, parts, strict=True):
        assert float(part.norm()) == pytest.approx(float(param.detach().norm()), rel=1e-5)


def test_scaling_a_network_scales_its_direction():
    # Li et al. 2018: two filters that differ by a factor are the same to a network with batch norm
    net = small_net()
    before = random_direction(objective_of(net), seed=3).vector
    with torch.no_grad():
        for param in net.parameters():
            param.mul_(10)
    after = random_direction(objective_of(net), seed=3).vector
    assert torch.allclose(after, 10 * before, rtol=1e-4)


def test_the_seed_alone_tells_and_the_global_generator_is_left_alone():
    objective = objective_of(small_net())
    state = torch.get_rng_state()
    one, same, other = (random_direction(objective, seed=s).vector for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_filter_of_zeros_has_no_direction_and_a_number_is_no_filter():
    weights, scale = torch.zeros(2, 3), torch.tensor(-2.0)
    weights[1] = 1
    objective = Objective(lambda: weights.sum() * scale, [weights, scale])
    rows, number = objective.split(random_direction(objective, others="scaled").vector)
    assert not rows[0].any() and rows[1].all() and abs(float(number)) == pytest.approx(2)


def test_an_unknown_way_to_treat_biases_is_misuse():
    with pytest.raises(MisuseError, match="no way 'half' to treat biases; there are zero, scaled"):
        random_direction(objective_of(small_net()), others="half")  # pyright: ignore


def test_descent_is_minus_the_gradient():
    objective, x = still(2)
    x += torch.tensor([1.0, -2.0])
    assert descent_direction(objective).vector.tolist() == [-2.0, 4.0]


def test_eigenvectors_are_taken_as_they_are():
    found = extremes(Dense(torch.diag(torch.tensor([5.0, 1.0, -2.0]))), top=2)
    first, second = eigen_directions(found.top)
    assert first.vector.abs().tolist() == pytest.approx([1, 0, 0], abs=1e-5)
    assert second.made == "eigenvector of 1"


def test_principal_components_of_a_path_in_a_plane():
    # From the end the points are at a u + b v: squared distances 9 + 4 along u, 1 along v
    objective, x = still(5)
    u, v = torch.eye(5, dtype=torch.float64)[[1, 3]]
    x += 7.0
    end = objective.at()
    first, second = principal_directions(objective, [end + 3 * u, end + 2 * u, end + v, end])
    assert first.vector.tolist() == pytest.approx(u.tolist(), abs=1e-12)
    assert second.vector.tolist() == pytest.approx(v.tolist(), abs=1e-12)
    assert (first.share, second.share) == (pytest.approx(13 / 14), pytest.approx(1 / 14))


@pytest.mark.slow
def test_a_random_walk_shows_its_known_shares():
    # Around its end a walk has the covariance min(s, t), with eigenvalues 4 / ((2k - 1)² π²) and the sum 1/2; in 20,000 dimensions
    # and 300 steps the shares are that to a percent.
    objective, _ = still(20_000)
    steps = torch.randn(300, 20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    walk = list(steps.flip(0).cumsum(0).flip(0))  # its end is at zero
    first, second = principal_directions(objective, walk)
    assert first.share == pytest.approx(8 / math.pi**2, abs=0.01)
    assert second.share == pytest.approx(8 / 9 / math.pi**2, abs=0.01)
    assert abs(float(first.vector @ second.vector)) < 1e-9
    assert float(first.vector.norm()) == pytest.approx(1, abs=1e-9)


def test_parameters_taken_in_parts_give_the_same(monkeypatch):
    objective, _ = still(50)
    points = list(torch.randn(6, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    whole = principal_directions(objective, points)
    monkeypatch.setattr("unstuck.curvature.directions.CHUNK", 7)
    for one, other in zip(whole, principal_directions(objective, points), strict=True):
        assert torch.allclose(one.vector, other.vector, atol=1e-12) and one.share == pytest.approx(other.share)


@pytest.mark.parametrize("points, dimensions", [([[1.0, 0], [2, 0], [3, 0]], 1), ([[0.0, 0]], 0), ([[math.nan, 0]], 0)])
def test_a_path_of_too_few_dimensions_is_misuse(points, dimensions):
    objective, _ = still(2)
    with pytest.raises(MisuseError, match=f"the path has {dimensions} dimensions, and 2 principal components"):
        principal_directions(objective, list(torch.tensor(points)))


def test_a_path_without_points_is_misuse():
    with pytest.raises(MisuseError, match="the path has no points"):
        principal_directions(still(2)[0], [])


@pytest.mark.parametrize("most", [2, 5, 8])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 1000])
def test_a_trajectory_stays_within_its_memory_and_is_evenly_spaced(most, length):
    objective, x = still(1)
    trajectory = Trajectory(objective, most=most)
    for step in range(length):
        x.fill_(step)
        trajectory.record()
        assert len(trajectory.vectors) <= most
    assert [float(v) for v in trajectory.vectors] == trajectory.steps == list(range(0, length, trajectory.stride))
    assert trajectory.num_seen == length
    assert length < most or len(trajectory.vectors) >= most // 2


def test_a_trajectory_keeps_copies_without_a_graph():
    net = small_net()
    trajectory = Trajectory(objective_of(net), device="cpu")
    trajectory.record()
    with torch.no_grad():
        net[0].weight.zero_()  # pyright: ignore
    assert trajectory.vectors[0][:54].all()
    assert not trajectory.vectors[0].requires_grad


def test_a_trajectory_of_one_point_is_misuse():
    with pytest.raises(MisuseError, match="keeps two points at least, not 1"):
        Trajectory(still(1)[0], most=1)
