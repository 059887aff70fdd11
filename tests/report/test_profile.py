"""The picture behind a finding: the right signal, layers in forward order, the step it was found at."""

from __future__ import annotations

import numpy as np

from unstuck.evidence import Layer, Parameter, Record, Series
from unstuck.report._profile import profile
from unstuck.verdict import Evidence, Finding

LAYERS = [Layer("c", role="hidden"), Layer("a"), Layer("b"), Layer("loss", role="loss")]


def _finding(cause: str = "vanishing-gradient", *evidence: Evidence, layers: tuple[str, ...] = ("c",)) -> Finding:
    return Finding(cause, "rule", "error", 0.9, "says", layers, evidence)


def test_layers_come_in_forward_order_at_the_evidence_step_without_those_of_the_loss() -> None:
    record = Record.of(
        {("back_rms", name): Series.of([i, i + 10], [0, 50]) for i, name in enumerate(("loss", "a", "b", "c"))},
        layers=LAYERS,
    )
    made = profile(_finding("vanishing-gradient", Evidence("back_rms", "c", 48, 1.0)), record)
    assert made is not None
    assert made.names == ("c", "a", "b")
    assert made.values.tolist() == [13, 11, 12]
    assert made.step == 50
    assert made.marked == {"c"}
    assert made.caption == "gradient 11 … 13, log scale, step 50"


def test_without_evidence_the_cause_says_what_to_show() -> None:
    record = Record.of({("dead_share", name): [0.5] for name in "abc"}, layers=LAYERS)
    made = profile(_finding("dead-units"), record)
    assert made is not None
    assert made.caption == "share of dead units 50% … 50%, step 0"
    assert profile(_finding("undertrained"), record) is None


def test_too_few_places_make_no_picture() -> None:
    record = Record.of({("back_rms", name): [0.5] for name in "ab"}, layers=LAYERS)
    assert profile(_finding(), record) is None
    assert profile(_finding(), Record()) is None


def test_time_lags() -> None:
    record = Record.of(vectors={("lag_grad", "rnn"): [[1, 0.1, 0.01], [1, 0.5, 0.25]]})
    made = profile(_finding("vanishing-gradient", Evidence("lag_grad", "rnn", 1, 0.25)), record)
    assert made is not None
    assert (made.axis, made.names, made.values.tolist()) == ("lag", ("0", "1", "2"), [1, 0.5, 0.25])


def test_only_the_model_the_finding_sits_in() -> None:
    layers = [Layer(f"{m}.{i}", model=m) for m in ("gen", "disc") for i in range(4)]
    record = Record.of({("back_rms", layer.name): [1.0] for layer in layers}, layers=layers)
    made = profile(_finding(layers=("disc.1",)), record)
    assert made is not None
    assert made.names == ("disc.0", "disc.1", "disc.2", "disc.3")


def test_of_parameters_the_matrices() -> None:
    parameters = [
        Parameter(f"{i}.{kind}", (4, 4) if kind == "weight" else (4,)) for i in range(3) for kind in ("weight", "bias")
    ]
    record = Record.of({("update_ratio", p.name): [1e-3] for p in reversed(parameters)}, parameters=parameters)
    made = profile(_finding("learning-rate-too-low", Evidence("update_ratio", "0.weight", 0, 1e-3)), record)
    assert made is not None
    assert made.axis == "parameter"
    assert made.names == ("0.weight", "1.weight", "2.weight")


def test_many_layers_are_squeezed_by_medians() -> None:
    layers = [Layer(str(i)) for i in range(100)]
    record = Record.of({("back_rms", str(i)): [float(i)] for i in range(100)}, layers=layers)
    made = profile(_finding(layers=()), record)
    assert made is not None
    squeezed = made.squeezed(10)
    assert squeezed.tolist() == [np.median(range(i, i + 10)) for i in range(0, 100, 10)]


def test_parameters_of_the_layers_a_finding_names_are_marked() -> None:
    parameters = [Parameter(f"{i}.weight", (4, 4)) for i in range(3)]
    layers = [Layer(str(i), parameters=(f"{i}.weight",)) for i in range(3)]
    record = Record.of({("grad_rms", p.name): [1e-3] for p in parameters}, parameters=parameters, layers=layers)
    made = profile(_finding("vanishing-gradient", Evidence("grad_rms", "0.weight", 0, 1e-3), layers=("0", "1")), record)
    assert made is not None
    assert made.marked & set(made.names) == {"0.weight", "1.weight"}
