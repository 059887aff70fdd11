"""The loss around the end of a training, on losses whose plane is known."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from unstuck._json import plain
from unstuck.probes.bench import Bench, Clock, Snapshot
from unstuck.probes.surface import RISE, surface

CURVES = torch.tensor([4.0, 1.0, -0.5], dtype=torch.float64)


def loss_of(w):
    return 3.0 + 0.5 * (CURVES * w**2).sum(-1)


def descent(steps=3, start=(1.0, 1.0, 0.0), rate=0.1):
    """Gradient descent on 3 + (4 a² + b² - c²/2)/2: the values it went through, and the script. What starts at c = 0 stays there."""
    w = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=rate)
    way = [w.detach().clone()]

    def script():
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(w).backward()
            optimizer.step()
            way.append(w.detach().clone())

    return way, script, w


def with_snapshots(bench, way, steps):
    return Bench(dataclasses.replace(bench.training, snapshots=tuple(Snapshot(s, [way[s]]) for s in steps)))


def test_losses_on_the_grid_are_those_of_the_plane_of_the_path(bench_of):
    """The path lies in a and b: each point of the grid is end + x·first + y·second, and the path determines both directions."""
    way, script, _ = descent()
    bench = with_snapshots(bench_of(script), way, [1, 2])
    found = surface(bench, Clock(60), num=5)
    path, end = found["path"], way[-1]
    assert (path["steps"], found["stopped"], found["note"]) == ([0, 1, 2, 3], "", "")
    points = np.array(path["points"])
    away = np.stack([(v - end).numpy()[:2] for v in way])
    axes = np.linalg.lstsq(points, away, rcond=None)[0]  # the two directions, as rows
    assert axes @ axes.T == pytest.approx(np.eye(2), abs=1e-5)
    assert points @ axes == pytest.approx(away, abs=1e-6)
    for y, row in zip(found["y"], found["losses"], strict=True):
        for x, loss in zip(found["x"], row, strict=True):
            a, b = end.numpy()[:2] + x * axes[0] + y * axes[1]
            assert loss == pytest.approx(3 + 0.5 * (4 * a**2 + b**2), rel=1e-5)
    assert path["share"] == pytest.approx(1) and sum(a["share"] for a in found["axes"]) == pytest.approx(1)
    assert path["losses"] == pytest.approx([float(loss_of(v)) for v in way])
    assert found["centre"] == pytest.approx(float(loss_of(end)))


def test_a_path_too_short_gives_the_plane_of_the_steepest_and_the_most_negative(bench_of):
    """Along an eigenvector of value h the loss is that of the parabola, as far as it changes by half of itself, but no further than |w|."""
    _, script, _ = descent(steps=1)
    found = surface(bench_of(script), Clock(60), num=5)
    assert found["path"] is None and "fewer than three points" in found["note"]
    assert [a["eigenvalue"] for a in found["axes"]] == pytest.approx([4.0, -0.5])
    assert found["cosine"] == pytest.approx(0, abs=1e-6)
    end = np.array([0.6, 0.9, 0.0])
    centre = 3 + 0.5 * (4 * 0.36 + 0.81)
    far = min(math.hypot(*end), math.sqrt(2 * RISE * centre / 4))
    assert found["x"][-1] == pytest.approx(far, rel=1e-5)
    assert found["y"][-1] == pytest.approx(min(math.hypot(*end), math.sqrt(2 * RISE * centre / 0.5)), rel=1e-5)
    x, y = np.array(found["x"]), np.array(found["y"])[:, None]
    either = [centre + 2 * x**2 + sign * 4 * 0.6 * x - 0.25 * y**2 for sign in (1, -1)]  # a vector's sign is free
    assert min(np.abs(np.array(found["losses"]) - grid).max() for grid in either) < 1e-4 * centre


def test_a_straight_path_spans_no_plane(bench_of):
    way, script, _ = descent(start=(0.0, 1.0, 0.0))
    found = surface(with_snapshots(bench_of(script), way, [1, 2]), Clock(60), num=5)
    assert found["path"] is None and found["note"] == "the path is a straight line"


def test_the_script_and_the_bench_are_left_as_they_were(bench_of):
    way, script, w = descent()
    bench = with_snapshots(bench_of(script), way, [1, 2])
    surface(bench, Clock(60), num=3)
    assert torch.equal(w, way[-1]) and torch.equal(bench.tensors[0], way[-1])


def test_without_time_or_without_a_plane_it_says_why(bench_of):
    way, script, _ = descent()
    bench = with_snapshots(bench_of(script), way, [1, 2])
    assert surface(bench, Clock(0)) == {"why": "no time was left for it"}
    one = torch.ones(1, requires_grad=True)

    def alone():
        (one**2).sum().backward()

    assert "a plane takes two" in surface(bench_of(alone), Clock(60))["why"]
    bench.put([torch.full_like(way[-1], math.nan)])
    bench._end = [t.detach().clone() for t in bench.tensors]
    assert "not finite" in surface(bench, Clock(60))["why"]


def test_points_that_are_not_finite_are_left_out_and_losses_that_are_not_are_null(bench_of):
    way, script, _ = descent()
    bench = with_snapshots(bench_of(script), [way[0], way[1], way[2] * math.inf, way[3]], [1, 2])
    found = surface(bench, Clock(60), num=3)
    assert found["path"]["steps"] == [0, 1, 3]
    assert json.loads(json.dumps(plain(found), allow_nan=False))["losses"][0][0] is not None
    assert plain({"losses": [math.inf]}) == {"losses": [None]}
