"""Recurrent cells as trees: what they compute, against a slow evaluation and the paper; which ones are the same; their source."""

import ast
import itertools
import math
import pickle
import random
import subprocess
import sys

import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.recurrent.layers import LSTM, Recurrent
from unstuck.search.recurrent_cell import CellTree, Memory, Node, gru_tree, lstm_tree, recurrent_cell
from unstuck.search.space import Draw, Space

NUMBERS = {
    "identity": lambda v: v,
    "tanh": math.tanh,
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "relu": lambda v: max(v, 0.0),
}


def some(count, seed=0, **options):
    rng, known = random.Random(seed), Space(lambda draw: recurrent_cell(draw, **options))
    return [known.random(rng).chosen for _ in range(count)]


def walked(tree, xs, hs, c):
    """One unit's step, number by number, node by node from the root: the new output and the new cell state."""
    kept = []

    def node(n):
        leaf = n < tree.base
        left, right = (xs[n], hs[n]) if leaf else (node(2 * (n - tree.base)), node(2 * (n - tree.base) + 1))
        both = left + right if tree.nodes[n].combination == "add" else left * right
        if tree.memory and tree.memory.written_by == n:
            kept.append(both)
        value = NUMBERS[tree.nodes[n].activation](both)
        if tree.memory and tree.memory.read_by == n:
            entered = value + c if tree.memory.node.combination == "add" else value * c
            value = NUMBERS[tree.memory.node.activation](entered)
        return value

    return node(len(tree.nodes) - 1), kept[0] if kept else None


def slow(tree, layer, x, h, c):
    """A layer on one sequence, unit by unit; x is `(time, input)`."""
    weights = {name: p.tolist() for name, p in layer.named_parameters()}
    units, outputs = layer.hidden_size, []

    def mapped(name, row, values):
        weight, bias = weights[f"weight_{name}_l0"][row], weights[f"bias_{name}_l0"][row]
        return sum(w * v for w, v in zip(weight, values, strict=True)) + bias

    for step in x.tolist():
        found = []
        for unit in range(units):
            rows = [n * units + unit for n in range(tree.base)]
            xs, hs = [mapped("ih", r, step) for r in rows], [mapped("hh", r, h) for r in rows]
            found.append(walked(tree, xs, hs, c[unit]))
        h, c = [v for v, _ in found], [v for _, v in found]
        outputs.append(h)
    return outputs, c


def with_biases(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("bias"):
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.5)
    return layer


def close(a, b):
    # Sums of a few numbers in another order, over five steps of trees that may multiply them.
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def made(source, name):
    scope = {}
    exec(source, scope)
    return scope[name]


@pytest.mark.slow
@pytest.mark.parametrize("inject", [True, False])
@pytest.mark.parametrize("base", [1, 2, 3, 5, 8])
def test_a_layer_computes_what_the_tree_says(base, inject):
    for tree in some(8, seed=base, base=base, inject=inject):
        layer = with_biases(tree.module(3, 4, dtype=torch.float64, backend="plain"))
        x, h, c = torch.randn(5, 3).double(), torch.randn(4).double(), torch.randn(4).double()
        expected, content = slow(tree, layer, x, h.tolist(), c.tolist())
        outputs, last = layer(x, (h[None], c[None]) if inject else h[None])
        close(outputs, torch.tensor(expected, dtype=torch.float64))
        if inject:
            close(last[1][0], torch.tensor(content, dtype=torch.float64))


@pytest.mark.slow
def test_kernels_compute_the_same_with_the_same_gradients():
    for tree in some(4, seed=9):
        plain = with_biases(tree.module(3, 4, dtype=torch.float64, num_layers=2, backend="plain"))
        fast = tree.module(3, 4, dtype=torch.float64, num_layers=2)
        fast.load_state_dict(plain.state_dict())
        x = torch.randn(6, 2, 3, dtype=torch.float64)
        outputs = [layer(x)[0] for layer in (plain, fast)]
        close(*outputs)
        gradients = [
            torch.autograd.grad(o.square().sum(), tuple(m.parameters()))
            for o, m in zip(outputs, (plain, fast), strict=True)
        ]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("inject", [True, False])
def test_its_source_is_a_file_of_its_own_that_computes_the_same(inject):
    for tree in some(3, seed=3, inject=inject) + some(1, seed=4, base=1, inject=inject):
        source = tree.source("Found")
        imports = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)]
        assert {getattr(n, "module", None) or n.names[0].name for n in imports} <= {"torch", "torch.nn.functional"}
        assert max(map(len, source.splitlines())) <= 88
        layer = with_biases(tree.module(3, 4, num_layers=2, batch_first=True, dtype=torch.float64, backend="plain"))
        other = made(source, "Found")(3, 4, num_layers=2, batch_first=True).double()
        other.load_state_dict(layer.state_dict())
        x, first = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 2, 4, dtype=torch.float64)
        for states in (None, (first, first * 2) if inject else first):
            (mine, ends), (theirs, others) = layer(x, states), other(x, states)
            close(mine, theirs)
            close(ends, others)


@pytest.mark.slow
def test_its_cell_is_written_as_a_function_for_recurrent_layers():
    for tree in some(6, seed=5):
        layer = with_biases(tree.module(3, 4, dtype=torch.float64, backend="plain"))
        other = Recurrent(made(tree.cell_source("mine"), "mine"), 3, 4, dtype=torch.float64, backend="plain")
        assert other.cell.name == "mine" and other.cell.key == layer.cell.key
        other.load_state_dict(layer.state_dict())
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        assert torch.equal(layer(x)[0], other(x)[0])


def test_source_and_layer_begin_alike():
    for tree in (lstm_tree(), *some(3, seed=6)):
        layer, other = tree.module(3, 4, num_layers=2), made(tree.source(), "SearchedCell")(3, 4, num_layers=2)
        for (name, mine), theirs in zip(layer.named_parameters(), other.parameters(), strict=True):
            if name.startswith("bias"):
                assert torch.equal(mine, theirs)
            for part in theirs.split(4) if name.startswith("weight_hh") else ():
                torch.testing.assert_close(part @ part.T, torch.eye(4))
            if name.startswith("weight_ih"):  # Glorot and Bengio 2010: uniform up to sqrt(6 / (inputs + outputs))
                bound = math.sqrt(6 / (mine.shape[1] + 4))
                assert 0.8 * bound < theirs.abs().max() <= bound


def test_the_example_of_the_paper():
    # Zoph and Le 2017, figure 5.
    tree = CellTree(
        (Node("add", "tanh"), Node("mul", "relu"), Node("mul", "sigmoid")),
        Memory(Node("add", "relu"), read_by=0, written_by=1),
    )
    layer = tree.module(2, 3, bias=False, dtype=torch.float64, backend="plain")
    w1, w3 = layer.get_parameter("weight_ih_l0").split(3)
    w2, w4 = layer.get_parameter("weight_hh_l0").split(3)
    x, h, c = (torch.randn(n, dtype=torch.float64) for n in (2, 3, 3))
    a0 = torch.tanh(w1 @ x + w2 @ h)
    a1 = torch.relu((w3 @ x) * (w4 @ h))
    a2 = torch.sigmoid(torch.relu(a0 + c) * a1)
    output, (_, content) = layer(x[None], (h[None], c[None]))
    close(output[0], a2)
    close(content[0], (w3 @ x) * (w4 @ h))


def test_the_lstm_is_among_the_cells_of_base_8():
    theirs = nn.LSTM(3, 4).double()
    tree = lstm_tree()
    layer = tree.module(3, 4, dtype=torch.float64, backend="plain")
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            i, f, g, o = theirs.get_parameter(name).split(4)
            zeros = torch.zeros_like(i)
            parameter.copy_(torch.cat([o, zeros, zeros, zeros, f, zeros, i, g]))
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    mine, (h, c) = layer(x)
    expected, (their_h, their_c) = theirs(x)
    close(mine, expected)
    close((h, c), (their_h, their_c))
    values = Space(recurrent_cell).random(random.Random(0)).values
    for n, node in enumerate(tree.nodes):
        values |= {f"combination[{n}]": node.combination, f"activation[{n}]": node.activation}
    entering = {"combination[cell]": "mul", "activation[cell]": "identity", "read_by": 10, "written_by": 13}
    assert Space(recurrent_cell).at(values | entering).chosen == tree


def test_the_gru_is_among_the_cells_of_base_16():
    theirs = nn.GRU(3, 4).double()
    layer = gru_tree().module(3, 4, dtype=torch.float64, backend="plain")
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            r, z, n = theirs.get_parameter(name).split(4)
            parts = [torch.zeros_like(r) for _ in range(16)]
            parts[0], parts[8], parts[14] = z, -z, r
            parts[12 if "ih" in name else 15] = n
            parameter.copy_(torch.cat(parts))
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    close(layer(x)[0], theirs(x)[0])


def test_what_keeps_the_cell_state_starts_by_keeping():
    tree = lstm_tree()
    assert tree.keepers == (4,) and gru_tree().keepers == (0,)
    bias = tree.module(3, 4).get_parameter("bias_ih_l0").view(8, 4)
    assert bias[4].eq(1).all() and bias.sum() == 4
    # With a horizon of t steps, biases are log u, u from 1 to t - 1 (Tallec and Ollivier 2018).
    spread = tree.module(3, 4, horizon=100).get_parameter("bias_ih_l0").view(8, 4)[4]
    assert spread.min() >= 0 and 1 < spread.max() <= math.log(99)
    assert LSTM(3, 4).cell.inputs[1].bias == tree.module(3, 4).cell.inputs[4].bias


GATE, SUM, PRODUCT, RELU = Node("add", "sigmoid"), Node("add", "identity"), Node("mul", "identity"), Node("mul", "relu")


@pytest.mark.parametrize(
    ("nodes", "memory", "keepers"),
    [
        ((SUM, SUM, GATE, SUM, SUM), Memory(PRODUCT, read_by=3, written_by=4), ()),  # by a sum
        ((SUM, GATE, SUM, SUM, SUM), Memory(PRODUCT, read_by=1, written_by=3), (1,)),
        ((SUM, GATE, SUM, SUM, SUM), Memory(SUM, read_by=1, written_by=3), ()),  # the gate is added
        (
            (SUM, GATE, SUM, SUM, SUM),
            Memory(PRODUCT, read_by=1, written_by=1),
            (),
        ),  # the new state doesn't see the old one
        ((SUM, GATE, SUM, SUM, SUM), Memory(PRODUCT, read_by=1, written_by=2), ()),
        (
            (SUM, GATE, SUM, PRODUCT, SUM),
            Memory(PRODUCT, read_by=0, written_by=3),
            (1,),
        ),  # by the gate, a product higher
        ((SUM, GATE, SUM, PRODUCT, SUM), Memory(Node("mul", "tanh"), read_by=0, written_by=3), ()),
        ((SUM, GATE, SUM, SUM, SUM), Memory(PRODUCT, read_by=0, written_by=3), ()),  # the gate isn't a factor
        ((GATE, GATE, GATE, RELU, PRODUCT), Memory(PRODUCT, read_by=1, written_by=4), (1, 0, 2)),
        ((GATE, GATE, GATE, RELU, PRODUCT), Memory(PRODUCT, read_by=3, written_by=4), (0, 1, 2)),
        (
            (GATE, GATE, GATE, RELU, PRODUCT),
            Memory(PRODUCT, read_by=1, written_by=3),
            (1, 0),
        ),  # written before the last
        ((SUM, PRODUCT, SUM, GATE, SUM), Memory(PRODUCT, read_by=3, written_by=4), (0,)),
        (
            (PRODUCT, PRODUCT, SUM, GATE, SUM),
            Memory(PRODUCT, read_by=3, written_by=4),
            (),
        ),  # no linear map to be shifted
    ],
)
def test_biases_start_at_one_where_they_keep_the_cell_state(nodes, memory, keepers):
    # Leaves 0, 1 and 2; node 3 is over 0 and 1, node 4 over 2 and 3.
    tree = CellTree(nodes, memory)
    assert tree.keepers == keepers
    bias = tree.module(3, 4).get_parameter("bias_ih_l0").view(3, 4)
    assert [n for n in range(3) if bias[n].eq(1).all()] == sorted(keepers)
    assert bias.sum() == 4 * len(keepers)


@pytest.mark.slow
def test_cells_that_are_the_same_start_the_same():
    found, places = {}, range(5)
    for nodes in itertools.product((GATE, SUM, PRODUCT, RELU), repeat=5):
        for entering, read, written in itertools.product((PRODUCT, RELU), places, places):
            tree = CellTree(nodes, Memory(entering, read, written))
            found.setdefault(tree.canonical(), []).append(len(tree.keepers))
    assert all(len(set(counts)) == 1 for counts in found.values())
    assert sum(len(counts) > 1 and counts[0] > 0 for counts in found.values()) > 1000


def signature(tree, points):
    """Equal for trees that compute the same, whichever leaf has which of the maps: tried one after the other."""
    orders = list(itertools.permutations(range(tree.base)))
    found = set()
    for left, right in itertools.product(orders, orders):
        values = [walked(tree, [xs[i] for i in left], [hs[i] for i in right], c) for xs, hs, c in points]
        found.add(tuple(f"{v + 0.0:.9g}" for pair in values for v in pair if v is not None))
    return frozenset(found)


def all_of_base_2():
    labels = [Node(combination, activation) for combination in ("add", "mul") for activation in NUMBERS]
    return [CellTree(nodes) for nodes in itertools.product(labels, repeat=3)]


def points(base, count=48, seed=0):
    rng = random.Random(seed)
    drawn = [[rng.uniform(-2, 2) for _ in range(2 * base + 1)] for _ in range(count)]
    return [(values[:base], values[base:-1], values[-1]) for values in drawn]


@pytest.mark.parametrize(
    "trees",
    [
        lambda: some(200, base=2),
        pytest.param(lambda: some(1000, seed=1, base=2), marks=pytest.mark.slow),
        pytest.param(lambda: some(1000, base=2, activations=("identity", "relu")), marks=pytest.mark.slow),
        pytest.param(
            lambda: some(150, base=3, activations=("identity", "sigmoid", "relu"), inject=False), marks=pytest.mark.slow
        ),
        pytest.param(lambda: all_of_base_2(), marks=pytest.mark.slow),
    ],
    ids=["some of base 2", "many of base 2", "piecewise linear", "base 3", "all of base 2 without cell state"],
)
def test_cells_count_once_if_and_only_if_they_compute_the_same(trees):
    trees = trees()
    where = points(trees[0].base)
    by_form, by_value = {}, {}
    for tree in trees:
        form, value = tree.canonical(), signature(tree, where)
        assert by_form.setdefault(form, value) == value, "one form, two functions"
        assert by_value.setdefault(value, form) == form, "one function, two forms"
    assert len(by_form) < len(trees)


def test_children_may_be_swapped_below_any_node():
    def mirrored(tree):
        """Both children of every node the other way round."""
        order = {len(tree.nodes) - 1: len(tree.nodes) - 1}
        for n in reversed(range(tree.base, len(tree.nodes))):
            for m, at in zip(tree.children(n), reversed(tree.children(order[n])), strict=True):
                order[m] = at
        nodes, memory = [tree.nodes[0]] * len(tree.nodes), tree.memory
        for n, at in order.items():
            nodes[at] = tree.nodes[n]
        return CellTree(tuple(nodes), Memory(memory.node, order[memory.read_by], order[memory.written_by]))

    for tree in some(40, seed=8):
        assert mirrored(tree) != tree == mirrored(mirrored(tree))
        assert mirrored(tree).canonical() == tree.canonical()


def test_points_that_mean_the_same_have_one_key():
    options = {"base": 2, "activations": ("tanh", "relu"), "combinations": ("add",), "inject": False}
    known, keys = Space(lambda draw: recurrent_cell(draw, **options)), {}
    for left, right in itertools.product(("tanh", "relu"), repeat=2):
        values = {"activation[0]": left, "activation[1]": right, "activation[2]": "tanh"}
        keys[left, right] = known.at(values).key
    assert keys["tanh", "relu"] == keys["relu", "tanh"]
    assert len(set(keys.values())) == 3


def test_there_are_as_many_as_the_paper_says():
    draw = Draw(lambda decision: decision.sample(random.Random(0)))
    recurrent_cell(draw)
    # 8 labels for each of 15 nodes and for where the cell state enters, and 15 places each where it enters and leaves: "about 6e16".
    assert math.prod(len(d.levels()) for d in draw.decisions) == 8**16 * 15**2 == pytest.approx(6e16, rel=0.06)


def test_what_has_one_option_is_not_decided():
    draw = Draw(lambda decision: decision.sample(random.Random(0)))
    tree = recurrent_cell(draw, base=1, combinations=("add",), activations=("tanh",))
    assert draw.decisions == []
    assert tree == CellTree((Node("add", "tanh"),), Memory(Node("add", "tanh"), 0, 0))


def test_parameters_are_counted_without_making_the_layer():
    for tree in some(3, base=5):
        assert tree.num_parameters(6, 7) == sum(p.numel() for p in tree.module(6, 7).parameters())


def test_layers_can_be_pickled():
    layer = some(1)[0].module(3, 4, backend="plain")
    x = torch.randn(5, 2, 3)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x)[0], layer(x)[0])


def test_proposals_take_no_torch():
    code = (
        "import random, sys\n"
        "from unstuck.search.recurrent_cell import recurrent_cell\n"
        "from unstuck.search.space import Space\n"
        "Space(recurrent_cell).random(random.Random(0)).chosen.source()\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base": 0}, "a tree of 0 leaves"),
        ({"combinations": ("add", "max")}, "some of add, mul are expected"),
        ({"activations": ()}, "some of identity, tanh"),
        ({"activations": "tanh"}, "in a tuple"),
    ],
)
def test_options_that_can_not_be_are_refused(options, says):
    with pytest.raises(MisuseError, match=says):
        some(1, **options)
