"""True of every format: no record and no verdict, however broken, keeps it from being written."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console

from unstuck.evidence import Event, Layer, LossCall, Model, Optimizer, Parameter, Record, Series, Task
from unstuck.report.html import fragment, render
from unstuck.report.json import to_json
from unstuck.report.markdown import render as render_markdown
from unstuck.report.sarif import render as render_sarif
from unstuck.report.text import render as render_text
from unstuck.verdict import CAUSES, SEVERITIES, Evidence, Finding, Verdict

PROGRAM = ["loss", "grad_norm", "lr", "score", "eval_loss", "eval_score"]
LAYER = ["back_rms", "act_std", "dead_share", "act_saturated", "act_mean"]
EXTREMES = [0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e-300, 2.3]

FORMATS: dict[str, Callable[[Verdict, Record], object]] = {
    "json": lambda verdict, record: json.dumps(to_json(verdict), allow_nan=False),
    "text": lambda verdict, record: Console(file=io.StringIO(), width=80).print(render_text(verdict, record)),
    "html": render,
    "fragment": fragment,
    "markdown": render_markdown,
    "sarif": render_sarif,
}


def _values(chance: random.Random, count: int) -> list[float]:
    kinds: list[Callable[[], float]] = [
        lambda: chance.choice(EXTREMES),
        lambda: math.nan,
        lambda: 0.0,
        lambda: 10 ** chance.uniform(-300, 300),
        lambda: chance.gauss(1, 1),
    ]
    kind = chance.choice(kinds)
    return [kind() for _ in range(count)]


def _series(chance: random.Random) -> Series:
    count = chance.choice([0, 1, 2, 3, 10, 500])
    return Series.of(_values(chance, count), sorted(chance.sample(range(5 * count + 5), count)))


def _finding(chance: random.Random, names: list[str], depth: int = 0) -> Finding:
    evidence = tuple(
        Evidence(
            chance.choice([*PROGRAM, *LAYER, "lag_grad", "odd"]), chance.choice(["", *names]), 3, _values(chance, 1)[0]
        )
        for _ in range(chance.randrange(5))
    )
    symptoms = tuple(_finding(chance, names, depth + 1) for _ in range(chance.randrange(3) if depth < 2 else 0))
    layers = tuple(chance.sample(names, chance.randrange(len(names) + 1)))
    says = chance.choice(["", "x", "fc is " + "y " * 200])
    share = chance.choice([0, 0.5, 1, math.nan])
    return Finding(
        chance.choice(list(CAUSES)), "rule", chance.choice(SEVERITIES), share, says, layers, evidence, ("a",), symptoms
    )


def _case(seed: int) -> tuple[Verdict, Record]:
    chance = random.Random(seed)
    names = [f"layer{i}" for i in range(chance.choice([0, 1, 2, 5, 30]))]
    series = {(signal, ""): _series(chance) for signal in PROGRAM if chance.random() < 0.6}
    series |= {(signal, name): _series(chance) for signal in LAYER for name in names if chance.random() < 0.8}
    series |= {("update_ratio", f"{name}.w"): _series(chance) for name in names if chance.random() < 0.5}
    record = Record.of(
        series,
        vectors={("lag_grad", name): [_values(chance, chance.choice([0, 1, 50]))] for name in names[:2]},
        layers=[Layer(name, role=chance.choice(["hidden", "loss"])) for name in names],
        parameters=[Parameter(f"{name}.w", chance.choice([(), (3,), (3, 3)])) for name in names],
        events=[Event(3, chance.choice(["non-finite", "exception"]), data={"a": math.nan, "b": None, "c": [1]})],
        task=Task(
            score=chance.choice(["accuracy", "perplexity", ""]),
            chance_loss=_values(chance, 1)[0],
            chance_score=_values(chance, 1)[0],
        ),
        meta=chance.choice([{}, {"seconds": math.nan, "overhead": math.nan, "script": "", "status": "killed"}]),
        losses=[LossCall("mse_loss", output={"min": math.nan, "max": 1e308})],
        optimizers=[Optimizer(settings={"lr": math.nan, "none": None})],
        models=[Model("m")],
    )
    run = chance.choice([{}, {"score": None}, {"score": {"name": "accuracy", "first": math.nan, "last": 0.5}}])
    findings = tuple(_finding(chance, names) for _ in range(chance.randrange(4)))
    return Verdict(chance.choice(["sick", "healthy", "unknown"]), findings, chance.choice([None, "why"]), run), record


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(20))
def test_broken_records_are_reported_without_an_error_or_a_warning(name: str, seed: int) -> None:
    verdict, record = _case(seed)
    with np.errstate(all="raise"):
        FORMATS[name](verdict, record)
