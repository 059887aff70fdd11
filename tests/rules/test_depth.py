from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Layer, Parameter, Record
from unstuck.rules._depth import lags, main_group, sources, steepest, weighted


def test_depth_counts_layers_with_weights(runs):
    found = weighted(runs.stuck(**runs.chain("linear", "relu", "linear", "dropout", "linear")))
    assert [(w.name, w.depth) for w in found] == [("linear0", 0), ("linear2", 1), ("linear4", 2)]


def test_branches_lie_side_by_side():
    layers = [
        Layer("left", "linear", parameters=("left.w",)), Layer("right", "linear", parameters=("right.w",)),
        Layer("sum", "add", inputs=("left", "right")), Layer("top", "linear", inputs=("sum",), parameters=("top.w",)),
    ]  # fmt: skip
    record = Record.of(layers=layers, parameters=[Parameter(f"{n}.w", (4, 4)) for n in ("left", "right", "top")])
    assert [w.depth for w in weighted(record)] == [0, 0, 1]


def test_recurrent_circles_end():
    layers = [Layer("a", "linear", inputs=("b",), parameters=("a.w",)), Layer("b", "tanh", inputs=("a",))]
    assert [w.depth for w in weighted(Record.of(layers=layers, parameters=[Parameter("a.w", (4, 4))]))] == [0]


def test_embeddings_norms_frozen_weights_and_biases_are_left_out():
    layers = [Layer(op, op, parameters=(f"{op}.w",)) for op in ("embedding", "layer_norm", "linear", "conv")]
    parameters = [
        Parameter("embedding.w", (9, 4)),
        Parameter("layer_norm.w", (4, 4)),
        Parameter("linear.w", (4,)),
        Parameter("conv.w", (4, 4), trainable=False),
    ]
    assert weighted(Record.of(layers=layers, parameters=parameters)) == []


def test_the_larger_model_is_the_main_one():
    layers = [Layer(n, "linear", parameters=(f"{n}.w",), model=m) for n, m in (("g", "G"), ("d1", "D"), ("d2", "D"))]
    record = Record.of(layers=layers, parameters=[Parameter(f"{n}.w", (4, 4)) for n in ("g", "d1", "d2")])
    assert [w.name for w in main_group(record, weighted(record))] == ["d1", "d2"]
    assert main_group(record, []) == []


def test_sources_are_found_behind_reshaping(runs):
    record = runs.stuck(**runs.chain("linear", "flatten", "dropout", "linear"))
    assert [layer.name for layer in sources(record, record.layers["linear3"])] == ["linear0"]


@pytest.mark.parametrize(
    ("sizes", "part"),
    [([1, 10, 100], 0.5), ([1, 1, 1, 1e3], 1.0), ([5, 5], 1.0), ([0, 1, 1e4], 1.0), ([], 1.0), ([1e3, 10, 1], 2 / 3)],
)
def test_how_much_of_a_change_lies_at_one_place(sizes, part):
    assert steepest(sizes) == pytest.approx(part)


def test_lags_are_medians_over_steps_with_gaps_filled():
    curves = [[1, np.nan, 0.01], [1, np.nan, 0.03], [1, np.nan, 0.02], [np.nan] * 3]
    [curve] = lags(Record.of(vectors={("lag_grad", "rnn"): curves})).values()
    assert curve.tolist() == pytest.approx([1, 0.51, 0.02])
