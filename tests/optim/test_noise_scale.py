from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.optim.noise_scale import (
    Products,
    Tradeoff,
    _quantile,
    critical_batch_size,
    noise_scale,
    per_sample,
    relative_rate,
    relative_updates,
    split_batch,
)

FEATURES = 20


def half_square(output, target):
    return 0.5 * (output[:, 0] - target).square().mean()


def least_squares(seed, samples, distance=1.0):
    """A linear model `distance` from the best one, data for it, and the exact noise scale there.

    With x normal of covariance C, y = x w* + e, e normal of deviation 1, and d = w - w*, the gradient of a sample is x (x d - e). Its
    mean is G = C d. By Isserlis' theorem E[x x' (x d)^2] = C (d C d) + 2 C d d C, so the trace of its covariance is
    tr C (d C d + 1) + |G|^2.
    """
    draw = torch.Generator().manual_seed(seed)
    c = torch.linspace(0.2, 2.0, FEATURES, dtype=torch.float64)
    d = distance * torch.randn(FEATURES, generator=draw, dtype=torch.float64)
    gradient = c * d
    trace = c.sum() * (d @ (c * d) + 1) + gradient @ gradient
    x = torch.randn(samples, FEATURES, generator=draw, dtype=torch.float64) * c.sqrt()
    y = torch.randn(samples, generator=draw, dtype=torch.float64)
    model = nn.Linear(FEATURES, 1, bias=False, dtype=torch.float64)
    model.weight.data = d[None].clone()
    return model, x, y, float(trace / (gradient @ gradient))


def parts_of(model, x, y, parts):
    chunks = zip(x.chunk(parts), y.chunk(parts), strict=True)
    gradients = [torch.autograd.grad(half_square(model(a), b), list(model.parameters())) for a, b in chunks]
    return split_batch(gradients, len(x) / parts)


def measured(way, model, x, y):
    return noise_scale(parts_of(model, x, y, 32) if way == "split" else per_sample(model, half_square, x, y))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["split", "per sample"])
@pytest.mark.parametrize(("distance", "samples"), [(1.0, 1024), (0.3, 2048), (0.1, 8192)])
def test_within_a_fifth_of_the_exact_value(way, distance, samples):
    """Scales of about 20, 50 and 250: the signal's standard error falls as 2 / sqrt(scale * samples), and is some percent here."""
    close = covered = 0
    for seed in range(30):
        model, x, y, exact = least_squares(seed, samples, distance)
        found = measured(way, model, x, y)
        close += abs(found.scale / exact - 1) < 0.2
        covered += found.low <= exact <= found.high
    assert close >= 27
    assert covered >= 26  # 28.5 of 30 at 95%


@pytest.mark.parametrize("way", ["split", "per sample"])
def test_of_a_linear_model(way):
    model, x, y, exact = least_squares(0, 1024)
    found = measured(way, model, x, y)
    assert found.scale == pytest.approx(exact, rel=0.2)
    assert found.low < found.scale < found.high
    assert found.is_known
    assert found.num_samples == 1024
    assert found.num_parts == {"split": 32, "per sample": 1024}[way]


def test_it_does_not_depend_on_how_the_loss_is_scaled():
    model, x, y, _ = least_squares(0, 256)
    one = noise_scale(per_sample(model, half_square, x, y))
    other = noise_scale(per_sample(model, lambda o, t: 100 * half_square(o, t), x, y))
    assert other.scale == pytest.approx(one.scale)
    assert other.low == pytest.approx(one.low)


def test_noise_and_signal_are_unbiased():
    """Over all ways to draw 3 of 5 gradients with replacement: the exact covariance and the exact square of the mean."""
    values = torch.tensor([1.0, 2.0, 4.0, -1.0, 0.5], dtype=torch.float64)
    found = []
    for i in range(5):
        for j in range(5):
            for k in range(5):
                one = noise_scale(split_batch([[values[[n]]] for n in (i, j, k)], 1))
                found.append((one.noise, one.signal))
    noise, signal = torch.tensor(found, dtype=torch.float64).mean(0)
    assert float(noise) == pytest.approx(float(values.var(unbiased=False)))
    assert float(signal) == pytest.approx(float(values.mean() ** 2))


def test_parts_that_are_the_whole_set_give_its_own_gradient():
    model, x, y, _ = least_squares(3, 240)
    whole = torch.autograd.grad(half_square(model(x), y), list(model.parameters()))[0]
    singles = torch.stack(
        [torch.autograd.grad(half_square(model(a[None]), b[None]), model.weight)[0] for a, b in zip(x, y, strict=True)]
    )
    found = noise_scale(per_sample(model, half_square, x, y), total=240)
    assert found.signal == pytest.approx(float(whole.square().sum()))
    assert found.noise == pytest.approx(float((singles - whole).square().sum() / 239))


def test_several_batches_are_averaged_as_noise_and_signal_not_as_ratios():
    one = split_batch([[torch.tensor([g])] for g in (1.0, 2.0, 3.0)], 4)
    other = split_batch([[torch.tensor([g])] for g in (10.0, 11.0, 15.0)], 4)
    apart, both = [noise_scale(p) for p in (one, other)], noise_scale(one, other)
    assert both.noise == pytest.approx((apart[0].noise + apart[1].noise) / 2)
    assert both.signal == pytest.approx((apart[0].signal + apart[1].signal) / 2)
    assert both.num_samples == 24


def test_the_interval_is_the_jackknifes():
    """Against leaving out each part by hand."""
    values = torch.tensor([2.0, 3.0, 5.0, 4.0, 3.5, 1.0], dtype=torch.float64)

    def ratio(some):
        mean = some.mean()
        variance = some.var()
        return float((mean**2 - variance / len(some)) / variance)

    left = torch.tensor([ratio(torch.cat([values[:i], values[i + 1 :]])) for i in range(6)])
    error = float((5 / 6 * (left - left.mean()).square().sum()).sqrt())
    found = noise_scale(split_batch([[v[None]] for v in values], 1))
    reach = _quantile(0.975, 5) * error
    assert 1 / found.low == pytest.approx(ratio(values) + reach, rel=1e-5)


def test_groups_change_the_interval_alone():
    model, x, y, _ = least_squares(1, 200)
    few, many = (noise_scale(per_sample(model, half_square, x, y, groups=g)) for g in (5, 200))
    assert few.noise == pytest.approx(many.noise)
    assert few.signal == pytest.approx(many.signal)
    assert few.low != many.low


def test_noise_alone_has_a_lower_bound_only():
    draw = torch.Generator().manual_seed(0)
    found = noise_scale(split_batch([[torch.randn(50, generator=draw)] for _ in range(16)], 8))
    assert not found.is_known
    assert found.low > 40  # of 128 samples
    assert str(found).startswith("at least ")


def test_a_signal_is_told_with_its_interval():
    draw = torch.Generator().manual_seed(0)
    found = noise_scale(split_batch([[3 + torch.randn(50, generator=draw)] for _ in range(16)], 9))
    assert found.scale == pytest.approx(
        1.0, rel=0.2
    )  # variance 1 in a part of 9 is 9 a sample, over 3 squared; known to 6%
    assert str(found) == f"{found.scale:.3g} samples ({found.low:.3g} to {found.high:.3g})"


def test_a_metric_gives_the_scale_with_curvature():
    """By hand: tr(H Sigma) and G H G with H = diag(1, 4), of the four gradients drawn."""
    g = torch.tensor([[1.0, 0.0], [3.0, 1.0], [2.0, -1.0], [2.0, 4.0]], dtype=torch.float64)
    h = torch.tensor([1.0, 4.0], dtype=torch.float64)
    found = noise_scale(split_batch([[row] for row in g], 2, metric=lambda tensors: [h * tensors[0]]))
    assert found.noise == pytest.approx(float(2 * (h * g.var(0)).sum()))
    assert found.signal == pytest.approx(float((h * g.mean(0) ** 2).sum() - found.noise / 8))


def test_networks_that_vmap_has_no_rule_for_are_looped_over():
    """A branch on data; each gradient against that of `autograd`."""

    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x):
            return self.layer(x) if float(x.sum()) > 0 else self.layer(-x)

    torch.manual_seed(0)
    model, x, y = Branching(), torch.randn(6, 3), torch.randn(6)
    found = per_sample(model, half_square, x, y, groups=6)
    held = list(model.parameters())
    single = [torch.autograd.grad(half_square(model(x[i : i + 1]), y[i : i + 1]), held) for i in range(6)]
    expected = split_batch(single, 1.0)
    assert torch.allclose(found.sums, expected.sums)
    assert torch.allclose(found.squares, expected.squares)


def test_many_at_once_and_in_chunks_are_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    x, y = torch.randn(20, 4), torch.randn(20)
    one, other = (per_sample(model, half_square, x, y, chunk=c) for c in (20, 3))
    assert torch.allclose(one.sums, other.sums)


def test_a_batch_norm_has_no_gradients_of_single_samples():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    x, y = torch.randn(8, 3), torch.randn(8)
    with pytest.raises(MisuseError, match="1 is a batch norm in training mode.*split_batch"):
        per_sample(model, half_square, x, y)
    assert noise_scale(per_sample(model.eval(), half_square, x, y)).noise > 0


def test_network_and_random_numbers_are_as_before():
    def noisy(output, target):
        return half_square(output, target + random.random() + np.random.rand())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    before = [p.detach().clone() for p in model.parameters()]
    state, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    one = per_sample(model, half_square, torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), torch.zeros(8))
    two = per_sample(model, half_square, torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), torch.zeros(8))
    per_sample(model, noisy, torch.ones(8, 3), torch.zeros(8))
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy, strict=True))
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(one.sums, two.sums)


@pytest.mark.parametrize("count", [0, 2])
def test_two_gradients_are_too_few(count):
    with pytest.raises(MisuseError):
        noise_scale(*[split_batch([[torch.ones(2)]] * 2, 1)] if count else [])


def test_no_gradients_at_all():
    with pytest.raises(MisuseError, match="got none"):
        split_batch([], 1)


def test_parameters_without_a_gradient_take_no_part():
    """As of `[p.grad for p in model.parameters()]` with frozen ones; where a part alone has none it is zero. Sparse ones are made dense."""
    grads = [[torch.tensor([g, 1.0])] for g in (2.0, 4.0, 0.0, 4.0)]
    holes = [[None, *grad] for grad in grads]
    expected = split_batch(grads, 2)
    assert torch.equal(split_batch(holes, 2).sums, expected.sums)
    assert torch.equal(split_batch([[g.to_sparse() for g in grad] for grad in grads], 2).sums, expected.sums)
    some = [[torch.tensor([3.0])], [None], [torch.tensor([1.0])]]
    assert split_batch(some, 2).sums.tolist() == [[9, 0, 3], [0, 0, 0], [3, 0, 1]]
    with pytest.raises(MisuseError, match="needs gradients, and got none"):
        split_batch([[None], [None]], 2)


def test_of_gradients_that_are_all_zero_nothing_is_known():
    found = noise_scale(split_batch([[torch.zeros(3)]] * 4, 2))
    assert not found.is_known and (found.low, found.high) == (0, math.inf)
    assert str(found) == "at least 0 samples: in 8 no gradient is to be told from noise"


def test_equal_gradients_have_no_noise():
    found = noise_scale(split_batch([[torch.ones(3)]] * 4, 8))
    assert found.noise == pytest.approx(0, abs=1e-9)
    assert found.scale == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("freedom", "value"), [(5, 2.571), (10, 2.228), (30, 2.042), (10**6, 1.960)])
def test_quantiles_of_students_distribution(freedom, value):
    assert _quantile(0.975, freedom) == pytest.approx(value, abs=3e-3)


# ---------------------------------------------------------------------- what a batch size costs


def test_the_tradeoff_at_the_critical_size_takes_twice_the_least_of_both():
    made = Tradeoff(200.0, 50.0)
    assert made.updates(200) == 100
    assert made.samples(200) == 2 * made.least_samples == 20_000
    assert made.updates(1e12) == pytest.approx(50)
    assert made.samples(1e-9) == pytest.approx(10_000)
    assert made.time(100, 0.5) == pytest.approx(75.0)


@pytest.mark.parametrize("size", [1, 8, 100, 5000])
def test_relative_updates_of_one_scale_are_the_tradeoffs(size):
    made = Tradeoff(70.0)
    assert relative_updates(size, 32, [70.0] * 3, [1, 2, 3]) == pytest.approx(made.updates(size) / made.updates(32))
    assert critical_batch_size(32, [70.0] * 3, [1, 2, 3]) == pytest.approx(70.0)


def test_where_there_is_no_signal_samples_alone_count():
    assert relative_updates(64, 32, [math.inf], [1]) == pytest.approx(0.5)
    assert critical_batch_size(32, [math.inf], [1]) > 1e9


def test_a_batch_of_the_whole_set_has_no_noise():
    """From 50 of 100 samples, whose noise is 1/50 - 1/100, to all: 1 + b / 100 updates of those become 1."""
    assert relative_updates(100, 50, [40.0], [1], total=100) == pytest.approx(1 / (1 + 40 / 100), rel=1e-6)


def test_rates_are_linear_below_the_critical_size_and_level_above():
    below = relative_updates(2, 1, [1e6], [1])
    above = relative_updates(2e6, 1e6, [1.0], [1])
    assert relative_rate(below, adaptive=False) == pytest.approx(2, rel=1e-3)
    assert relative_rate(below, adaptive=True) == pytest.approx(math.sqrt(2), rel=1e-3)
    assert relative_rate(above, adaptive=False) == pytest.approx(1, rel=1e-3)


def test_products_of_a_single_tensor():
    made = split_batch([[torch.tensor([1.0, 2.0])], [torch.tensor([3.0, -1.0])]], 4)
    assert isinstance(made, Products)
    assert made.sums.tolist() == [[5.0, 1.0], [1.0, 10.0]]
    assert made.squares.tolist() == [5.0, 10.0]
