from __future__ import annotations

import math

import numpy as np
import pytest

from unstuck.rules.output_loss_mismatch import output_loss_mismatch

PROBABLE = {"min": 0.0, "max": 1.0, "sums_to_one": 1.0, "log_sums_to_one": 0.0}
LOGS = {"min": -9.0, "max": -0.1, "sums_to_one": 0.0, "log_sums_to_one": 1.0}
LOGITS = {"min": -9.0, "max": 9.0, "sums_to_one": 0.0, "log_sums_to_one": 0.0}


def found(run, runs, name, *chain, **call):
    return output_loss_mismatch(run(losses=[runs.loss_call(name, chain=chain, **call)]))


FITTING = [
    ("cross_entropy", ("linear",), "class index", LOGITS),
    ("cross_entropy", ("linear", "log_softmax"), "class index", LOGS),  # applied twice it stays what it is
    ("nll_loss", ("linear", "log_softmax"), "class index", LOGS),
    ("nll_loss", ("linear", "sub"), "class index", LOGS),  # log-softmax by hand
    ("binary_cross_entropy", ("linear", "sigmoid"), "binary", PROBABLE),
    ("binary_cross_entropy", ("linear", "sigmoid", "clamp"), "binary", PROBABLE),  # for safety's sake
    ("binary_cross_entropy", ("linear", "softmax"), "one-hot", PROBABLE),
    ("binary_cross_entropy", ("linear", "mul", "add"), "binary", PROBABLE),  # a mixture of probabilities
    ("binary_cross_entropy_with_logits", ("linear",), "binary", LOGITS),
    ("kl_div", ("linear", "log_softmax"), "probability", LOGS),
    ("mse_loss", ("linear",), "real", LOGITS),
    ("mse_loss", ("linear", "sigmoid"), "real", PROBABLE),
    ("multi_margin_loss", ("linear",), "class index", LOGITS),
    ("hand-written", ("linear", "softmax"), "one-hot", PROBABLE),
]


@pytest.mark.parametrize(("name", "chain", "kind", "output"), FITTING)
@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_what_fits_is_silent(runs, name, chain, kind, output, state):
    call = {"target": {"min": -1.5, "max": 2.5}, "output_shape": (32, 1)} if kind == "real" else {}
    assert found(getattr(runs, state), runs, name, *chain, target_kind=kind, output=output, **call) == []


MISFITS = [
    ("cross_entropy", ("linear", "softmax"), "class index", PROBABLE, "twice"),
    ("cross_entropy", ("linear", "div"), "class index", PROBABLE, "twice"),  # softmax by hand
    ("cross_entropy", ("linear", "relu"), "class index", LOGITS, "relu"),
    ("cross_entropy", ("linear", "sigmoid", "dropout"), "class index", LOGITS, "sigmoid"),
    ("nll_loss", ("linear",), "class index", LOGITS, "log-probabilities"),
    ("nll_loss", ("linear", "softmax"), "class index", PROBABLE, "given probabilities"),
    ("nll_loss", ("linear", "clamp", "log"), "class index", LOGITS, "log-probabilities"),
    ("binary_cross_entropy", ("linear", "softmax"), "multi-label", PROBABLE, "sum to one"),
    ("binary_cross_entropy", ("linear", "clamp"), "binary", PROBABLE, "clamp"),
    ("binary_cross_entropy_with_logits", ("linear", "sigmoid"), "binary", PROBABLE, "twice"),
    ("kl_div", ("linear", "softmax"), "probability", PROBABLE, "KL"),
    ("multi_margin_loss", ("linear", "softmax"), "class index", PROBABLE, "hinge"),
    ("mse_loss", ("linear", "softmax"), "one-hot", PROBABLE, "squared"),
    ("l1_loss", ("linear", "softmax"), "one-hot", PROBABLE, "absolute"),
    ("mse_loss", ("linear", "softmax"), "real", PROBABLE, "softmax"),
    ("mse_loss", ("linear", "softmax"), "multi-label", PROBABLE, "several labels"),
]


@pytest.mark.parametrize(("name", "chain", "kind", "output", "word"), MISFITS)
def test_what_does_not_fit_is_named(runs, name, chain, kind, output, word):
    [finding] = found(runs.stuck, runs, name, *chain, target_kind=kind, output=output)
    assert (finding.severity, finding.layers) == ("error", ("out",))
    assert word in finding.says


def test_a_hinge_by_hand_on_probabilities_is_named(runs):
    hinge = {"loss_ops": ("mul", "add", "relu", "mean"), "target_kind": "one-hot", "output": PROBABLE}
    assert "hinge" in found(runs.learns, runs, "hand-written", "linear", "softmax", **hinge)[0].says
    assert found(runs.learns, runs, "hand-written", "linear", **hinge) == []


def test_a_logarithm_of_what_may_be_negative_is_named(runs):
    entropy = {"loss_ops": ("log", "mul", "sum", "neg"), "target_kind": "one-hot"}
    assert found(runs.stuck, runs, "hand-written", "linear", output=LOGITS, **entropy)
    assert found(runs.stuck, runs, "hand-written", "linear", "div", output=PROBABLE, **entropy) == []


def test_raw_outputs_clamped_into_the_range_of_a_logarithm_are_named(runs):
    entropy = {"loss_ops": ("log", "mul", "sum", "neg"), "target_kind": "one-hot"}
    clamped = {"min": 1e-7, "max": 1.0, "sums_to_one": 0.0}
    for chain in (("linear", "div", "clamp"), ("linear", "clamp"), ("matmul", "add", "clamp")):
        [finding] = found(runs.stuck, runs, "hand-written", *chain, output=clamped, **entropy)
        assert (finding.severity, finding.confidence) == ("error", 0.93)
    for chain in (("linear", "sigmoid", "clamp"), ("linear", "softplus", "div"), ("linear", "exp", "div", "clamp")):
        assert found(runs.stuck, runs, "hand-written", *chain, output=clamped, **entropy) == []


def test_outputs_divided_by_their_sum_are_named_by_what_they_end_in(runs):
    entropy = {"loss_ops": ("log", "mul", "sum", "neg"), "target_kind": "one-hot", "output": PROBABLE}
    [finding] = found(runs.stuck, runs, "hand-written", "linear", "relu", "div", "clamp", **entropy)
    assert "relu" in finding.says
    assert found(runs.learns, runs, "hand-written", "linear", "sigmoid", "div", **entropy)[0].severity == "note"
    for op in ("exp", "softplus"):
        assert found(runs.stuck, runs, "hand-written", "linear", op, "div", **entropy) == []


def test_a_softmax_over_one_output_is_named(runs):
    for name in ("binary_cross_entropy", "mse_loss"):
        [finding] = found(runs.stuck, runs, name, "linear", "softmax", output_shape=(6, 1), target_kind="binary")
        assert "always 1" in finding.says
    [finding] = found(runs.stuck, runs, "cross_entropy", "linear", output_shape=(6, 1), num_classes=1)
    assert "single output" in finding.says


@pytest.mark.parametrize("kind", ["one-hot", "binary"])
def test_squared_errors_on_classes_are_no_fault_where_it_learns_well(runs, kind):
    assert {f.severity for f in found(runs.well, runs, "mse_loss", "linear", "sigmoid", target_kind=kind)} <= {"note"}


def test_nothing_is_an_error_where_it_learns_well(runs):
    for name, chain, kind, output, _ in MISFITS:
        findings = found(runs.well, runs, name, *chain, target_kind=kind, output=output)
        assert {f.severity for f in findings} <= {"note", "warning"}


def test_softmax_twice_is_a_warning_however_well_it_learns(runs):
    assert [f.severity for f in found(runs.well, runs, "cross_entropy", "linear", "softmax")] == ["warning"]


def test_the_share_of_rows_is_a_threshold(runs):
    some = {**LOGITS, "sums_to_one": 0.5}
    call = runs.loss_call("cross_entropy", output=some)
    assert output_loss_mismatch(runs.stuck(losses=[call])) == []
    assert output_loss_mismatch(runs.stuck(losses=[call]), rows=0.4)


def test_a_negated_loss_is_named(runs):
    falling = {("loss", ""): -np.geomspace(2.3, 1e5, 100)}
    [finding] = output_loss_mismatch(runs.stuck(falling))
    assert "sign" in finding.says
    assert output_loss_mismatch(runs.stuck({("loss", ""): np.full(100, -0.5)})) == []


def test_classes_learned_as_numbers_are_named_where_it_is_stuck(runs):
    call = {"output_shape": (32, 1), "target_kind": "real"}  # targets 0, 1, ..., 9
    assert [f.severity for f in found(runs.stuck, runs, "mse_loss", "linear", **call)] == ["warning"]
    assert [f.severity for f in found(runs.learns, runs, "mse_loss", "linear", **call)] == ["note"]
    ratings = {"min": 0, "max": 9, "integer": 1, "unique": 4}
    assert found(runs.stuck, runs, "mse_loss", "linear", target=ratings, **call) == []


def test_without_statistics_only_the_chain_speaks(runs):
    unknown = {"sums_to_one": math.nan, "log_sums_to_one": math.nan}
    assert found(runs.stuck, runs, "nll_loss", "linear", output=unknown) == []
    assert found(runs.stuck, runs, "cross_entropy", "linear", "softmax", output={})


def test_the_layer_behind_a_selection_of_rows_is_named(runs):
    call = runs.loss_call("nll_loss", chain=("linear", "softmax", "gather"), layer="gather2", output=PROBABLE)
    [finding] = output_loss_mismatch(runs.stuck(losses=[call], **runs.chain("linear", "softmax", "gather")))
    assert finding.layers == ("softmax1",)
