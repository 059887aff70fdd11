from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.optim.batch_memory import (
    _of_group,
    _of_system,
    available_memory,
    memory_limit,
    saved_bytes,
    update_bytes,
)


def test_saved_bytes_of_a_layer():
    """A linear layer keeps its input, tanh its output; the weight is there anyway."""
    layer, x = nn.Linear(10, 20), torch.randn(16, 10)
    assert saved_bytes(lambda: layer(x).tanh().sum(), list(layer.parameters())) == 4 * (16 * 10 + 16 * 20)
    assert saved_bytes(lambda: layer(x).tanh().sum(), [*layer.parameters(), x]) == 4 * 16 * 20


def test_memory_that_is_kept_twice_counts_once():
    x = torch.ones(100, requires_grad=True)

    def loss():
        y = x.exp()  # keeps its output, as each of the squares keeps it
        return (y.square() + y.square()).sum()

    assert saved_bytes(loss, [x]) == 400


def test_bytes_of_an_update_grow_with_the_batch():
    layer = nn.Linear(10, 20)
    held = list(layer.parameters())

    def count(size):
        x = torch.randn(size, 10)
        return update_bytes(lambda: None, lambda: layer(x).tanh().sum(), [*held, x])

    assert count(32) - count(16) == 4 * 16 * (10 + 20)
    assert count(16) == 4 * (2 * (200 + 20) + 16 * 30)  # values and gradients, then what grows


def test_the_limit_on_a_processor_is_drawn_on_and_never_tried():
    asked = []

    def measure(size):
        asked.append(size)
        return 1000 + 50 * size

    found = memory_limit(measure, [32, 64], limit=1e6)
    assert asked == [32, 64]
    assert (found.fixed, found.each) == (1000, 50)
    assert found.size == (10**6 - 1000) // 50
    assert not found.tried


def test_nothing_fits():
    assert memory_limit(lambda size: 1000 + size, [1, 2], limit=500).size == 0


def test_no_sizes_to_measure():
    with pytest.raises(MisuseError, match="no batch sizes"):
        memory_limit(lambda size: 1.0, [])


@pytest.mark.parametrize("largest", [3, 100, 777, 4096])
def test_the_limit_on_an_accelerator_is_tried_and_running_out_caught(largest):
    asked = []

    def measure(size):
        asked.append(size)
        if size > largest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 10.0 * size

    found = memory_limit(measure, [16, 32], limit=1e9, device="cuda", most=1 << 14)
    assert found.tried
    assert largest - max(1, largest // 32) <= found.size <= largest
    assert len(asked) < 25


def test_trying_ends_at_the_most():
    assert memory_limit(lambda size: 1.0, [16], limit=1e9, device="cuda", most=1000).size == 1000


def test_an_accelerators_limit_may_be_given():
    found = memory_limit(lambda size: 1000.0 * size, [16], limit=1e6, device="cuda", most=1 << 14)
    assert 960 <= found.size <= 1000


def test_memory_that_the_system_says_is_there(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  100 kB\nMemAvailable:  20 kB\n")
    assert _of_system(file) == 20 << 10
    assert _of_system(tmp_path / "none") is None


def test_limits_of_control_groups(tmp_path):
    assert _of_group(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("10\n")
    assert _of_group(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert _of_group(tmp_path) == 990
    first = tmp_path / "first" / "memory"
    first.mkdir(parents=True)
    (first / "memory.limit_in_bytes").write_text("500")
    (first / "memory.usage_in_bytes").write_text("600")
    assert _of_group(tmp_path / "first") == 0


def test_something_is_free_here():
    assert 1 << 20 < available_memory() < 1 << 50


def test_bytes_are_on_the_line_or_between_what_was_tried():
    """Tried are 16, 32, 64 and what lies between 64 and 128, of which the largest that fits is below 100."""
    drawn = memory_limit(lambda size: 50.0 + 3 * size, [16, 32], limit=1e4)
    tried = memory_limit(lambda size: 50.0 + 3 * size, [16], limit=350.0, device="cuda")
    for found in (drawn, tried):
        assert [found.bytes_of(n) for n in (4, 16, 24, 90, 200)] == pytest.approx([62.0, 98.0, 122.0, 320.0, 650.0])
    assert drawn.measured == ()
    assert tried.measured[0] == (16, 98.0)
    assert tried.measured[-1] == (tried.size, 50.0 + 3 * tried.size)
    assert math.isnan(memory_limit(lambda size: 1e3, [16], limit=10.0, device="cuda").bytes_of(16))
