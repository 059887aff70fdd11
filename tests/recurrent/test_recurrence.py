"""The fast loop beside the plain one: every cell, every backend, sequences of every length, and what autograd may be asked for."""

import pytest
import torch

from unstuck._discover import find
from unstuck.errors import MisuseError
from unstuck.recurrent import _backends, _c, _recurrence
from unstuck.recurrent._layout import Given, Layout, shapes
from unstuck.recurrent._recurrence import recur
from unstuck.recurrent.cell import relu, sigmoid, tanh, trace

pytestmark = pytest.mark.slow

CELLS = {name: (cell, {}) for name, cell in find("recurrent.cells").items()}
LSTM, GRU = CELLS["lstm"][0], CELLS["gru"][0]


def searched(step):
    """As an architecture search may find one: six gates, two states, a gate that nothing but a number is added to."""
    i, f, g, o, a, b = step.gates("i", "f", "g", "o", "a", "b")
    x = tanh(sigmoid(i) * relu(f))
    c = x * (sigmoid(g) * tanh(o)) + tanh(a) * sigmoid(b) * step.state("c")
    return {"h": tanh(c) * sigmoid(o) + 0.1 * o, "c": c}


def swapped(step):
    """States that take each other's place, and a map of a map of a product."""
    new = tanh(step.gate("n", of=sigmoid(step.gate("r", of=step.state("c") * step.h)) * step.state("c")))
    return {"h": step.state("c"), "c": step.state("d"), "d": new + step.h}


def rich(step):
    """More parameters by unit than most cells have altogether."""
    total = step.gate("h")
    for n in range(40):
        total = total + step.vector(f"v{n}") * step.h
    return {"h": tanh(total)}


def idle(step):
    """A state that nothing is made of, one that stays, a gate that isn't used, and no map of a state."""
    step.input("unused")
    return {"h": relu(step.input("h")), "c": step.input("c") * 0.5, "d": step.state("d")}


VARIANTS = CELLS | {
    "peepholes": (LSTM, {"peephole": True}),
    "coupled": (LSTM, {"coupled": True, "peephole": True}),
    "no forget gate": (LSTM, {"forget": False}),
    "projection": (LSTM, {"project": True}),
    "projection and peepholes": (LSTM, {"project": True, "peephole": True, "zoneout": {"c": 0.2}}),
    "reset before": (GRU, {"reset_after": False}),
    "relu": (CELLS["rnn"][0], {"nonlinearity": "relu"}),
    "masks": (LSTM, {"zoneout": 0.3, "drop_state": 0.2}),
    "masks and levels": (GRU, {"zoneout": 0.3, "drop_state": 0.2, "reset_after": False}),
    "searched": (searched, {}),
    "swapped": (swapped, {}),
    "idle": (idle, {}),
    "rich": (rich, {}),
}
LAYOUTS = [Layout((4,) * 6, 4), Layout((4, 3, 3, 1), 4), Layout((3, 3, 1), 4), Layout((), 2), Layout((1,), 1)]
INPUT, HIDDEN, PROJECTED = 5, 7, 3


def case(cell, layout, dtype=torch.float64, *, bias=True, seed=0, device="cpu"):
    """Inputs and all that a cell computes with, drawn at random; a list of what gradients are taken by, too."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.5).to(device, dtype).requires_grad_()

    width = PROJECTED if cell.projection is not None else 0
    weights = {name: draw(*s) for name, s in shapes(cell, INPUT, HIDDEN, width, bias=bias).items()}
    states = {name: draw(layout.batch, width if width and name == "h" else HIDDEN) for name in cell.states}
    masks = {}
    for m in cell.masks:
        drawn = torch.rand(layout.rows if m.by_step else layout.batch, HIDDEN, generator=generator)
        masks[m.name] = (drawn < m.rate).to(device, dtype) * m.high
    x = draw(layout.rows, INPUT)
    return x, Given(states, weights, masks), [x, *states.values(), *weights.values()]


def results(cell, x, given, layout, inputs, backend, *, seed=1):
    """Outputs, last states and all gradients of a random mixture of them."""
    generator = torch.Generator().manual_seed(seed)
    output, last = recur(cell, x, given, layout, backend=backend)
    ends = [output, *last.values()]
    loss = sum((e * torch.randn(e.shape, generator=generator, dtype=torch.float64).to(e)).sum() for e in ends)
    grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [*ends, *(torch.zeros_like(i) if g is None else g for i, g in zip(inputs, grads, strict=True))]


def error(found, true):
    """Largest difference relative to the largest number."""
    return (
        float((found - true).detach().abs().max() / true.detach().abs().max().clamp_min(1e-30)) if true.numel() else 0.0
    )


# Both loops add the same products in another order: some tens of roundings of 1e-16 and 6e-8 each; some sums cancel a few digits.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), pytest.param(torch.float32, 1e-5, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("backend", ["c", "torch"])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_backend_gives_what_the_plain_loop_gives(name, backend, dtype, tolerance):
    definition, settings = VARIANTS[name]
    cell = trace(definition, **settings)
    for layout in LAYOUTS:
        x, given, inputs = case(cell, layout, dtype)
        true = results(cell, x, given, layout, inputs, "plain")
        found = results(cell, x, given, layout, inputs, backend)
        assert max(map(error, found, true)) < tolerance, layout


@pytest.mark.parametrize("name", ["lstm", "reset before", "layer-norm-lstm"])
def test_without_biases(name):
    definition, settings = VARIANTS[name]
    cell = trace(definition, **settings)
    x, given, inputs = case(cell, LAYOUTS[1], bias=False)
    true, found = (results(cell, x, given, LAYOUTS[1], inputs, b) for b in ("plain", "c"))
    assert max(map(error, found, true)) < 1e-13


@pytest.mark.parametrize("name", ["lstm", "gru", "projection"])
def test_the_plain_loop_is_differentiated_rightly(name):
    definition, settings = VARIANTS[name]
    cell, layout = trace(definition, **settings), Layout((2, 1), 2)
    _, given, inputs = case(cell, layout)
    names = (tuple(given.states), tuple(given.weights), ())

    def run(*tensors):
        again = _recurrence._given(names, tensors[1:])
        output, last = recur(cell, tensors[0], again, layout)
        return output, *last.values()

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_gradients_of_a_part_of_the_outputs_and_of_a_part_of_the_inputs():
    cell, layout = trace(LSTM), LAYOUTS[1]
    x, given, _ = case(cell, layout)
    x = x.detach()
    weight = given.weights["weight_hh"]
    for end in (lambda o, s: s["c"].sum(), lambda o, s: o[::2].expand(3, -1, -1).sum(), lambda o, s: o.t().sin().sum()):
        grads = [torch.autograd.grad(end(*recur(cell, x, given, layout, backend=b)), weight)[0] for b in ("plain", "c")]
        assert error(grads[1], grads[0]) < 1e-13


def test_a_graph_is_gone_through_twice():
    cell, layout = trace(GRU), LAYOUTS[0]
    x, given, inputs = case(cell, layout)
    loss = recur(cell, x, given, layout, backend="c")[0].sin().sum()
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    second = torch.autograd.grad(loss, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_weight_changed_before_the_backward_pass_is_noticed():
    cell, layout = trace(GRU), LAYOUTS[0]
    x, given, _ = case(cell, layout)
    loss = recur(cell, x, given, layout, backend="c")[0].sum()
    with torch.no_grad():
        given.weights["weight_hh"].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_functions_are_exact_over_all_of_their_range(dtype):
    def functions(step):
        return {"h": sigmoid(step.input("s")), "t": tanh(step.input("t"))}

    cell = trace(functions)
    x = torch.cat([torch.linspace(-120, 120, 4001), torch.logspace(-7, 2, 500), -torch.logspace(-7, 2, 500)]).to(dtype)
    weights = {"weight_ih": torch.ones(2, 1, dtype=dtype)}
    layout = Layout((len(x),), len(x))
    zeros = torch.zeros(len(x), 1, dtype=dtype)
    output, last = recur(cell, x[:, None], Given({"h": zeros, "t": zeros}, weights, {}), layout, backend="c")
    eps = torch.finfo(dtype).eps
    for found, true in ((output, x.double().sigmoid()), (last["t"], x.double().tanh())):
        # A few roundings; sigmoids end near the smallest normal number of float.
        assert ((found[:, 0].double() - true).abs() <= 4 * eps * true.abs() + 2e-38).all()


def test_infinite_inputs_saturate_and_what_is_not_a_number_stays_and_spreads_to_its_own_sequence_only():
    cell, layout = trace(LSTM), Layout((3,) * 4, 3)
    x, given, _ = case(cell, layout, torch.float32)
    x = x.detach().clone()
    x[3 + 1, 0] = float("nan")  # step 1, sequence 1
    x[2, 0] = float("inf")
    output, last = recur(cell, x, given, layout, backend="c")
    plain, _ = recur(cell, x, given, layout, backend="plain")
    bad = output.isnan().all(-1).view(4, 3)
    assert bad[:, 1].tolist() == [False, True, True, True] and not bad[:, 0].any()
    assert torch.equal(output.isnan(), plain.isnan())
    assert last["c"][1].isnan().all()


def test_without_a_compiler_tensor_operations_do_the_same(monkeypatch):
    cell, layout = trace(swapped), LAYOUTS[1]
    x, given, inputs = case(cell, layout)
    true = results(cell, x, given, layout, inputs, "plain")
    monkeypatch.setenv("CC", "/no/compiler")
    monkeypatch.setattr(_backends, "_MADE", {})
    with pytest.raises(MisuseError, match="compiled kernels can't be had"):
        recur(cell, x, given, layout, backend="c")
    found = results(cell, x, given, layout, inputs, "auto")
    assert max(map(error, found, true)) < 1e-13


def test_a_compiler_that_fails_says_so(monkeypatch, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(OSError, match="could not compile the cell: broken"):
        _c._built("int x;")


def test_a_compiled_cell_is_kept_for_the_next_process(monkeypatch, tmp_path):
    monkeypatch.setattr(_c, "_folder", lambda: tmp_path)
    source = _c.source_of(_recurrence.programs_of(trace(GRU)), torch.float32)
    first = _c._built(source)
    made = first.stat().st_mtime_ns
    assert _c._built(source) == first and first.stat().st_mtime_ns == made
    assert [p.name for p in tmp_path.iterdir()] == [first.name]


def test_what_is_found_without_gradients_is_the_same_and_may_be_changed():
    cell, layout = trace(LSTM), LAYOUTS[1]
    x, given, _ = case(cell, layout)
    with torch.no_grad():
        output, last = recur(cell, x, given, layout, backend="c")
    true, ends = recur(cell, x, given, layout, backend="c")
    assert torch.equal(output, true) and all(torch.equal(last[n], ends[n]) for n in last)
    output.zero_()
    assert all(torch.equal(last[n], ends[n]) for n in last)


def test_a_backward_pass_under_autocast_is_as_exact_as_one_outside():
    cell, layout = trace(LSTM), LAYOUTS[0]
    x, given, inputs = case(cell, layout, torch.float32)
    loss = recur(cell, x, given, layout)[0].square().sum()
    true = torch.autograd.grad(loss, inputs, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(loss, inputs)
    assert all(torch.equal(a, b) for a, b in zip(found, true, strict=True))


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, on the way to forward mode
@pytest.mark.parametrize("transform", [torch.func.grad, lambda f: lambda x: torch.func.jvp(f, (x,), (x,))[1]])
def test_functions_of_a_layer_can_be_transformed(transform):
    cell, layout = trace(LSTM), Layout((2,) * 3, 2)
    x, given, _ = case(cell, layout)
    given = Given(
        {n: s.detach() for n, s in given.states.items()}, {n: w.detach() for n, w in given.weights.items()}, {}
    )
    found = transform(lambda x: recur(cell, x, given, layout)[0].sum())(x.detach())
    output = recur(cell, x, given, layout)[0].sum()
    (true,) = torch.autograd.grad(output, x)
    expected = true if found.shape == x.shape else (true * x).sum()
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)
