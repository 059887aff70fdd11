"""Two runs side by side: what differs is said, what is the same is counted, layers stand against each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unstuck.evidence import Data, Event, Layer, Model, Optimizer, Parameter, Record, Series, Task
from unstuck.report.comparison import Side, compare, scores_of, summary, until
from unstuck.verdict import Finding, Verdict

SEEN = np.arange(0, 1000, 10)
HEALTHY = Verdict("healthy")


def record(*, gradient: float = 1e-3, rate: float = 0.1, steps: int = 1000, meta: Any = (), **program: Any) -> Record:
    seen = SEEN[: steps // 10]
    given: dict[str, Any] = {
        "models": [Model("net", "Net", 100)],
        "layers": [
            Layer(n, "linear", parameters=(f"{n}.weight",), out_shape=(32, 10)) for n in ("net.0", "net.1", "net.2")
        ],
        "parameters": [Parameter(f"net.{i}.weight") for i in range(3)],
        "optimizers": [Optimizer("SGD", settings={"lr": rate, "momentum": 0.9})],
        "task": Task("classification", 10, "accuracy"),
        "data": Data(32, "loader", "DataLoader", 1, 10, True, 320),
    }
    return Record.of(
        {
            ("loss", ""): Series.of(np.exp(-np.arange(steps) / 300)),
            ("lr", ""): Series.of(np.full(steps, rate)),
            ("grad_norm", ""): Series(np.arange(steps), np.where(np.arange(steps) % 10 == 0, 1.0, np.nan)),
            ("back_rms", "net.0"): Series(seen, np.where(seen < 500, 77.0, gradient)),  # only the later half counts
            ("back_rms", "net.1"): Series(seen, np.full(len(seen), 1e-3)),
            ("update_ratio", "net.0.weight"): Series(seen, np.full(len(seen), 1e-3)),
            ("dead_share", "net.1"): Series(seen, np.full(len(seen), 0.2)),
        },
        meta={"script": "train.py", "argv": ["train.py"], "torch": "2.13.0", **dict(meta)},
        **{**given, **program},
    )


def differences(a: Record, b: Record) -> dict[str, tuple[str, str]]:
    found = compare(Side("a", HEALTHY, a), Side("b", HEALTHY, b))
    return {what: (first, second) for what, first, second in found.differences}


def test_the_same_run_twice_differs_in_nothing() -> None:
    found = compare(Side("a", HEALTHY, record()), Side("b", HEALTHY, record()))
    assert found.differences == ()
    assert found.same > 15
    assert summary(found) == "Nothing that was recorded of the two programs differs."
    assert all(
        ratio.text in ("× 1.0", "") and not ratio.is_far for row in found.layers for ratio in row.ratios if ratio
    )


def test_what_differs_is_said() -> None:
    other = record(
        rate=0.3, steps=500,
        meta={"argv": ["train.py", "--lr", "0.3"], "torch": "2.12.0"}, data=Data(64, "loader", "DataLoader", 1, 10, False, 320),
        optimizers=[Optimizer("Adam", settings={"lr": 0.3, "eps": 1e-8}, schedule="StepLR")],
    )  # fmt: skip
    assert differences(record(), other) == {
        "command": ("train.py", "train.py --lr 0.3"),
        "steps": ("1000", "500"),
        "batch size": ("32", "64"),
        "shuffled": ("yes", "no"),
        "torch": ("2.13.0", "2.12.0"),
        "optimizer: kind": ("SGD", "Adam"),
        "optimizer: lr": ("0.1", "0.3"),
        "optimizer: momentum": ("0.9", "–"),
        "optimizer: eps": ("–", "1e-8"),
        "optimizer: schedule": ("–", "StepLR"),
    }


def test_layers_that_one_lacks_or_that_compute_something_else() -> None:
    other = record(layers=[Layer("net.0", "conv", out_shape=(64, 16, 8)), Layer("net.1", "linear", out_shape=(64, 10)),
                           Layer("new", "relu")])  # fmt: skip
    found = differences(record(), other)
    assert found == {
        "layer net.0": ("linear, 10", "conv, 16 × 8"), "layer net.2": ("linear, 10", "–"), "layer new": ("–", "relu")
    }  # fmt: skip


def test_layers_stand_against_each_other_over_the_later_half_of_what_both_took() -> None:
    found = compare(Side("a", HEALTHY, record()), Side("b", HEALTHY, record(gradient=2e-5)))
    assert found.span == (500, 999)
    assert found.quantities == ("gradient", "update / weight", "share of dead units")
    assert [row.name for row in found.layers] == ["net.0", "net.1"]
    gradient = found.layers[0].ratios[0]
    assert gradient is not None
    assert (gradient.first, gradient.second, gradient.text, gradient.is_far) == ("0.00100", "2e-5", "× 0.020", True)
    assert found.layers[1].ratios[2].first == "20%"
    assert found.layers[1].ratios[1] is None
    short = compare(Side("a", HEALTHY, record()), Side("b", HEALTHY, record(steps=300)))
    assert short.span == (150, 299)
    assert short.layers[0].ratios[0].first == "77.0"


def test_zero_against_something_is_far_apart() -> None:
    found = compare(Side("a", HEALTHY, record(gradient=0.0)), Side("b", HEALTHY, record()))
    ratio = found.layers[0].ratios[0]
    assert ratio is not None and (ratio.first, ratio.text, ratio.is_far) == ("0", "", True)


def test_lines_keep_their_place_where_only_one_was_measured() -> None:
    lonely = Record.of({("eval_loss", ""): Series.of([1.0, 0.5], [10, 20])})
    found = compare(Side("a", HEALTHY, record()), Side("b", HEALTHY, lonely))
    charts = {chart.id: chart for chart in found.charts}
    assert set(charts) == {"loss", "eval_loss", "grad_norm", "lr"}
    for chart in charts.values():
        assert [line.label for line in chart.lines] == ["A", "B"]
        assert chart.axis == "step"
    assert charts["eval_loss"].to_json()["lines"][0]["y"] == [None]
    assert charts["loss"].to_json()["lines"][1]["y"] == [None]
    assert None not in charts["grad_norm"].to_json()["lines"][0]["y"]  # what was merely not measured is no gap


def test_findings_and_where_it_broke() -> None:
    rate = Finding("learning-rate-too-high", "rate", "error", 0.9, "too high")
    dead = Finding(
        "dead-units",
        "dead",
        "warning",
        0.9,
        "dead",
        explains=(Finding("vanishing-gradient", "v", "note", 0.5, "gone"),),
    )
    broken = Record.of({("loss", ""): [1.0, math.nan]}, events=[Event(1, "non-finite", "net.0")])
    found = compare(Side("a", Verdict("sick", (rate, dead)), broken), Side("b", Verdict("sick", (rate,)), broken))
    assert [(f.cause, f.is_shared) for f in found.found[0]] == [
        ("learning-rate-too-high", True), ("dead-units", False), ("vanishing-gradient", False),
    ]  # fmt: skip
    assert [f.is_shared for f in found.found[1]] == [True]
    assert found.charts[0].marks == ((1, "A: NaN or Inf"), (1, "B: NaN or Inf"))


def test_nothing_against_nothing() -> None:
    found = compare(Side("a", Verdict("unknown"), Record()), Side("b", Verdict("unknown"), Record()))
    assert (found.charts, found.layers, found.differences) == ((), (), ())


def test_many_layers_are_cut() -> None:
    layers = [Layer(f"l{i}") for i in range(800)]
    series = {("act_std", layer.name): Series.of([1.0, 1.0]) for layer in layers}
    big = Record.of(series, layers=layers)
    found = compare(Side("a", HEALTHY, big), Side("b", HEALTHY, big))
    assert (len(found.layers), found.more) == (500, 300)
    none = compare(Side("a", HEALTHY, big), Side("b", HEALTHY, Record()))
    assert (len(none.differences), none.more_differences) == (200, 600 + 2)  # and the steps, and how it ended
    assert summary(none).startswith("802 of ")


def test_scores_of_two_kinds_share_no_axis() -> None:
    scored = Record.of({("loss", ""): [1.0], ("score", ""): [0.5]}, task=Task("x", 10, "accuracy"))
    other = Record.of({("loss", ""): [1.0], ("score", ""): [40.0]}, task=Task("y", 10, "perplexity"))
    for b, drawn, names in ((scored, ["loss", "score"], ("accuracy",)), (other, ["loss"], ("accuracy", "perplexity"))):
        sides = Side("a", HEALTHY, scored), Side("b", HEALTHY, b)
        assert [chart.id for chart in compare(*sides).charts] == drawn
        assert scores_of(*sides) == names


def test_charts_end_soon_after_the_longer_run_broke_early_but_not_before_the_other_ends() -> None:
    broken = Record.of({("loss", ""): [1.0] * 10 + [math.nan] * 190}, events=[Event(10, "non-finite")])
    for steps, end in ((5, 20), (50, 49), (200, None)):
        well = Record.of({("loss", ""): [1.0] * steps})
        assert until(Side("a", HEALTHY, well), Side("b", HEALTHY, broken)) == end
        assert until(Side("b", HEALTHY, broken), Side("a", HEALTHY, well)) == end
