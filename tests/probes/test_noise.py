from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from unstuck.probes.bench import Bench, Clock
from unstuck.probes.noise import noise

MEAN, DEVIATION, FEATURES = 0.2, 1.0, 50


def linear_loss(batches):
    """A loss whose gradient by a sample is the sample itself: mean `MEAN` and deviation `DEVIATION` in each feature."""
    w = torch.zeros(FEATURES, requires_grad=True)
    optimizer = torch.optim.SGD([w], 1e-6)

    def script():
        for x in batches:
            optimizer.zero_grad()
            (x @ w).mean().backward()
            optimizer.step()

    return script


def samples(count, size, mean=MEAN, seed=0):
    return list(mean + DEVIATION * torch.randn(count, size, FEATURES, generator=torch.Generator().manual_seed(seed)))


def made(bench, size):
    """The bench with the batch size told, which here no loss function tells."""
    return Bench(type(bench.training)(**{**vars(bench.training), "batch_size": size}))


@pytest.mark.parametrize("size", [8, 64])
def test_the_scale_of_a_known_distribution(bench_of, size):
    """Trace of the covariance over the square of the mean: FEATURES DEVIATION**2 / FEATURES MEAN**2, whatever the batch size.

    Both are estimated from 16 gradients in 50 directions: the noise within a few percent, the signal within a third.
    """
    found = noise(made(bench_of(linear_loss(samples(16, size))), size), Clock(5))
    assert found["gradients"] == 16
    assert found["noise"] == pytest.approx(FEATURES * DEVIATION**2, rel=0.15)
    assert found["signal"] == pytest.approx(FEATURES * MEAN**2, rel=0.35)
    assert found["scale"] == pytest.approx(DEVIATION**2 / MEAN**2, rel=0.5)
    assert found["batch_size"] == size


def test_it_does_not_depend_on_how_the_loss_is_scaled(bench_of):
    batches = samples(16, 16)
    found = [noise(made(bench_of(linear_loss([s * x for x in batches])), 16), Clock(5))["scale"] for s in (1, 100)]
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_noise_alone_has_no_scale_or_a_large_one(bench_of):
    found = noise(made(bench_of(linear_loss(samples(16, 8, mean=0.0))), 8), Clock(5))
    assert found["scale"] is None or found["scale"] > 200


def test_equal_gradients_have_no_noise(bench_of):
    batches = [torch.full((4, FEATURES), 1.0) for _ in range(4)]
    found = noise(made(bench_of(linear_loss(batches)), 4), Clock(5))
    assert found["scale"] == pytest.approx(0, abs=1e-5)


def test_a_single_batch_is_split(bench_of):
    """Full-batch training: the parts of the batch are compared, and the scale is in samples all the same."""
    x = MEAN + torch.randn(400, FEATURES, generator=torch.Generator().manual_seed(0))
    w, y = torch.zeros(FEATURES, requires_grad=True), torch.full((400,), 1e4)  # so far off that no output matters
    optimizer = torch.optim.SGD([w], 1e-12)

    def script():
        for _ in range(3):
            optimizer.zero_grad()
            F.mse_loss(x @ w, y).backward()
            optimizer.step()

    bench = bench_of(script)
    assert len(bench.tapes) == 1
    assert bench.training.batch_size == 400
    found = noise(bench, Clock(5))
    assert found["gradients"] == 4
    assert found["scale"] == pytest.approx(1 / MEAN**2, rel=0.5)


def regression(batches):
    """A loss whose gradient by a sample is the sample itself, in good measure: its target is far off. Axis 0 is the batch's, or 1."""
    w = torch.zeros(FEATURES, requires_grad=True)
    optimizer = torch.optim.SGD([w], 1e-12)

    def script():
        for x in batches:
            optimizer.zero_grad()
            F.mse_loss(x @ w, torch.full(x.shape[:-1], 1e4)).backward()
            optimizer.step()

    return script


def test_a_smaller_batch_at_the_end_is_left_out(bench_of):
    """The number that is told is that of most batches; gradients of batches of different sizes differ in their noise."""
    full = samples(8, 64)
    whole = noise(made(bench_of(regression(full)), 64), Clock(5))
    found = noise(made(bench_of(regression([*full, full[0][:5]])), 64), Clock(5))
    assert found["gradients"] == 8
    assert found == whole


def test_batches_that_are_all_smaller_count_as_what_they_are(bench_of):
    """As where others are drawn of the size of the last one, which was smaller."""
    found = noise(made(bench_of(regression(samples(16, 8))), 64), Clock(5))
    assert found["scale"] == pytest.approx(DEVIATION**2 / MEAN**2, rel=0.5)
    assert found["batch_size"] == 64


@pytest.mark.parametrize("last", [64, 8])
def test_the_batch_may_be_behind_the_time(bench_of, last):
    """Two steps of time with the same inputs in both: gradients are as without, and so is the scale, in samples."""
    batches = [torch.stack([x, x]) for x in samples(16, 64)]
    batches[-1] = batches[-1][:, :last]
    found = noise(made(bench_of(regression(batches)), 64), Clock(5))
    assert found["gradients"] == (16 if last == 64 else 15)
    assert found["scale"] == pytest.approx(DEVIATION**2 / MEAN**2, rel=0.5)


def test_two_gradients_are_too_few(bench_of):
    assert noise(made(bench_of(linear_loss(samples(2, 8))), 8), Clock(5)) is None


def test_time_ends_it_after_three(bench_of):
    assert noise(made(bench_of(linear_loss(samples(8, 8))), 8), Clock(0))["gradients"] == 3
