from __future__ import annotations

import pytest
import torch
from torch import nn

from unstuck.probes import examination
from unstuck.probes.bench import Clock
from unstuck.probes.curvature import Ground
from unstuck.probes.examination import examine


def product_of_two(weights=0.0):
    """The hand-made saddle: a network that multiplies by two matrices, both zero, and has something to learn."""
    torch.manual_seed(0)
    x = torch.randn(96, 4)
    y = x @ torch.randn(4, 1)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 1, bias=False))
    for p in model.parameters():
        nn.init.constant_(p, weights)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def script():
        for step in range(6):
            optimizer.zero_grad()
            part = slice(16 * step, 16 * step + 16)
            nn.functional.mse_loss(model(x[part]), y[part]).backward()
            optimizer.step()

    return script


def parts(bench, seconds=20.0, **settings):
    found: dict[str, list] = {}
    for name, data in examine(bench, Clock(seconds), **settings):
        found.setdefault(name, []).append(data)
    return found


@pytest.mark.slow
def test_a_saddle_with_its_way_out(bench_of):
    """There the Hessian pairs each of the first weights with one of the second: as many curve up as down, and the blocks are zero."""
    found = parts(bench_of(product_of_two()))
    (point,) = found["point"]
    assert point["kind"] == "saddle"
    assert point["top"] == pytest.approx(-point["bottom"], rel=0.02)
    (way,) = found["escape"]
    assert way["taken"] and way["gain"] > 0.5 * way["before"]
    assert way["held_batches"] > 0 and way["held_after"] < 0.5 * way["held_before"]
    (density,) = found["density"]
    assert density["exact"]
    assert density["positive"] == density["negative"] == pytest.approx(6 / 30)
    assert abs(found["trace"][0]["value"]) < 0.01 * point["top"]
    assert [layer["layer"].rpartition(".")[2] for layer in found["layer"]] == ["0", "1"]
    assert all(layer["top"] == pytest.approx(0, abs=1e-5) for layer in found["layer"])
    assert not any("failed" in part for group in found.values() for part in group)


@pytest.mark.slow
def test_the_tensors_are_left_as_they_were(bench_of):
    bench = bench_of(product_of_two())
    parts(bench)
    assert all(not bool(t.any()) for t in bench.learned)


def test_what_is_not_wanted_is_left_out(bench_of):
    found = parts(bench_of(product_of_two()), with_density=False, with_layers=False, brief=True)
    assert set(found) == {"point", "rate", "escape", "cost"}


@pytest.mark.slow
def test_a_slope_has_no_way_out(bench_of):
    found = parts(bench_of(product_of_two(0.5)), with_density=False, with_layers=False)
    assert found["point"][0]["kind"] == "not critical"
    assert "escape" not in found
    assert found["rate"][0]["critical"] > 0


def test_without_time_it_says_so_and_names_the_rest(bench_of):
    found = parts(bench_of(product_of_two()), seconds=0)
    assert "are left of the budget" in found["point"][0]["why"] and "kind" not in found["point"][0]
    assert {"rate", "trace", "layer", "density"} <= set(found["skipped"][0]["parts"])


def test_with_time_for_a_few_products_both_ends_are_told(bench_of, monkeypatch):
    monkeypatch.setattr(Ground, "affords", lambda self, clock, share=1.0: 20 - self.krylov.products)
    (point,) = parts(bench_of(product_of_two()))["point"]
    assert point["top"] == pytest.approx(-point["bottom"], rel=0.05)
    assert "kind" not in point


def test_a_network_too_large_still_has_its_critical_rate(bench_of, monkeypatch):
    monkeypatch.setattr("unstuck.probes.curvature.MEMORY", 100)
    found = parts(bench_of(product_of_two(0.5)))
    assert "30 numbers to learn" in found["none"][0]["why"]
    assert found["rate"][0]["critical"] > 0
    assert set(found) == {"none", "rate"}


@pytest.mark.slow
def test_a_part_that_fails_costs_no_other(bench_of, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(examination, "trace", fails)
    found = parts(bench_of(product_of_two()))
    assert found["trace"] == [{"failed": "RuntimeError: no"}]
    assert "density" in found
