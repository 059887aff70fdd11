from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unstuck.signals import units
from unstuck.signals.sample import thin_units
from unstuck.signals.units import UnitWindow, alive

NAN = math.nan


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def planted(shape: tuple[int, ...], axis: int, dead: list[int]) -> Tensor:
    """Outputs of a relu some units of which are dead."""
    x = normal(*shape).relu()
    x.movedim(axis, 0)[dead] = 0
    return x


@pytest.mark.parametrize(
    "shape, axis",
    [
        ((64, 300), -1),
        ((64, 300), 1),
        ((8, 20, 9, 9), 1),
        ((300, 128, 10, 10), 1),
        ((16, 50, 40), 2),
        ((16, 40, 50), 1),
        ((30, 8, 200), 0),
    ],
)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "swapped"])
def test_dead_units_are_found_and_no_others(shape, axis, layout):
    dead = [0, 3, shape[axis] - 1]
    x = planted(shape, axis, dead)
    if layout == "channels last" and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    elif layout == "swapped":
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    found = alive(x, axis)
    assert found.dtype == torch.bool and found.shape == (shape[axis],)
    assert (~found).nonzero().flatten().tolist() == dead  # the others are zero at 32 or more places with 2^-32 at most
    assert torch.equal(units._alive_on_device(thin_units(x, axis, units.LIMIT)), found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool])
def test_any_type(dtype):
    assert alive(torch.tensor([[0, 1, 0], [0, 0, 1]]).to(dtype)).tolist() == [False, True, True]


def test_nan_is_not_alive_and_does_not_hide_life():
    x = torch.tensor([[NAN, NAN, -1.0], [NAN, 1.0, NAN], [NAN, NAN, 0.0]])
    assert alive(x).tolist() == [False, True, False]
    assert units._alive_on_device(x[:, :, None]).tolist() == [False, True, False]


def test_negative_outputs_are_not_alive():
    assert not alive(-normal(8, 8).abs()).any()


def test_wide_layers_are_seen_in_enough_samples():
    # a unit active in a fifth of the samples is missed in 32 of them with 0.8^32 = 0.0008
    x = (normal(128, 8192) > 0.84).float()
    assert alive(x).float().mean() > 0.995


@pytest.mark.parametrize(
    "x", [torch.zeros(0, 4), torch.tensor(1.0), torch.ones(3, 3).to_sparse()], ids=["empty", "no axes", "sparse"]
)
def test_what_cannot_be_measured_has_no_units(x):
    assert alive(x).numel() == 0


def test_nothing_is_touched(untouched):
    x, wide = planted((8, 9), 1, [2]).requires_grad_(), normal(512, 300)
    with untouched(x, wide):
        window = UnitWindow()
        for t in (x, wide):
            window.add(alive(t))
            assert not window.dead_share().requires_grad


def test_no_number_is_looked_at_on_an_accelerator():
    window = UnitWindow()
    window.add(alive(torch.empty(64, 32, 8, 8, device="meta"), 1))
    assert window.dead_share().device.type == "meta" and window.dead().shape == (32,)


# --- the window


def test_a_unit_is_dead_only_when_no_batch_of_the_window_saw_it():
    generator = torch.Generator().manual_seed(0)
    window, batches = UnitWindow(num_batches=3), []
    for _ in range(20):
        units_alive = torch.rand(50, generator=generator) < 0.3
        window.add(units_alive)
        batches.append(units_alive)
        expected = ~torch.stack(batches[-3:]).any(0)
        assert torch.equal(window.dead(), expected)
        assert window.dead_share() == expected.float().mean()
        assert len(window) == min(3, len(batches))


def test_an_empty_window_knows_nothing():
    window = UnitWindow()
    assert len(window) == 0 and window.dead_share().isnan() and window.dead().numel() == 0


def test_a_window_starts_anew_when_units_change():
    window = UnitWindow()
    window.add(torch.tensor([True, True]))
    window.add(torch.tensor([False, True, True]))
    assert len(window) == 1 and window.dead().tolist() == [True, False, False]


def test_the_share_of_one_layer_stacks_with_others():
    windows = [UnitWindow(), UnitWindow()]
    windows[0].add(torch.tensor([True, False]))
    windows[1].add(torch.tensor([False, False, False]))
    assert torch.stack([w.dead_share() for w in windows]).tolist() == [0.5, 1.0]
