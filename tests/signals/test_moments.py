from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from unstuck.signals import moments as signals
from unstuck.signals.moments import (
    DESCRIBE,
    between_share,
    describe,
    gradient,
    gradients,
    moments,
    negative_share,
    with_bounds,
)
from unstuck.signals.numbers import as_float, measurable

NAN, INF = math.nan, math.inf


def slow_describe(x: Tensor, bounds: tuple[float, float] | None = None) -> np.ndarray:
    """The same by the book, in float64, one number after the other."""
    values = (x.abs() if x.is_complex() else x).detach().double().numpy().reshape(x.shape[0], -1)
    finite = np.isfinite(values)
    good = values[finite]
    if not good.size:
        return np.array([NAN, NAN, NAN, NAN, 1, NAN, NAN, NAN])
    within = sum(
        ((c := values[finite[:, u], u]) - c.mean()) @ (c - c.mean())
        for u in range(values.shape[1])
        if finite[:, u].any()
    )
    total = float(((good - good.mean()) ** 2).sum())
    between = NAN if values.shape[0] < 2 else math.sqrt(within / total) if within > 0 else 0.0
    near = NAN
    if bounds is not None:
        margin = 0.01 * (bounds[1] - bounds[0])
        near = float(((good >= bounds[1] - margin) | (good <= bounds[0] + margin)).mean())
    return np.array([
        good.mean(), good.std(), abs(good).max(), (good == 0).mean(), 1 - finite.mean(), near, (good < 0).mean(), between,
    ])  # fmt: skip


def on_device(x: Tensor, bounds: tuple[float, float] | None = None) -> Tensor:
    """What runs on accelerators, run here."""
    return signals._describe_on_device(as_float(x).reshape(x.shape[0], -1), bounds, 0.01)


WAYS = {"host": describe, "device": on_device}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


ACTIVATIONS = {
    "linear": normal(32, 100),
    "relu": normal(32, 100).relu(),
    "tanh": (3 * normal(32, 100)).tanh(),
    "sigmoid": (4 * normal(64, 7)).sigmoid(),
    "images": normal(8, 4, 6, 5).relu(),
    "sequence": normal(8, 11, 6),
    "one column": normal(50, 1),
    "no units": normal(50),
    "one sample": normal(1, 40),
    "far from zero": 1e4 + normal(32, 100),
    "units far apart": 100 * torch.arange(50.0) + normal(32, 50),
    "negative": -normal(16, 16).abs() - 1,
    "minus zero": torch.tensor([[-0.0, 1.0], [0.0, 2.0]]),
    "some nan": torch.where(normal(32, 100) > 1, NAN, normal(32, 100, seed=1)),
    "some inf": torch.where(normal(32, 100) > 1.5, -INF, normal(32, 100, seed=1)),
    "a unit all nan": torch.cat([torch.full((9, 1), NAN), normal(9, 3)], 1),
    "first sample nan": torch.cat([torch.full((1, 5), NAN), 3 + normal(9, 5)]),
    "all nan": torch.full((4, 5), NAN),
    "all infinite": torch.tensor([[INF, -INF], [NAN, INF]]),
    "huge": 1e30 * normal(32, 20),
    "near overflow": torch.tensor([[3e38, -3e38], [1e38, 2e38]]),
    "tiny": 1e-30 * normal(32, 20),
    "smallest": torch.tensor([[1e-45, 0.0], [3e-45, 0.0]]),
    "integers": torch.arange(-12, 12).reshape(6, 4),
    "booleans": normal(16, 16) > 0,
    "complex": torch.complex(normal(16, 16), normal(16, 16, seed=1)),
    "double": normal(16, 16).double() * 1e-100,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_describe_is_right(name, way):
    x = ACTIVATIONS[name]
    found = WAYS[way](x, (-1.0, 1.0)).double().numpy()
    # float32 sums over up to 3200 numbers; the deviation around a mean 1e4 times as large keeps three digits at best
    tolerance = 1e-3 if name in ("far from zero", "units far apart") else 2e-5
    scale = float(np.nan_to_num(slow_describe(x)[2]))
    expected = slow_describe(x, (-1.0, 1.0))
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found[0], expected[0], rtol=tolerance, atol=tolerance * scale + 1e-45)
        np.testing.assert_allclose(found[1:], expected[1:].astype(np.float32), rtol=tolerance, atol=1e-45)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 1e-6), (torch.bfloat16, 1e-6), (torch.float64, 1e-6)])
def test_other_precisions_are_computed_in_float32_or_better(dtype, tolerance):
    x = normal(32, 100).to(dtype)
    np.testing.assert_allclose(describe(x), slow_describe(x), rtol=1e-5, atol=tolerance)


def test_half_precision_does_not_overflow():
    x = torch.full((64, 100), 60000.0, dtype=torch.float16)
    assert describe(x)[:3].tolist() == [60000.0, 0.0, 60000.0]


@pytest.mark.parametrize(
    "view",
    [
        normal(40, 30).t(), normal(64, 60)[::2, ::3], normal(1, 30).expand(8, 30), normal(8, 3, 6, 6).to(memory_format=torch.channels_last),
        normal(4, 5, 6).permute(2, 0, 1), normal(200)[3:],
    ],
)  # fmt: skip
def test_layout_does_not_matter(view):
    np.testing.assert_allclose(describe(view), describe(view.contiguous()), rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_an_output_that_ignores_its_input_has_no_deviation_between_samples(way):
    unit = normal(1, 64)
    assert WAYS[way](unit.expand(32, 64))[7] == 0
    assert WAYS[way](torch.full((32, 1), 0.1))[7] == 0
    assert WAYS[way](1000 + unit.repeat(32, 1))[7] == 0


@pytest.mark.parametrize("way", WAYS)
def test_all_deviation_is_between_samples_when_units_are_alike(way):
    assert WAYS[way](normal(32, 1).expand(32, 50))[7] == pytest.approx(1, abs=1e-6)


def test_a_sample_of_a_large_activation_describes_it():
    x = normal(128, 32, 8, 8).relu() + torch.arange(32.0).reshape(1, 32, 1, 1) / 32
    found, expected = describe(x), slow_describe(x)
    # 8192 of 262144 numbers, from 256 of each sample's 2048 places: a few percent
    np.testing.assert_allclose(found[:2], expected[:2], rtol=0.05)
    assert abs(found[7] - expected[7]) < 0.02


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(0), torch.zeros(4, 0, 3), torch.tensor(3.0), torch.zeros(4, 4).to_sparse(),
        torch.zeros(4, 4).to_mkldnn(),
    ],
    ids=["empty", "no units", "no axes", "sparse", "mkldnn"],
)  # fmt: skip
def test_what_cannot_be_described_is_nan(x):
    assert describe(x).shape == (8,)
    assert describe(x).isnan().all()


def test_quantized_and_nested_tensors_are_nan():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(4, 4), 0.1, 0, torch.qint8)
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert not measurable(nested)
    assert describe(quantized).isnan().all() and gradient(quantized).isnan().all()
    assert gradients([quantized, torch.ones(2)])[0].isnan().all()


def test_conjugated_and_negated_views_and_subclasses_are_read():
    x = torch.complex(normal(8, 8), normal(8, 8, seed=1))
    np.testing.assert_allclose(describe(x.conj()), describe(x), rtol=1e-6)
    np.testing.assert_allclose(describe(x.conj().imag), describe(-x.imag), rtol=1e-6)
    np.testing.assert_allclose(describe(torch.nn.Parameter(x.real.clone())), describe(x.real), rtol=1e-6)


@pytest.mark.slow  # the first use of torch.func takes seconds
def test_under_vmap_and_grad_nothing_escapes():
    found = []

    def watched(x: Tensor) -> Tensor:
        found.append((describe(x), gradient(x), gradients([x])))
        return x.square().sum()

    torch.func.vmap(watched)(normal(3, 4))
    torch.func.grad(watched)(normal(4))
    for a, b, c in found:
        assert a.isnan().all() and b.isnan().all() and c.isnan().all()


@pytest.mark.parametrize("name", ["relu", "some nan", "images", "double", "complex", "huge"])
def test_nothing_is_touched(name, untouched):
    x = ACTIVATIONS[name].clone()
    wide = torch.cat([x] * 50).requires_grad_(not x.is_complex())
    with untouched(x, wide):
        for t in (x, wide):
            found = [describe(t, (0.0, 1.0)), gradient(t), gradients([t, t]), moments(t)]
            assert not any(f.requires_grad or f.grad_fn for f in found)


def test_results_are_small_float32_tensors_of_their_own():
    x = torch.ones(4, 4, dtype=torch.float64)
    for found in (describe(x), gradient(x), gradients([x])):
        assert found.dtype == torch.float32 and found.device == x.device
    assert moments(x).shape == (5,) and gradients([]).shape == (0, 4)


@pytest.mark.parametrize("defaults", ["double", "meta"])
def test_a_users_defaults_do_not_matter(defaults):
    try:
        if defaults == "double":
            torch.set_default_dtype(torch.float64)
        else:
            torch.set_default_device("meta")
        x = torch.ones(3, 3, dtype=torch.float32, device="cpu")
        for found in (describe(x), gradient(x), gradients([x]), describe(x * NAN), describe(x[:0])):
            assert found.dtype == torch.float32 and found.device.type == "cpu"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_numpy_set_to_raise_does_not_matter():
    with np.errstate(all="raise"):
        for x in ACTIVATIONS.values():
            describe(x, (0.0, 1.0)), gradient(x), gradients([x, x * 2 if x.dtype != torch.bool else x])


def test_no_number_is_looked_at_on_an_accelerator():
    # the meta device holds no numbers: whatever needs one raises
    x = torch.empty(128, 64, 16, 16, device="meta")
    assert describe(x, (0.0, 1.0)).device.type == "meta"
    assert gradient(x).shape == (4,)
    assert gradients([x, torch.empty(3, device="meta"), torch.empty(5000, device="meta")]).shape == (3, 4)
    assert describe(torch.empty(8, 8, dtype=torch.bfloat16, device="meta")).dtype == torch.float32


def test_names_fit_numbers():
    assert len(DESCRIBE) == len(describe(torch.ones(2, 2)))
    assert DESCRIBE == (
        "act_mean", "act_std", "act_max", "act_zero", "act_nonfinite", "act_saturated", "act_negative", "act_between",
    )  # fmt: skip


def test_single_numbers_are_those_of_describe():
    x = ACTIVATIONS["tanh"]
    all_numbers = describe(x, (-1.0, 1.0), tolerance=0.05)
    assert torch.equal(moments(x), all_numbers[:5])
    assert with_bounds(x, -1.0, 1.0, tolerance=0.05) == all_numbers[5]
    assert negative_share(x) == all_numbers[6]
    assert between_share(x) == all_numbers[7]
    assert with_bounds(x, -1.0, 1.0) == pytest.approx(float((x.abs() >= 0.98).float().mean()))


# --- gradients


def slow_gradient(x: Tensor) -> np.ndarray:
    values = (x.abs() if x.is_complex() else x).detach().double().numpy().reshape(-1)
    good = values[np.isfinite(values)]
    if not good.size:
        return np.array([NAN, NAN, NAN, 1.0])
    top = abs(good).max()
    rms = top * math.sqrt(((good / top) ** 2).mean()) if top else 0.0
    return np.array([rms, top, (good == 0).mean(), 1 - good.size / values.size])


GRADIENTS = {
    **ACTIVATIONS,
    "zeros": torch.zeros(7, 3),
    "a number": torch.tensor(-2.0),
    "all nan": torch.full((3,), NAN),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_is_right(name):
    x = GRADIENTS[name]
    with np.errstate(over="ignore"):
        expected = slow_gradient(x).astype(np.float32)
    device = signals._gradient_on_device(as_float(x).reshape(-1))
    for found in (gradient(x), device):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-45)


def both_ways(tensors: list[Tensor]) -> list[Tensor]:
    large = [i for i, x in enumerate(tensors) if x.numel() > signals.MOST]
    parts = [signals.thin(x, signals.MOST) for x in tensors]
    return [gradients(tensors), signals._gradients_on_device(tensors, large, parts, signals.flatten(parts))]


def test_gradients_are_those_of_each():
    tensors = [x for x in GRADIENTS.values() if x.dtype == torch.float32]
    expected = np.stack([slow_gradient(x) for x in tensors])
    for found in both_ways(tensors):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-45)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_gradients_of_any_precision_even_mixed(dtype):
    tensors = [
        normal(30, 3).to(dtype),
        normal(5),
        normal(100, 70, seed=2).to(dtype),
        normal(300, 200, seed=3).to(dtype),
    ]
    for found in both_ways(tensors):
        np.testing.assert_allclose(found[:, 0], [slow_gradient(x)[0] for x in tensors], rtol=1e-5)


def test_the_size_of_large_gradients_is_that_of_all_their_numbers():
    rare = torch.zeros(512, 512)
    rare[137, 11] = 1000.0
    tensors = [rare, normal(40_000), normal(100, 500).t(), normal(200, 300)[:, ::2], normal(5000), torch.zeros(30_000)]
    for found in both_ways(tensors):
        np.testing.assert_allclose(found[:, 0], [slow_gradient(x)[0] for x in tensors], rtol=1e-5)


def test_a_number_that_is_not_finite_is_never_missed():
    x = normal(600, 600)
    x[123, 457] = NAN
    y = normal(90, 90)
    y[1, 1] = INF
    for found in both_ways([x, y, normal(3)]):
        assert found[0, 3] == pytest.approx(1 / 360_000) and found[1, 3] > 0 and found[2, 3] == 0
        assert found[0, 0] == pytest.approx(1, rel=0.1)  # the sample's: 4096 numbers


def test_sizes_of_tiny_large_gradients_come_from_the_sample():
    for found in both_ways([1e-25 * normal(300, 300), 1e25 * normal(300, 300)]):
        np.testing.assert_allclose(found[:, 0], [1e-25, 1e25], rtol=0.05)


def test_beyond_a_limit_all_is_sampled(monkeypatch):
    monkeypatch.setattr(signals, "EXACT", 100_000)
    monkeypatch.setattr(signals, "_correct", lambda *_: pytest.fail("looked at all"))
    assert gradients([normal(400, 400)])[0, 0] == pytest.approx(1, rel=0.1)


def test_gradients_that_cannot_be_measured_leave_the_others_alone():
    found = gradients([torch.zeros(0), torch.tensor([3.0, 4.0]), torch.ones(2, 2).to_sparse(), torch.tensor(2.0)])
    assert found[0].isnan().all() and found[2].isnan().all()
    np.testing.assert_allclose(found[[1, 3], 0], [math.sqrt(12.5), 2.0], rtol=1e-6)
    assert gradients([torch.zeros(0)]).isnan().all()


def test_gradients_of_several_devices_meet_where_nothing_waits():
    # the meta device stands for an accelerator; its numbers can't come to the CPU without waiting
    found = gradients([torch.ones(3), torch.empty(2, device="meta"), torch.ones(2)])
    assert found.device.type == "meta" and found.shape == (3, 4)


@pytest.mark.parametrize("mode", ["inference", "autocast", "deterministic"])
def test_modes_of_torch_do_not_matter(mode):
    x, wide = normal(16, 8), normal(300, 100)
    expected = [describe(x), describe(wide), gradient(wide), gradients([x, wide])]
    try:
        torch.use_deterministic_algorithms(mode == "deterministic")
        with torch.inference_mode(mode == "inference"), torch.autocast("cpu", enabled=mode == "autocast"):
            copies = x.clone(), wide.clone()
            found = [describe(copies[0]), describe(copies[1]), gradient(copies[1]), gradients(copies)]
            on_device(copies[0])
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))
