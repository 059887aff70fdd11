"""What is true of all rules, those of tomorrow too."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import math
import re

import numpy as np
import pytest

from unstuck import _discover
from unstuck.evidence import Data, Event, Layer, LossCall, Optimizer, Parameter, Record, Series, Task, Vector
from unstuck.report._remedies import REMEDIES
from unstuck.verdict import CAUSES, SEVERITIES

RULES = _discover.find("rules")
SIGNALS = {
    "": ("loss", "grad_norm", "lr", "batch_size", "score", "eval_loss", "eval_score", "step_seconds"),
    "layer": ("act_mean", "act_std", "act_max", "act_zero", "act_nonfinite", "act_saturated", "act_negative", "act_between",
              "dead_share", "dead_window", "back_rms", "back_max", "back_zero", "back_nonfinite"),
    "parameter": ("grad_rms", "grad_max", "grad_zero", "grad_nonfinite", "weight_rms", "weight_max", "weight_nonfinite",
                  "update_ratio", "stale_rms"),
}  # fmt: skip
VECTORS = (("lag_grad", "lstm"), ("input_mean", "input"), ("input_std", "input"), ("input_min", "input"), ("input_max", "input"),
           ("label_count", ""), ("prediction_count", ""))  # fmt: skip
OPS = ("conv", "batch_norm", "relu", "dropout", "linear", "linear", "tanh", "lstm", "sigmoid", "softmax")


@pytest.fixture(params=sorted(RULES), ids=str)
def rule(request):
    """Each rule in turn."""
    return RULES[request.param]


def network() -> dict:
    """A program with a layer of every kind and a loss of every field."""
    layers = [
        Layer(op if op != "linear" else f"linear{i}", op, inputs=(), parameters=(f"{i}.w", f"{i}.b"), out_shape=(8, 4))
        for i, op in enumerate(OPS)
    ]
    layers = [
        Layer(**{**vars(b), "inputs": (a.name,)}) for a, b in itertools.pairwise([layers[-1], *layers])
    ]  # a circle
    initial = {"mean": 0.0, "std": 0.3, "max": 1.0, "zero_share": 0.0, "identical_rows": 0.0, "fan_in": 4.0}
    parameters = [Parameter(f"{i}.w", (4, 4), (layer.name,), initial=initial) for i, layer in enumerate(layers)]
    parameters += [Parameter(f"{i}.b", (4,), (layer.name,)) for i, layer in enumerate(layers)]
    call = LossCall(
        "cross_entropy", "a.py:1", "softmax", ("linear", "softmax"), ("mul", "sum"), (8, 4), (8,), "class index", 4, "sum",
        {"min": 0.0, "max": 1.0, "sums_to_one": 1.0, "log_sums_to_one": 0.0, "constant": 0.1},
        {"min": 0, "max": 3, "std": 1.0, "mean": 1.5},
    )  # fmt: skip
    task = Task("classification", 4, "accuracy", 1.386, 0.25, 0.0, 1.0, (0.25,) * 4)
    return {
        "layers": layers, "parameters": parameters, "losses": [call], "task": task, "optimizers": [Optimizer(steps=50)],
        "data": Data(batch_size=8), "events": [Event(3, "non-finite", "relu", {"what": "loss", "op": "log", "before": None})],
    }  # fmt: skip


def full(values, rng: np.random.Generator | None = None, keep: float = 1.0, steps: int = 50) -> Record:
    """A record with every signal everywhere, of which some are left out at random."""
    program = network()
    places = {
        "": [""],
        "layer": [layer.name for layer in program["layers"]],
        "parameter": [p.name for p in program["parameters"]],
    }
    series, vectors = {}, {}
    for kind, signals in SIGNALS.items():
        for signal, place in itertools.product(signals, places[kind]):
            if rng is None or rng.random() < keep:
                count = steps if rng is None else int(rng.integers(0, steps + 1))
                series[signal, place] = Series.of(
                    values(count), np.sort(np.random.default_rng(0).choice(steps, count, replace=False))
                )
    for key in VECTORS:
        if rng is None or rng.random() < keep:
            vectors[key] = [values(12) for _ in range(4)]
    if rng is not None:
        for part in ("layers", "parameters", "losses", "optimizers", "events"):
            program[part] = [item for item in program[part] if rng.random() < 0.8]
    return Record.of(series, vectors=vectors, **program)


@functools.cache
def constant(value: float) -> Record:
    """Every number is this one."""
    return full(lambda count: np.full(count, value))


@functools.cache
def noise(seed: int) -> Record:
    """Numbers of one of four kinds, much of it missing."""
    rng = np.random.default_rng(seed)
    kinds = (
        rng.random,
        rng.standard_normal,
        lambda n: 10 ** rng.normal(0, 8, n),
        lambda n: np.where(rng.random(n) < 0.3, np.nan, rng.random(n)),
    )
    return full(kinds[seed % 4], rng, keep=(seed % 5 + 1) / 5)


@contextlib.contextmanager
def told(*case):
    """Says of a failure in which case it was; numpy keeps quiet."""
    try:
        with np.errstate(all="ignore"):
            yield
    except BaseException as failure:
        failure.add_note(f"in the case of {case}")
        raise


def check(findings) -> None:
    """What every list of findings holds to."""
    assert isinstance(findings, list)
    assert len(findings) <= 1, "one finding a rule, listing the layers"
    for finding in findings:
        assert finding.cause in CAUSES
        assert finding.severity in SEVERITIES
        assert 0 < finding.confidence <= 1
        assert finding.says
        assert "\n" not in finding.says
        assert not finding.says.endswith(".")
        assert set(finding.treated_by) <= set(REMEDIES)
        assert all(finding.layers), "no empty name"
        assert len(set(finding.layers)) == len(finding.layers)
        assert all(
            math.isfinite(e.value) or e.signal in ("loss", "lr", "grad_rms", "update_ratio") for e in finding.evidence
        )
        assert all(isinstance(e.step, int) and e.step >= 0 for e in finding.evidence)


def test_an_empty_record_is_silent(rule):
    assert rule(Record()) == []
    assert rule(Record.of()) == []


def test_a_network_without_measurements_is_silent(rule):
    program = {**network(), "events": [], "losses": []}
    loud = [f for f in rule(Record.of(**program)) if f.severity != "note"]
    assert loud == []


@pytest.mark.parametrize("state", ["well", "learns"])
def test_a_healthy_run_is_silent(rule, runs, state):
    ops = ("linear", "relu", "dropout", "linear", "relu", "linear")
    given = runs.chain(*ops)
    series = {
        ("grad_norm", ""): 0.5 + runs.falling,
        ("eval_loss", ""): [2.0, 1.0, 0.6, 0.5, 0.45],
        ("eval_score", ""): [0.2, 0.6, 0.8, 0.85, 0.86],
    }
    for name in ("linear0", "linear3", "linear5"):
        series |= {("act_std", name): [0.5] * 9, ("act_between", name): [0.7] * 9, ("back_rms", name): [0.01] * 9}
        for part in ("weight", "bias"):
            place = f"{name}.{part}"
            series |= {
                ("grad_rms", place): [0.02] * 9,
                ("weight_rms", place): [0.25] * 9,
                ("update_ratio", place): [2e-3] * 9,
                ("stale_rms", place): [0.0] * 9,
            }
    for name in ("relu1", "relu4"):
        series |= {
            ("act_zero", name): [0.5] * 9,
            ("dead_share", name): [0.2] * 9,
            ("dead_window", name): list(range(1, 10)),
        }
    labels = np.random.default_rng(0).multinomial(32, [0.1] * 10, 9)
    vectors = {
        ("label_count", ""): labels,
        **{
            (f"input_{n}", "input"): [[v] * 5] * 9
            for n, v in (("mean", 0.0), ("std", 1.0), ("min", -3.0), ("max", 3.0))
        },
    }
    assert rule(getattr(runs, state)(series, vectors=vectors, **given)) == []


def test_no_number_makes_it_fail(rule):
    for value in (math.nan, math.inf, -math.inf, 0.0, 1.0, -1.0, 3e38, 1e-45):
        with told(value):
            check(rule(constant(value)))


def test_nothing_missing_makes_it_fail(rule):
    for seed in range(40):
        with told(seed):
            check(rule(noise(seed)))


def test_nothing_it_reads_is_changed(rule):
    record = constant(1.0)
    before = {key: series.values.copy() for key, series in record._series.items()}
    with np.errstate(all="ignore"):
        rule(record)
    assert all(np.array_equal(series.values, before[key]) for key, series in record._series.items())


def test_odd_vectors_do_not_make_it_fail(rule):
    ragged = {
        key: (Vector(0, np.ones(3)), Vector(1, np.ones(5)), Vector(2, np.full(4, np.nan)), Vector(3, np.zeros(0)))
        for key in VECTORS
    }
    check(rule(Record(constant(1.0).program, {"steps": 50}, (), None, constant(1.0)._series, ragged)))


FACTORS = [0.01, 0.1, 1.0, 10.0, 100.0]
EXPERIMENTS = {
    "modes": "train eval score_train score_eval",
    "zero-input": "loss zeroed exchanged score score_zeroed score_exchanged",
    "critical-rate": "rate critical best gain start_critical start_best start_gain",
    "reference": "linear mlp fitted network chance samples",
    "overfit-batch": "samples before after score_before score_after start_before start_after start_score_before start_score_after",
    "noise": "scale signal noise batch_size",
    "unregularized": "kept without score_kept score_without own_kept own_without steps",
    "curvature": "top bottom top_error bottom_error gradient loss iterations",
}  # fmt: skip


def experiments(value, steps=50) -> list[Event]:
    """Every experiment, all of whose numbers are this one; null where it is None."""
    found = [{"name": name, **dict.fromkeys(keys.split(), value)} for name, keys in EXPERIMENTS.items()]
    rates = {
        "factors": FACTORS,
        "losses": [value] * 5,
        "scores": [value] * 5,
        "own_losses": [value] * 5,
        "before": value,
    }
    rates |= {
        "score_before": value,
        "steps": steps,
        "rate": value,
        "adam_losses": [value] * 2,
        "adam_scores": [value] * 2,
    }
    found += [{"name": name, **rates} for name in ("step-sizes", "from-start")]
    looks = dict.fromkeys(("losses", "scores", "own_losses"), [value] * 5)
    found.append({"name": "go-on", "steps": steps, **looks})
    return [Event(50, "probe", data=data) for data in found]


def test_no_result_of_an_experiment_makes_it_fail(rule, runs):
    network = runs.chain("linear", "relu", "linear")
    for state, value in itertools.product(runs.each, (None, 0.0, 1.0, -1.0, 1e30, 1e-30, 0.5)):
        with told(state, value):
            check(rule(getattr(runs, state)(events=experiments(value), **network)))


def test_experiments_that_failed_make_it_neither_fail_nor_speak(rule, runs):
    failed = [Event(100, "probe", data={"name": e.data["name"], "error": "RuntimeError: no"}) for e in experiments(0.0)]
    failed.append(Event(100, "probe", data={"name": "none", "why": "several losses or optimizers take turns"}))
    for state in ("stuck", "learns", "well", "diverges"):
        make = getattr(runs, state)
        assert repr(rule(make(events=failed))) == repr(rule(make()))


def test_thresholds_are_keyword_only_numbers_with_defaults(rule):
    record, *thresholds = inspect.signature(rule).parameters.values()
    assert record.name == "record"
    assert thresholds, "a rule without a threshold can't be tuned"
    for threshold in thresholds:
        assert threshold.kind is threshold.KEYWORD_ONLY
        assert isinstance(threshold.default, (int, float))


def test_the_docstring_is_a_page(rule):
    page = inspect.getdoc(rule) or ""
    first, blank, *_ = page.splitlines()
    assert first.endswith(".")
    assert blank == ""
    for section in ("Told apart:", "Wrong when:", "Args:", "Returns:"):
        assert f"\n{section}\n" in page, section
    told = re.findall(r"^    (\w+): ", page.split("\nArgs:\n")[1].split("\nReturns:\n")[0], re.MULTILINE)
    assert told == list(inspect.signature(rule).parameters)


def test_rules_are_named_after_a_cause():
    assert set(RULES) <= set(CAUSES)
