"""Which kernels are used where, and that those of a device are tried before."""

import subprocess
import sys

import pytest
import torch

from unstuck._discover import find
from unstuck.errors import MisuseError
from unstuck.recurrent import _backends, _c, _triton
from unstuck.recurrent._backends import difference, kernels_for
from unstuck.recurrent._recurrence import programs_of
from unstuck.recurrent.cell import trace

CPU = torch.device("cpu")
CELLS = find("recurrent.cells")


def programs(name="gru", **settings):
    return programs_of(trace(CELLS[name], **settings))


@pytest.fixture
def nothing_made(monkeypatch):
    monkeypatch.setattr(_backends, "_MADE", {})


class Wrong(_c.Compiled):
    """Kernels that do what they should, and add something to the first number of what they leave."""

    def __init__(self, programs, dtype):
        super().__init__(programs, dtype)
        self.programs = programs

    def bind(self, which, buffers, unit_size):
        def wrong(run, program):
            def also(*place):
                run(*place)
                buffers[_backends._torch.buffer_of(program.stores[0][0])].view(-1)[0].add_(0.1)

            return also

        passed = self.programs.forward if which == "forward" else self.programs.backward
        return [wrong(*pair) for pair in zip(super().bind(which, buffers, unit_size), passed, strict=True)]


# Both add and multiply the same numbers one by one: some roundings, more where means are taken over 300 units.
@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_compiled_kernels_do_what_tensor_operations_do(name):
    made = _c.Compiled(programs(name), torch.float64)
    assert difference(programs(name), made, torch.float64, CPU) < 1e-13


def test_kernels_that_leave_one_wrong_number_are_told_from_those_that_do_not():
    assert difference(programs(), Wrong(programs(), torch.float64), torch.float64, CPU) > 1e-3


def test_gradients_by_vectors_left_by_row_are_compared_by_their_sum():
    given = programs("lstm", peephole=True)
    assert any(target[0] == "dvector" for target, _ in given.backward[0].stores)
    made = _c.Compiled(given, torch.float64)
    assert difference(given, made, torch.float64, CPU) < 1e-13
    made.by_row = True  # as if they were left in other rows than where C leaves them: the sum is the same
    assert difference(given, made, torch.float64, CPU) < 1e-13


def test_a_processor_gets_c_and_what_there_is_nothing_for_gets_tensor_operations():
    assert isinstance(kernels_for(programs(), torch.zeros(1), "auto"), _c.Compiled)
    assert kernels_for(programs(), torch.zeros(1), "torch") is None
    assert kernels_for(programs(), torch.zeros(1, dtype=torch.bfloat16), "auto") is None
    assert kernels_for(programs(), torch.zeros(1, device="meta"), "auto") is None


@pytest.mark.parametrize(
    ("backend", "where"), [("triton", {}), ("c", {"device": "meta"}), ("c", {"dtype": torch.float16})]
)
def test_what_is_asked_for_and_can_not_be_had_is_an_error(backend, where, nothing_made, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(MisuseError, match=r"kernels can't be had: there are none for torch\.float.. on (cpu|meta)"):
        kernels_for(programs(), torch.zeros(1, **where), backend)


@pytest.fixture
def interpreted(nothing_made, monkeypatch):
    """As if Triton ran on this processor."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(_triton, "is_installed", lambda: True)


def test_kernels_that_give_wrong_numbers_are_not_used_and_one_warning_says_so(interpreted, monkeypatch):
    monkeypatch.setattr(_triton, "Kernels", Wrong)
    with pytest.warns(UserWarning, match="cell gru aren't used, but tensor operations: they differ .* by 0"):
        found = _backends._made("triton", programs(), torch.float32, CPU)
    assert isinstance(found, str)
    assert _backends._made("triton", programs(), torch.float32, CPU) == found  # and no second warning


def test_kernels_that_can_not_be_made_are_not_used_and_one_warning_says_so(interpreted, monkeypatch):
    def failing(programs, dtype):
        raise RuntimeError("ptxas failed")

    monkeypatch.setattr(_triton, "Kernels", failing)
    with pytest.warns(UserWarning, match="tensor operations: RuntimeError: ptxas failed"):
        assert isinstance(_backends._made("triton", programs(), torch.float32, CPU), str)


def test_kernels_that_are_right_are_used(interpreted, monkeypatch):
    monkeypatch.setattr(_triton, "Kernels", _c.Compiled)
    assert isinstance(kernels_for(programs(), torch.zeros(1), "triton"), _c.Compiled)


def test_without_triton_there_is_no_warning(interpreted, monkeypatch):
    monkeypatch.setattr(_triton, "is_installed", lambda: False)
    assert _backends._made("triton", programs(), torch.float32, CPU) == "Triton is not installed"


@pytest.mark.slow
def test_on_a_processor_neither_triton_is_imported_nor_cuda_touched():
    script = """
import sys, torch
from unstuck.recurrent.layers import GRU
GRU(2, 3)(torch.zeros(4, 1, 2))[0].sum().backward()
assert "triton" not in sys.modules and "torch._dynamo" not in sys.modules
assert not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
