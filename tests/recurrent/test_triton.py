"""Triton's kernels: on a processor by Triton's interpreter, which must be asked for before Triton is imported, and on CUDA."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unstuck._discover import find
from unstuck.recurrent._recurrence import programs_of
from unstuck.recurrent._triton import source_of
from unstuck.recurrent.cell import trace

INSTALLED = importlib.util.find_spec("triton") is not None
# Sums in another order and quotients of another rounding than those of tensor operations.
TOLERANCES = {"float32": 1e-5, "float64": 1e-13}
SCRIPT = """
import importlib.util, json, sys
import torch
from unstuck.recurrent._backends import kernels_for
from unstuck.recurrent._recurrence import programs_of
from unstuck.recurrent.cell import sigmoid, tanh, trace
from unstuck.recurrent._layout import Given, Layout
from unstuck.recurrent._recurrence import recur

path, device = sys.argv[1:]
spec = importlib.util.spec_from_file_location("beside", path)
beside = importlib.util.module_from_spec(spec)
spec.loader.exec_module(beside)

found = {}
for name, (definition, settings) in beside.VARIANTS.items():
    cell = trace(definition, **settings)
    for dtype, layouts in ((torch.float32, beside.LAYOUTS[1::3]), (torch.float64, beside.LAYOUTS[2:4])):
        errors = []
        for layout in layouts:
            x, given, inputs = beside.case(cell, layout, dtype, device=device)
            true = beside.results(cell, x, given, layout, inputs, "plain")
            ours = beside.results(cell, x, given, layout, inputs, "triton")
            errors += map(beside.error, ours, true)
        found[f"{name} {str(dtype)[6:]}"] = max(errors)


def functions(step):
    return {"h": sigmoid(step.input("s")), "t": tanh(step.input("t"))}


cell = trace(functions)
for dtype in (torch.float32, torch.float64):
    part = torch.cat([torch.linspace(-120, 120, 401), torch.logspace(-7, 2, 60), -torch.logspace(-7, 2, 60)])
    x = torch.cat([part, torch.tensor([float("inf"), -float("inf"), float("nan")])]).to(device, dtype)
    layout, zeros = Layout((1,), 1), torch.zeros(1, len(x), device=device, dtype=dtype)
    weights = {"weight_ih": torch.cat([x, x])[:, None]}
    one = torch.ones(1, 1, device=device, dtype=dtype)
    output, last = recur(cell, one, Given({"h": zeros, "t": zeros}, weights, {}), layout, backend="triton")
    for name, y, true in (("sigmoid", output[0], x.double().sigmoid()), ("tanh", last["t"][0], x.double().tanh())):
        assert torch.equal(y.isnan(), true.isnan()) and int(y.isnan().sum()) == 1
        off = (y.double() - true).abs() - 2e-38
        key = f"{name} {str(dtype)[6:]}"
        found[key] = float((off / true.abs()).nan_to_num(0).max() / torch.finfo(dtype).eps)
print(json.dumps(found))
"""


def run(device, **environment):
    path = Path(__file__).with_name("test_recurrence.py")
    command = [sys.executable, "-c", SCRIPT, str(path), device]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def interpreted():
    """Errors of every cell by Triton's interpreter."""
    return run("cpu", TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="Triton is not installed (pip install triton)")
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_interpreted_kernels_give_what_the_plain_loop_gives(interpreted, dtype):
    errors = {name: e for name, e in interpreted.items() if name.endswith(dtype)}
    assert len(errors) > 2 + len(find("recurrent.cells"))
    functions = {n: errors.pop(n) for n in (f"sigmoid {dtype}", f"tanh {dtype}")}
    assert max(functions.values()) <= 4  # units of the last digit
    assert {n: e for n, e in errors.items() if not e < TOLERANCES[dtype]} == {}


COMPILE = """
import sys, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from unstuck._discover import find
from unstuck.recurrent import _triton
from unstuck.recurrent._recurrence import programs_of
from unstuck.recurrent.cell import trace

dtype, of = {"float32": (torch.float32, "*fp32"), "float64": (torch.float64, "*fp64")}[sys.argv[1]]
for name, settings in (("lstm", {"peephole": True}), ("gru", {"reset_after": False}), ("layer-norm-lstm", {})):
    made = _triton.Kernels(programs_of(trace(find("recurrent.cells")[name], **settings)), dtype)
    for kernel in [f for n, f in made._module.items() if n.startswith(("forward", "backward"))]:
        kinds = {a: of if a[0] == "p" and a[1:].isdigit() else "i32" for a in kernel.arg_names[:-1]}
        source = ASTSource(kernel, kinds | {"BLOCK": "constexpr"}, {"BLOCK": 256})
        assert triton.compile(source, target=GPUTarget("cuda", 80, 32), options=_triton._OPTIONS).asm["cubin"]
"""


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="Triton is not installed (pip install triton)")
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_kernels_are_compiled_for_a_device_that_need_not_be_there(dtype, tmp_path):
    """From the source to machine code: what the interpreter takes the compiler might not."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE, dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.skipif(not (INSTALLED and torch.cuda.is_available()), reason="no CUDA device, or no Triton")
def test_compiled_kernels_give_what_the_plain_loop_gives():
    found = run("cuda", TRITON_INTERPRET="0", NVIDIA_TF32_OVERRIDE="0")
    wrong = {n: e for n, e in found.items() if n.split()[0] not in ("sigmoid", "tanh") and not e < 1e-4}
    assert wrong == {}
    assert all(e < 1e-11 for n, e in found.items() if n.endswith("float64") and n.split()[0] not in ("sigmoid", "tanh"))


@pytest.mark.parametrize("name", find("recurrent.cells"))
def test_a_source_is_made_of_numbers_and_operations_alone(name):
    """Nothing that a user wrote gets into it, so that no name can be one of Triton's or Python's."""
    cell = trace(find("recurrent.cells")[name])
    text = source_of(programs_of(cell), torch.float32)
    compile(text, "kernel", "exec")
    written = {g.name for g in cell.inputs} | {v.name for v in cell.vectors} | set(cell.states)
    kernels = text[text.index("def forward0") :]
    words = set(re.findall(r"[A-Za-z_]\w*", kernels)) - {"b", "j", "H", "row", "prev", "step"}
    assert not written & words
