"""What each report says in the terminal in Chinese: nothing is left in English but names, and it fits."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from unstuck._language import speaking
from unstuck.curvature.critical import Point
from unstuck.doctor import diagnose
from unstuck.evidence import Record
from unstuck.report import batch, curvature, text
from unstuck.report import cure as cures
from unstuck.report import search as searches
from unstuck.report._curvature import KINDS
from unstuck.source import Edit
from unstuck.trials.estimate import Effect
from unstuck.trials.job import Outcome
from unstuck.trials.visit import Cure, Dose, Prescription, Trial
from unstuck.verdict import Verdict

ENGLISH = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]{2,}){3}")


def _shown(made: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=80, legacy_windows=False).print(made)
    return file.getvalue()


def _check(told: str, *, columns: int = 80) -> None:
    assert re.search(r"[\u4e00-\u9fff]", told)
    assert not ENGLISH.search(told), ENGLISH.search(told)
    assert all(cell_len(line.rstrip()) <= columns for line in told.splitlines())


def test_a_verdict(case: tuple[Verdict, Record]) -> None:
    program = dataclasses.replace(case[1].program, not_found=("the batch size is unknown", "no layer was seen"))
    record = dataclasses.replace(case[1], program=program)
    verdict = diagnose(record)
    with speaking("zh"):
        _check(_shown(text.render(verdict, record)))


def _point(kind: str, *, noise: float = 0.02) -> str:
    """What the watcher writes of the end of a run."""
    values = SimpleNamespace(values=[3.0], errors=[0.01])
    gradient = SimpleNamespace(norm=0.3, noise=noise)
    point = SimpleNamespace(
        top=values, bottom=values, gradient=gradient, tolerance=1e-3, flatness=0.02, gain=0.1, loss=2.3, kind=kind
    )
    return Point.says.fget(point)  # pyright: ignore[reportOptionalCall, reportFunctionMemberAccess]


@pytest.mark.parametrize("noise", [0.02, math.nan])
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"unknown"}))
def test_curvature(cases: SimpleNamespace, kind: str, noise: float) -> None:
    record = cases.bent[1]
    told = {"kind": kind, "says": _point(kind, noise=noise)}
    events = tuple(
        dataclasses.replace(e, data={**e.data, **told}) if e.data.get("part") == "point" else e for e in record.events
    )
    with speaking("zh"):
        _check(_shown(curvature.render(dataclasses.replace(record, events=events))))


def test_no_curvature(cases: SimpleNamespace) -> None:
    for record in (cases.empty[1], cases.vanishing[1]):
        with speaking("zh"):
            _check(_shown(curvature.render(record)))


def test_batch_sizes(batches: SimpleNamespace) -> None:
    for record in (
        batches.record(),
        batches.record(choice={"why": "busy", "waited": 0.4}),
        batches.record(choice={"recommended": 32, "fastest": 32, "why": "fastest"}),
        batches.record(
            own={"batch_norms": ["bn1", "bn2"], "clipping": "norm 1", "reduction": "sum", "step_seconds": 1e-6}
        ),
        Record.of(),
    ):
        with speaking("zh"):
            _check(_shown(batch.render(record)))


def _visits() -> list[Cure]:
    dose = Dose("learning-rate", {"rate": 0.01})
    found = Prescription(
        (dose,), Effect(0.5, 0.4, 0.6, 3), "accuracy", "accuracy", (0.1, math.nan), (0.6, 0.7), ("undertrained",),
        (Edit("train.py", 3, 7, "0.01"),), {}, {}, "--- a/train.py\n+++ b/train.py\n-x\n+y\n",
    )  # fmt: skip
    trials = (Trial((dose,), (0.7,), 0.6, 2.5, kept=True), Trial((Dose("wider"),), (math.nan,), -math.inf))
    outcome = Outcome("finished", "accuracy", 0.1, 0.0, 4.2)
    return [Cure(Verdict("sick"), outcome, trials, found, "", 61.0), Cure(Verdict("healthy"), outcome, seconds=3.0)]


def test_a_cure() -> None:
    for visit in _visits():
        file = io.StringIO()
        with speaking("zh"):
            cures.text(visit, file)
        _check(file.getvalue(), columns=100)


class _Ascii(io.StringIO):
    encoding = "ascii"  # pyright: ignore[reportAssignmentType]


def test_a_cure_and_a_search_are_told_in_english_where_nothing_else_can_be_shown() -> None:
    best = {"number": 3, "arm": "search", "scores": {}, "mean": None, "values": {}}
    told = {
        "best": None,
        "control": None,
        "plan": {},
        "says": "",
        "children": [],
        "seconds": 1.0,
        "effect": None,
        "own": None,
        "x": best,
    }
    for write in (lambda file: cures.text(_visits()[0], file), lambda file: searches.text(told, file)):
        english, chinese = _Ascii(), _Ascii()
        write(english)
        with speaking("zh"):
            write(chinese)
        assert chinese.getvalue() == english.getvalue()
        assert chinese.getvalue().isascii() or "…" in chinese.getvalue()
