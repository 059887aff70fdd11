"""The samples that a watched training gets most wrong, as an experiment found them, for the page of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from unstuck._language import _, tell
from unstuck.evidence import Event, Record
from unstuck.report import _words as words
from unstuck.report._samples import drawn

_MOST = 12
_LONGEST = 24  # letters of a target


def is_of_worst(event: Event) -> bool:
    """Whether an event holds these samples, which no table of events has room for."""
    return event.kind == "probe" and event.data.get("name") == "worst"


def worst_samples(record: Record) -> dict[str, Any] | None:
    """What the page shows of them; None where there are none, or where most are wrong: that tells of the network, not of samples."""
    event = next((e for e in record.events if is_of_worst(e)), None)
    found = event.data.get("samples") if event is not None else None
    if event is None or not isinstance(found, (list, tuple)):
        return None
    looked, wrong = (_value(event.data.get(name)) for name in ("looked", "wrong"))
    if looked is not None and wrong is not None and 2 * wrong > looked:
        return None
    cards = [_card(sample) for sample in found[:_MOST] if isinstance(sample, Mapping)]
    return {"says": _says(event.data), "cards": cards} if cards else None


def _says(data: Mapping[str, Any]) -> str:
    rest = _("These are samples that it was trained on, the most confident errors first: wrong labels often show here.")
    if data.get("kind") == "regression":
        return rest
    counted = {name: words.exact(data.get(name)) for name in ("looked", "wrong")}
    among = tell("Of {looked} training samples that were looked at, {wrong} were wrong.", **counted)
    return f"{among} {rest}"


def _card(sample: Mapping[str, Any]) -> dict[str, Any]:
    target, prediction = (_shown(sample.get(name)) for name in ("target", "prediction"))
    sure, error = sample.get("confidence"), sample.get("error")
    sketch = sample.get("input")
    return {
        "number": None, "picture": drawn(sketch, tell("a training sample, {target}", target=target)) if sketch is not None else "",
        "target": target, "prediction": prediction, "sure": words.percent(sure) if _is_number(sure) else "",
        "loss": words.number(_value(sample.get("loss"))), "error": words.percent(error) if _is_number(error) else "",
    }  # fmt: skip


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return words.number(value) if isinstance(value, float) else words.place(str(value), _LONGEST)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _value(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
