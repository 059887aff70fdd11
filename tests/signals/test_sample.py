from __future__ import annotations

import math

import pytest
import torch

from unstuck.signals.sample import MIN_SAMPLES, grid, in_one_piece, thin, thin_batch, thin_units

LIMIT = 2048
SHAPES = [
    (100_003,),
    (512, 512),
    (64, 3, 40, 41),
    (7, 65_536),
    (1, 100_000),
    (100_000, 1),
    (33, 1000, 12),
    (2048, 4096),
]


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.to(memory_format=torch.channels_last)


VIEWS = {
    "contiguous": torch.zeros(64, 32, 20, 20),
    "channels last": channels_last(torch.zeros(64, 32, 20, 20)),
    "transposed": torch.zeros(500, 300).t(),
    "batch and time swapped": torch.zeros(50, 64, 96).transpose(0, 1),
    "sliced": torch.zeros(512, 600)[:, ::2],
    "expanded": torch.zeros(1, 300).expand(1000, 300),
    "expanded from one": torch.zeros(()).expand(300, 400, 5),
    "offset": torch.zeros(1_000_000)[17:],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", [thin, grid])
def test_a_sample_is_bounded_but_not_much_smaller_than_allowed(function, shape):
    sample = function(torch.empty(shape), LIMIT)
    assert LIMIT / 4 <= sample.numel() <= LIMIT


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("function", [thin, grid])
def test_a_sample_of_any_layout_is_a_bounded_view(function, name):
    x = VIEWS[name]
    sample = function(x, LIMIT)
    assert 1 <= sample.numel() <= LIMIT
    assert sample.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


@pytest.mark.parametrize("function", [thin, thin_batch, grid])
def test_what_is_small_enough_is_left_as_it_is(function):
    x = torch.zeros(LIMIT // 4, 4)
    assert function(x, LIMIT) is x


def coverage(x: torch.Tensor, sample: torch.Tensor, parts: int = 7) -> float:
    """How often the least seen of `parts` equal parts of 0 .. x.max() comes up in a sample, over its due."""
    every = torch.histc(x.flatten(), parts, 0, float(x.max()) + 1)
    counts = torch.histc(sample.flatten(), parts, 0, float(x.max()) + 1)
    return float((counts / every).min() * x.numel() / sample.numel())


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape, layout",
    [
        ((512, 512), "contiguous"), ((100, 1024), "contiguous"), ((4096, 96), "contiguous"), ((32, 25, 768), "contiguous"),
        ((16, 64, 32, 32), "contiguous"), ((64, 64, 14, 14), "contiguous"), ((16, 64, 32, 32), "channels last"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [thin, grid])
def test_every_axis_is_seen_along_its_whole_length(shape, layout, function):
    # a distance such as 2 * 512 + 1 for rows of 512 has no factor in common with them, and yet sees half of the columns
    for axis in range(int(function is grid), len(shape)):
        like = [1] * len(shape)
        like[axis] = shape[axis]
        x = torch.arange(float(shape[axis])).reshape(like).expand(shape).contiguous()
        sample = function(channels_last(x) if layout == "channels last" else x, 8192)
        assert coverage(x, sample) > 0.5


@pytest.mark.parametrize("shape", [(512, 512), (16, 64, 32, 32)])
def test_the_mean_of_a_sample_is_near_that_of_all(shape, generator):
    x = torch.randn(shape, generator=generator) + torch.arange(shape[-1]) / shape[-1]
    # 2048 numbers of deviation 1.04: the mean is off by 0.023 (one sigma); four sigma are allowed
    assert abs(thin(x, LIMIT).mean() - x.mean()) < 0.1


def test_a_sample_depends_on_shape_and_strides_alone():
    a, b = torch.arange(50_000.0).reshape(250, 200), torch.arange(50_000.0).reshape(250, 200)
    assert torch.equal(thin(a, 100), thin(b, 100))


def test_thin_batch_keeps_whole_samples_spread_over_the_batch():
    x = torch.arange(128.0).reshape(128, 1, 1).expand(128, 4, 8).contiguous()
    sample = thin_batch(x, 32 * 16)
    assert sample.shape == (16, 4, 8)
    assert sample[:, 0, 0].tolist() == [8.0 * i for i in range(16)]


def test_thin_batch_keeps_at_least_one_sample():
    assert thin_batch(torch.zeros(8, 1000), 10).shape == (1, 1000)


@pytest.mark.parametrize("shape", [(512, 512), (64, 3, 40, 41), (33, 1000, 12)])
def test_a_grid_holds_the_same_units_of_every_sample(shape):
    units = torch.arange(float(math.prod(shape[1:]))).reshape(1, *shape[1:]).expand(shape).contiguous()
    sample = grid(units, LIMIT).flatten(1)
    assert torch.equal(sample, sample[:1].expand_as(sample))
    assert sample[0].unique().numel() == sample.shape[1]


@pytest.mark.parametrize("batch", [MIN_SAMPLES, 100, 5000])
def test_a_grid_keeps_enough_samples(batch):
    assert MIN_SAMPLES / 2 <= grid(torch.empty(batch, 9999), LIMIT).shape[0] <= MIN_SAMPLES


def test_a_grid_of_channels_last_images_reads_memory_in_order():
    x = channels_last(torch.randn(32, 64, 30, 30, generator=torch.Generator().manual_seed(0)))
    sample = grid(x, LIMIT)
    assert sample.dim() == 3
    assert torch.equal(sample[3].flatten().unique(), sample[3].flatten().sort().values)
    assert torch.isin(sample[3], x[3]).all()


@pytest.mark.parametrize(
    "shape, axis", [((128, 300), -1), ((128, 300), 0), ((16, 20, 64, 64), 1), ((8, 100, 40), 2), ((50,), 0)]
)
@pytest.mark.parametrize("layout", ["contiguous", "strange"])
def test_thin_units_shows_every_unit(shape, axis, layout):
    width = shape[axis]
    like = [1] * len(shape)
    like[axis] = width
    x = torch.arange(float(width)).reshape(like).expand(shape)
    x = x.contiguous() if layout == "contiguous" else x.contiguous().transpose(0, -1).contiguous().transpose(0, -1)
    sample = thin_units(x, axis, LIMIT)
    assert sample.dim() == 3
    assert torch.equal(sample, torch.arange(float(width)).reshape(1, width, 1).expand_as(sample))
    assert sample.numel() <= max(LIMIT, MIN_SAMPLES * width)


def test_thin_units_of_images_shows_all_positions_over_the_samples():
    x = torch.arange(50.0 * 50).reshape(1, 1, 50, 50).expand(64, 4, 50, 50).contiguous()
    seen = thin_units(x, 1, limit=64 * 4 * 40).unique()
    assert seen.numel() > 0.99 * 2500


def test_thin_units_never_takes_more_than_a_million():
    assert thin_units(torch.empty(64, 1 << 18), -1).numel() <= 1 << 20


def test_in_one_piece():
    x = torch.zeros(4, 5, 6)
    assert in_one_piece(x) and in_one_piece(x.permute(2, 0, 1)) and in_one_piece(x[:, None])
    assert (
        not in_one_piece(x[:, ::2])
        and not in_one_piece(x.expand(4, 5, 6)[:, :3])
        and not in_one_piece(x[:1].expand(3, 5, 6))
    )
    assert in_one_piece(x.transpose(1, 2), 1) and in_one_piece(x[:2], 1) and not in_one_piece(x[:, ::2], 1)
