"""Which batch size is best, measured on copies: against noise scales known in closed form, and times that are made up."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.optim.batch_memory import MemoryLimit
from unstuck.optim.batch_timing import Line, Timing
from unstuck.optim.noise_scale import noise_scale, split_batch
from unstuck.probes import batch as probe
from unstuck.probes.batch import Script, batch, besides, memory_of, noise_along, spans, split, timed
from unstuck.probes.bench import Clock
from unstuck.probes.resized import Resized

pytestmark = pytest.mark.slow

FEATURES, MEAN = 50, 0.2


def linear_script(count=32, size=16, mean=MEAN, rate=1e-6):
    """A loss whose gradient by a sample is the sample itself, of mean `mean` and deviation 1 in each feature."""
    w = nn.Parameter(torch.zeros(FEATURES))
    optimizer = torch.optim.SGD([w], rate)
    draw = torch.Generator().manual_seed(0)
    batches = [mean + torch.randn(size, FEATURES, generator=draw) for _ in range(count)]

    def script():
        for x in batches:
            optimizer.zero_grad()
            (x @ w + 1.0).mean().backward()
            optimizer.step()

    return script


def linear_in_parts(count, num_batches, scale):
    """The same in batches of 4, several to an update, each loss multiplied by a number."""
    w = nn.Parameter(torch.zeros(FEATURES))
    optimizer = torch.optim.SGD([w], 1e-6)
    draw = torch.Generator().manual_seed(0)
    batches = [MEAN + torch.randn(4, FEATURES, generator=draw) for _ in range(count)]

    def script():
        for k, x in enumerate(batches):
            ((x @ w + 1.0).mean() * scale).backward()
            if (k + 1) % num_batches == 0:
                optimizer.step()
                optimizer.zero_grad()

    return script


def classifier(*, norm=False, size=8, steps=24, optimizer=torch.optim.SGD):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8) if norm else nn.ReLU(), nn.Linear(8, 3))
    made = optimizer(model.parameters(), lr=0.1)
    draw = torch.Generator().manual_seed(0)

    def script():
        for _ in range(steps):
            made.zero_grad()
            x = torch.randn(size, 5, generator=draw)
            F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            made.step()

    return script


@pytest.fixture
def along(session_of):
    """Runs a script with its batch size wanted, and gives its bench, snapshots included."""
    from unstuck.probes.bench import Bench

    def run(script):
        session = session_of(script, batch={"seconds": 10.0})
        return Bench(session.capture.training(session))

    return run


def measured(bench, script=None, seconds=20.0):
    parts = list(batch(bench, Clock(seconds), script or Script(400, 1e-3, "SGD")))
    return {name: [found for n, found in parts if n == name] for name, _ in parts}


@pytest.mark.slow
def test_the_noise_scale_of_a_known_distribution(along):
    """1 / MEAN**2 = 25 samples in every direction, whatever the batch size, at every point of the run."""
    bench = along(linear_script())
    found = list(noise_along(bench, Resized(bench), Clock(10)))
    assert [step for step, _ in found][:2] == [32, 0]
    assert len(found) > 4
    for _, one in found:
        assert one.scale == pytest.approx(1 / MEAN**2, rel=0.25)
        assert one.num_samples == 512


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "adds"), [(1 / 4, False), (1.0, True)])
def test_several_batches_to_an_update(along, monkeypatch, scale, adds):
    """The scale is 25 samples whatever the losses are divided by; 4 * 4 samples in one batch of 16 are the same update in less time.

    Batches take 1 + n / 100 seconds, so that 4 of 4 take 4.16, and one of 16 takes 1.16; the least of (1 + 25 / B)(1 + B / 100) is at 50.
    """
    bench = along(linear_in_parts(256, 4, scale))

    def made_up(*_, **__):
        sizes = tuple(2**k for k in range(8))
        return Timing(
            sizes, tuple(1 + n / 100 for n in sizes), (0.0,) * 8, (Line(1.0, 0.01),), accumulated=(4, 4, 4.16, 0.0)
        )

    monkeypatch.setattr(probe, "timed", made_up)
    monkeypatch.setattr(probe, "critical_rate", lambda bench, clock, pooled: None)
    found = measured(bench, Script(100_000, 0.0, "SGD", 4))
    own, choice, sizes = found["own"][0], found["choice"][0], found["size"]
    assert (own["size"], own["micro_size"], own["num_batches"], own["adds"]) == (16, 4, 4, adds)
    assert choice["critical"] == pytest.approx(25, rel=0.25)
    assert choice["recommended"] in (32, 64)
    assert choice["num_batches"] == 1
    same = next(s for s in sizes if (s["size"], s["num_batches"]) == (16, 1))
    assert (same["updates"], same["rate"]) == (1, 4 if adds else 1)
    assert same["time"] == pytest.approx(1.16 / 4.16)
    whole = next(s for s in sizes if (s["size"], s["num_batches"]) == (16, 4))
    assert (whole["time"], whole["rate"], whole["update_seconds"]) == (1, 1, 4.16)
    assert whole["bytes"] == next(s for s in sizes if s["size"] == 4)["bytes"]


def test_an_update_of_several_batches_is_timed(along):
    bench = along(classifier())
    found = timed(bench, Resized(bench), MemoryLimit(64, 1e9), Clock(3), num_batches=3)
    assert found.sizes == (3, 6, 8, 12, 16, 24)
    assert found.accumulated is not None
    assert found.accumulated[:2] == (8, 3)
    assert found.update(8, 3) > found.update(8)


def test_it_is_that_of_the_parts(along):
    bench = along(classifier())
    resized = Resized(bench)
    _, found = next(noise_along(bench, resized, Clock(10)))
    size, parts = split(bench, resized, afford=1000)
    expected = noise_scale(split_batch([resized.gradient(size, k * size, seed=k) for k in range(parts)], size))
    assert found.scale == pytest.approx(expected.scale)


@pytest.mark.parametrize(("norm", "expected"), [(False, 4), (True, 8)])
def test_few_batches_are_split_but_with_a_batch_norm(along, norm, expected):
    """Eight batches of 8: sixteen parts of four samples, or the batches as they are."""
    bench = along(classifier(norm=norm, steps=8))
    resized = Resized(bench)
    size, parts = split(bench, resized, afford=1000)
    assert size == expected
    assert parts == 64 // expected


def test_time_ends_it_after_the_end_of_the_run(along):
    bench = along(classifier())
    assert [step for step, _ in noise_along(bench, Resized(bench), Clock(0))] == [24]


def test_spans_cover_the_run():
    assert spans([0, 4, 10, 100], 100) == [2.0, 5.0, 48.0, 45.0]
    assert spans([100], 100) == [100.0]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_all_parts_of_an_examination(along, optimizer):
    bench = along(classifier(optimizer=optimizer))
    before = [t.detach().clone() for t in bench.tensors]
    found = measured(bench, Script(400, 1e-3, optimizer.__name__))
    own, choice, sizes = found["own"][0], found["choice"][0], found["size"]
    assert (own["size"], own["reduction"], own["adaptive"]) == (8, "mean", optimizer is torch.optim.Adam)
    assert [s["size"] for s in sizes][:5] == [1, 2, 4, 8, 16]
    assert sizes[-1]["size"] <= 400
    assert next(s for s in sizes if s["size"] == 8)["time"] == 1
    assert choice["own"] == 8
    assert choice["recommended"] in [s["size"] for s in sizes]
    assert choice["most"] == 100
    assert found["memory"][0]["size"] > 1000
    assert found["rate"][0]["start_critical"] is None or found["rate"][0]["start_critical"] > 0
    assert all(torch.equal(a, b) for a, b in zip(before, bench.tensors, strict=True))


def test_what_is_recommended_follows_from_noise_and_time(along, monkeypatch):
    """With a scale of 25 and updates of 1 + B / 100 seconds the least of (1 + 25 / B)(1 + B / 100) is at B = 50: 64 or 32."""
    bench = along(linear_script(size=8, count=64))

    def made_up(*_, **__):
        sizes = tuple(2**k for k in range(8))
        seconds = tuple(1 + n / 100 for n in sizes)
        return Timing(sizes, seconds, (0.0,) * 8, (Line(1.0, 0.01),))

    monkeypatch.setattr(probe, "timed", made_up)
    monkeypatch.setattr(probe, "critical_rate", lambda bench, clock, pooled: None)
    choice = measured(bench, Script(100_000, 0.0, "SGD"))["choice"][0]
    assert choice["recommended"] in (32, 64)
    assert choice["critical"] == pytest.approx(25, rel=0.25)


def test_sizes_go_to_64_times_the_own_where_the_data_do(along, monkeypatch):
    bench = along(classifier())
    resized, fits = Resized(bench), MemoryLimit(10**9, 1e9)
    asked = []
    monkeypatch.setattr(probe, "time_batches", lambda step, sizes, **_: asked.append(sizes))
    for total in (0, 100):
        timed(bench, resized, fits, Clock(5), total=total)
    timed(bench, resized, MemoryLimit(70, 1e9), Clock(5))
    assert asked == [
        [4, 2, 1, 8, 16, 32, 64, 128, 256, 512],
        [4, 2, 1, 8, 16, 32, 64],
        [4, 2, 1, 8, 16, 32],
    ]


def test_updates_are_timed_without_moving_the_network(along):
    bench = along(classifier())
    before = [t.detach().clone() for t in bench.learned]
    found = timed(bench, Resized(bench), MemoryLimit(64, 1e9), Clock(3))
    assert found.sizes == (1, 2, 4, 8, 16, 32)
    assert all(t > 0 for t in found.seconds)
    assert all(torch.equal(a, b) for a, b in zip(before, bench.learned, strict=True))


def test_memory_grows_with_the_batch_and_has_the_optimizer_in_it(along):
    """A sample: 5 inputs of 4 bytes and its label of 8, what ReLU and the second layer keep together (8), log-softmax (3) and what else."""
    plain, adam = (
        memory_of(b, Resized(b)) for b in (along(classifier()), along(classifier(optimizer=torch.optim.Adam)))
    )
    assert plain.each == adam.each
    assert 4 * (5 + 8 + 3) + 8 <= plain.each <= 160
    numbers = 5 * 8 + 8 + 8 * 3 + 3
    assert adam.fixed - plain.fixed == pytest.approx(
        2 * 4 * numbers, abs=4 * 4
    )  # two moments, and four counters of steps
    assert plain.size == (plain.limit - plain.fixed) // plain.each


def test_what_is_besides_the_update():
    assert besides(3.0, 1.0) == 2.0
    assert besides(1.0, 3.0) == 0.0
    assert besides(math.nan, 3.0) == 0.0


@pytest.mark.parametrize(
    ("name", "adaptive"),
    [("SGD", False), ("Sgd", False), ("", False), ("Adam", True), ("RMSprop", True), ("Lamb", True)],
)
def test_which_optimizers_adapt(name, adaptive):
    assert Script(optimizer=name).adaptive is adaptive
