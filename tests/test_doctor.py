"""The visit: every rule is asked, symptoms come under their cause, and the verdict is formed."""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from unstuck import _discover, doctor
from unstuck.doctor import CONSTRUCTION, EXPLAINS, arrange, ask, diagnose, parse_settings, thresholds
from unstuck.errors import MisuseError, NotFoundError
from unstuck.evidence import Data, Layer, LossCall, Optimizer, Parameter, Record, Task
from unstuck.verdict import CAUSES, Finding, flatten

CLASSES = Task("classification", 10, "accuracy", 2.303, 0.1)


def finding(cause, severity="error", confidence=0.9, **given):
    return Finding(cause, cause, severity, confidence, f"{cause} was seen", **given)


def causes(findings):
    return [f.cause for f in findings]


def run(loss, score, **given):
    return Record.of(
        {("loss", ""): loss, ("score", ""): score, ("grad_norm", ""): np.ones(len(loss))}, task=CLASSES, **given
    )


WELL = run(np.geomspace(2.3, 0.05, 100), np.linspace(0.1, 0.98, 100))
STUCK = run(np.full(100, 2.303), np.full(100, 0.1))


# ---------------------------------------------------------------------- ask


def test_every_rule_is_asked_with_its_settings():
    asked = []

    def first(record, *, limit=1):
        asked.append(("first", limit))
        return []

    def second(record):
        asked.append(("second", None))
        return [finding("undertrained")]

    found, errors = ask(WELL, {"first": first, "second": second}, {"first": {"limit": 3}})
    assert asked == [("first", 3), ("second", None)]
    assert (causes(found), errors) == (["undertrained"], {})


def test_a_rule_that_raises_costs_only_itself():
    def broken(record):
        raise KeyError("no such layer")

    found, errors = ask(WELL, {"broken": broken, "other": lambda record: [finding("dead-units")]}, {})
    assert causes(found) == ["dead-units"]
    assert errors == {"broken": "KeyError: 'no such layer'"}


def test_the_error_of_a_rule_is_noted_in_the_verdict(monkeypatch):
    def broken(record):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(doctor, "find", lambda room: {"broken": broken})
    verdict = diagnose(WELL)
    assert verdict.verdict == "healthy"
    assert verdict.run["rule_errors"] == {"broken": "ZeroDivisionError: by zero"}


def test_no_rule_fails_on_a_plain_run():
    for record in (WELL, STUCK, Record()):
        assert "rule_errors" not in diagnose(record).run


def test_numbers_that_are_not_finite_make_no_noise():
    bad = run(np.full(100, math.nan), np.full(100, math.inf))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert diagnose(bad).verdict in ("sick", "unknown")


# ---------------------------------------------------------------------- arrange


def test_a_symptom_stands_under_its_cause_as_a_note():
    [root] = arrange([finding("dead-units"), finding("learning-rate-too-high", confidence=0.6)])
    assert root.cause == "learning-rate-too-high"
    assert [(f.cause, f.severity) for f in root.explains] == [("dead-units", "note")]


def test_the_cause_is_as_severe_as_the_worst_it_explains():
    [root] = arrange([finding("non-finite"), finding("loss-scale", "warning")])
    assert (root.cause, root.severity) == ("loss-scale", "error")


def test_a_note_explains_nothing():
    assert causes(arrange([finding("dead-units"), finding("learning-rate-too-high", "note")])) == [
        "dead-units",
        "learning-rate-too-high",
    ]


def test_symptoms_of_symptoms_stand_under_the_same_cause():
    found = [
        finding("vanishing-gradient"),
        finding("dead-units"),
        finding("bad-initialization"),
        finding("undertrained", "warning"),
    ]
    [root] = arrange(found)
    assert root.cause == "bad-initialization"
    assert sorted(causes(root.explains)) == ["dead-units", "undertrained", "vanishing-gradient"]


def test_unrelated_findings_stand_side_by_side():
    assert causes(arrange([finding("overfitting", "warning"), finding("missing-nonlinearity", "warning")])) == [
        "missing-nonlinearity",
        "overfitting",
    ]


def test_severity_comes_before_decisiveness():
    assert causes(arrange([finding("loss-broadcast", "note"), finding("overfitting", "warning")]))[0] == "overfitting"


def test_decisiveness_is_weighed_by_confidence():
    one, other = finding("unnormalized-target", confidence=0.9), finding("learning-rate-too-high", confidence=0.6)
    assert causes(arrange([other, one])) == ["unnormalized-target"]
    surer = finding("learning-rate-too-high", confidence=0.95)
    assert causes(arrange([surer, one])) == ["learning-rate-too-high"]


@pytest.mark.parametrize("cause", sorted(CONSTRUCTION))
def test_a_certain_fault_of_construction_explains_all_that_is_none(cause):
    others = [finding(other) for other in sorted(set(CAUSES) - CONSTRUCTION)]
    assert causes(arrange([*others, finding(cause)])) == [cause]


def test_an_uncertain_fault_of_construction_explains_only_slowness():
    unsure = finding("output-loss-mismatch", confidence=0.5)
    assert sorted(causes(arrange([unsure, finding("dead-units"), finding("undertrained")]))) == [
        "dead-units",
        "output-loss-mismatch",
    ]


@pytest.mark.parametrize(("sure", "first"), [(0.65, "learning-rate-too-low"), (0.9, "vanishing-gradient")])
def test_weights_that_stay_as_they_were_drawn_keep_a_gradient_that_vanishes(sure, first):
    slow = finding("learning-rate-too-low", confidence=0.85)
    assert [f.cause for f in arrange([slow, finding("vanishing-gradient", confidence=sure)])] == [first]


def test_circles_of_explanation_end():
    found = [finding(cause) for cause in sorted(CAUSES)]
    arranged = arrange(found)
    assert sorted(causes(flatten(arranged))) == sorted(CAUSES)
    assert all(not f.explains for root in arranged for f in root.explains)


def test_two_findings_of_one_cause_do_not_explain_each_other():
    assert len(arrange([finding("dead-units"), finding("dead-units", confidence=0.5)])) == 2


def test_order_does_not_depend_on_the_order_of_the_rules():
    found = [finding(cause, confidence=0.5 + i / 100) for i, cause in enumerate(sorted(CAUSES))]
    assert causes(arrange(found)) == causes(arrange(found[::-1]))


def test_the_graph_names_causes():
    assert set(EXPLAINS) <= set(CAUSES)
    assert set().union(*EXPLAINS.values()) <= set(CAUSES)
    assert all(cause not in explained for cause, explained in EXPLAINS.items())


# ---------------------------------------------------------------------- judge


def test_a_run_without_findings_is_healthy():
    verdict = diagnose(WELL)
    assert (verdict.verdict, verdict.findings, verdict.why_unknown) == ("healthy", (), None)


def test_a_note_does_not_make_a_run_sick(monkeypatch):
    monkeypatch.setattr(doctor, "find", lambda room: {"rule": lambda record: [finding("dead-units", "note")]})
    verdict = diagnose(WELL)
    assert (verdict.verdict, causes(verdict.findings)) == ("healthy", ["dead-units"])


@pytest.mark.parametrize("severity", ["warning", "error"])
def test_a_warning_does(monkeypatch, severity):
    monkeypatch.setattr(doctor, "find", lambda room: {"rule": lambda record: [finding("dead-units", severity)]})
    assert diagnose(WELL).verdict == "sick"


def test_without_training_the_verdict_is_unknown():
    verdict = diagnose(Record.of(meta={"steps": 0}, not_found=["no training was seen: nothing called backward"]))
    assert (verdict.verdict, verdict.why_unknown) == ("unknown", "no training was seen: nothing called backward")
    assert "no step" in (diagnose(Record()).why_unknown or "")
    killed = diagnose(Record(meta={"status": "killed"}))  # a record that says nothing is no proof that nothing was done
    assert (killed.why_unknown or "").startswith("it was killed before any step was written down")


def test_a_few_steps_are_too_few():
    verdict = diagnose(run([2.3] * 4, [0.1] * 4))
    assert (verdict.verdict, verdict.why_unknown) == ("unknown", "only 4 steps were taken, which is too few to judge")


@pytest.mark.parametrize(("steps", "why"), [(19, "only 19 steps were taken"), (20, "it does not learn")])
def test_what_has_not_learned_in_a_few_steps_had_too_few(steps, why):
    told = diagnose(run([2.3] * steps, [0.1] * steps)).why_unknown
    assert (told or "").startswith(why)


def test_a_few_steps_that_were_enough_are_healthy():
    assert diagnose(run([2.3, 1.0, 0.4, 0.1, 0.05, 0.04], [0.1, 0.5, 0.9, 0.97, 0.98, 0.98])).verdict == "healthy"


def test_a_few_steps_of_many_evaluations_are_said_to_be_such():
    inside = Optimizer("LBFGS", closure=True, backwards_per_step=444.0, steps=1)
    why = diagnose(run([2.3], [0.1], optimizers=[inside])).why_unknown
    assert why is not None
    assert why.startswith("only 1 step was taken, of 444 evaluations of the loss")


def test_a_fault_of_construction_needs_no_steps():
    call = LossCall("cross_entropy", chain=("linear", "softmax"), num_classes=10, target_kind="class index")
    assert diagnose(run([2.3], [0.1], losses=[call])).verdict == "sick"


def test_nothing_measured_is_unknown():
    verdict = diagnose(Record.of(meta={"steps": 50}))
    assert (verdict.verdict, verdict.why_unknown) == ("unknown", "nothing could be measured")


def test_stuck_without_a_reason_is_unknown_and_says_so():
    verdict = diagnose(STUCK)
    assert verdict.verdict == "unknown"
    assert verdict.why_unknown == "it does not learn (accuracy is 0.100, chance 0.100), but no rule knows why"


def test_a_policy_gradient_is_healthy():
    noise = np.random.default_rng(0).normal(0, 0.1, 500)
    assert diagnose(Record.of({("loss", ""): noise, ("grad_norm", ""): np.abs(noise) + 0.1})).verdict == "healthy"


def test_the_facts_of_the_run():
    rising = 0.98 - 0.88 * np.exp(-np.arange(100) / 10)
    record = run(np.geomspace(2.3, 0.05, 100), rising, meta={"seconds": 3.0, "overhead": 0.01, "status": "finished"})
    facts = diagnose(record).run
    assert {k: facts[k] for k in ("steps", "seconds", "overhead", "record", "status", "learning")} == {
        "steps": 100, "seconds": 3.0, "overhead": 0.01, "record": None, "status": "finished", "learning": "learns well",
    }  # fmt: skip
    assert facts["score"]["name"] == "accuracy"
    assert (facts["score"]["first"], facts["score"]["last"]) == pytest.approx((0.1, 0.98), abs=0.01)
    assert facts["chance"] == 0.1


def test_a_long_run_is_judged_at_once():
    """A tenth of a second for 100,000 steps; what looks back from every step would take a minute."""
    random = np.random.default_rng(0)
    steps = 100_000
    loss, norms = np.exp(0.3 * random.standard_normal(steps)), np.exp(2 * random.standard_normal(steps))
    record = Record.of({("loss", ""): loss, ("grad_norm", ""): norms, ("lr", ""): np.full(steps, 0.1)}, task=CLASSES)
    start = time.process_time()
    diagnose(record)
    assert time.process_time() - start < 5


def test_the_path_of_the_record_is_told():
    assert diagnose(Record(path=Path("runs/1/record.sqlite"))).run["record"] == str(Path("runs/1/record.sqlite"))


# ---------------------------------------------------------------------- whole illnesses


def deep_sigmoid():
    layers, parameters, series = [], [], {}
    for i in range(9):
        before = (f"s{i - 1}",) if i else ()
        layers += [
            Layer(f"l{i}", "linear", inputs=before, parameters=(f"l{i}.w",)),
            Layer(f"s{i}", "sigmoid", inputs=(f"l{i}",)),
        ]
        parameters.append(Parameter(f"l{i}.w", (16, 16), (f"l{i}",)))
        series["grad_rms", f"l{i}.w"] = [10.0 ** (i - 8)] * 9
        series["update_ratio", f"l{i}.w"] = [10.0 ** (i - 10)] * 9
    return {**series, ("loss", ""): np.full(100, 2.303), ("score", ""): np.full(100, 0.1)}, {
        "layers": layers,
        "parameters": parameters,
    }


def test_a_deep_sigmoid_network_has_a_vanishing_gradient():
    series, program = deep_sigmoid()
    verdict = diagnose(Record.of(series, task=CLASSES, **program))
    assert causes(verdict.findings) == ["vanishing-gradient"]
    assert verdict.findings[0].layers[:2] == ("l0", "l1")


def test_units_killed_by_the_first_steps_are_laid_to_the_rate():
    loss = np.full(100, 1300.0)
    loss[:6] = [3245, 1e5, 1e9, 1e14, 1e20, 4e34]
    layers = [
        Layer("l1", "linear", parameters=("l1.w",)),
        Layer("relu", "relu", inputs=("l1",)),
        Layer("l2", "linear", inputs=("relu",)),
    ]
    series = {
        ("loss", ""): loss, ("act_zero", "relu"): [0.5, 0.9, 1, 1, 1, 1], ("dead_share", "relu"): [0.3, 0.5, 1, 1, 1, 1],
        ("dead_window", "relu"): [1, 2, 3, 4, 5, 6], ("update_ratio", "l1.w"): [12.0, 3.0, 0, 0, 0, 0],
    }  # fmt: skip
    call = LossCall(
        "mse_loss",
        "a.py:9",
        "l2",
        ("linear",),
        (),
        (32, 1),
        (32, 1),
        "real",
        target={"mean": 40, "std": 36, "min": 0, "max": 120},
    )
    task = Task("regression", 0, "r2", 1310.0, 0.0, 40.0, 36.0)
    record = Record.of(
        series, task=task, losses=[call], layers=layers, parameters=[Parameter("l1.w", (50, 1), ("l1",))], data=Data(batch_size=32),
        optimizers=[Optimizer("SGD", steps=100)],
    )  # fmt: skip
    [root] = diagnose(record).findings
    assert (root.cause, root.severity) == ("learning-rate-too-high", "error")
    assert sorted(causes(root.explains)) == ["dead-units", "unnormalized-target"]


# ---------------------------------------------------------------------- thresholds


def test_settings_reach_their_rule():
    series = {("loss", ""): np.full(100, 2.303), ("score", ""): np.full(100, 0.1), ("act_saturated", "tanh"): [0.4] * 9}
    record = Record.of(series, task=CLASSES, layers=[Layer("tanh", "tanh")])
    assert diagnose(record).verdict == "unknown"
    assert causes(diagnose(record, settings=parse_settings(["saturated-activation.fraction=0.3"])).findings) == [
        "saturated-activation"
    ]


def test_settings_become_values_of_the_right_kind():
    given = ["dead-units.fraction=0.8", "dead-units.samples= 32", " learning-rate-too-high.rise =1e1"]
    assert parse_settings(given) == {
        "dead-units": {"fraction": 0.8, "samples": 32},
        "learning-rate-too-high": {"rise": 10.0},
    }
    assert isinstance(parse_settings(given)["dead-units"]["samples"], int)
    assert parse_settings(["vanishing-gradient.lag-ratio=0.1"]) == {"vanishing-gradient": {"lag_ratio": 0.1}}
    assert parse_settings([]) == {}


@pytest.mark.parametrize(
    "text", ["", "dead-units", "dead-units.fraction", "dead-units=0.8", "=1", ".fraction=1", "dead-units.=1"]
)
def test_what_is_no_setting_says_how_to_write_one(text):
    with pytest.raises(MisuseError, match=r"write RULE\.THRESHOLD=VALUE"):
        parse_settings([text])


@pytest.mark.parametrize("value", ["much", "", "nan", "inf", "1,5"])
def test_a_threshold_is_a_number(value):
    with pytest.raises(MisuseError, match="no number|no threshold"):
        parse_settings([f"dead-units.fraction={value}"])


def test_a_count_is_a_whole_number():
    with pytest.raises(MisuseError, match="whole number"):
        parse_settings(["dead-units.samples=1.5"])


def test_unknown_names_are_told_with_what_is_close():
    with pytest.raises(NotFoundError, match=r"no rule 'ded-units'; did you mean 'dead-units'\?"):
        parse_settings(["ded-units.fraction=1"])
    with pytest.raises(NotFoundError, match=r"no threshold 'fractio' in 'dead-units'; did you mean 'fraction'\?"):
        parse_settings(["dead-units.fractio=1"])
    with pytest.raises(NotFoundError, match="it has fraction, zero, samples, batches"):
        parse_settings(["dead-units.xyzzy=1"])


def test_every_threshold_of_every_rule_can_be_set():
    for name, rule in _discover.find("rules").items():
        given = [f"{name}.{threshold}={default}" for threshold, default in thresholds(rule).items()]
        assert parse_settings(given) == {name: thresholds(rule)}
