"""The published schema of the JSON: what is written keeps to it, and holds nothing that it doesn't tell of."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

from unstuck.doctor import diagnose
from unstuck.evidence import Event
from unstuck.report.json import SCHEMA, to_json
from unstuck.source import Edit
from unstuck.trials.estimate import Effect
from unstuck.trials.job import Outcome
from unstuck.trials.visit import Cure, Dose, Prescription, Trial
from unstuck.verdict import SEVERITIES, Verdict

jsonschema = pytest.importorskip("jsonschema")


def strict(schema: Any) -> Any:
    """The schema with nothing allowed that it doesn't tell of."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = (
        {"additionalProperties": False} if "properties" in schema and isinstance(schema["properties"], dict) else {}
    )
    return closed | {key: strict(part) for key, part in schema.items()}


def errors(told: Any, schema: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(told)]


SCHEMAS = {
    name: json.loads(files("unstuck.report").joinpath("assets", f"{name}.schema.json").read_text("utf-8"))
    for name in ("verdict", "cure")
}
OPEN, CLOSED = SCHEMAS["verdict"], strict(SCHEMAS["verdict"])


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["properties"]["schema"]["const"] == SCHEMA


def test_it_knows_the_severities() -> None:
    assert OPEN["$defs"]["finding"]["properties"]["severity"]["enum"] == list(SEVERITIES)


def test_what_is_written_keeps_to_it(case: tuple) -> None:
    assert not errors(to_json(case[0]), CLOSED)


def test_what_is_judged_keeps_to_it(case: tuple) -> None:
    record = replace(case[1], events=(*case[1].events, Event(3, "probe", "", {"name": "reference", "score": 0.9})))
    told = to_json(diagnose(record))
    assert not errors(told, CLOSED)
    assert "experiments" in told["run"]


def test_a_rule_that_failed_keeps_to_it() -> None:
    assert not errors(to_json(Verdict("healthy", run={"rule_errors": {"mine": "KeyError: 1"}})), CLOSED)


def test_keys_that_are_added_later_are_allowed(cases: Any) -> None:
    told = to_json(cases.vanishing[0])
    told["new"] = told["run"]["new"] = told["findings"][0]["new"] = {"a": 1}
    assert not errors(told, OPEN)
    assert len(errors(told, CLOSED)) == 3


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ((), "verdict", "well"), ((), "schema", 2), ((), "findings", None), (("findings", 0), "severity", "fatal"),
        (("findings", 0), "layers", "net.0"), (("findings", 0, "evidence", 0), "step", 0.5), (("run",), "steps", None),
        (("run", "score"), "first", "0.1"),
    ],
)  # fmt: skip
def test_what_breaks_the_contract_is_refused(cases: Any, where: tuple, key: str, value: Any) -> None:
    told = to_json(cases.vanishing[0])
    place: Any = told
    for part in where:
        place = place[part]
    place[key] = value
    assert len(errors(told, OPEN)) == 1


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_is_told_of(name: str) -> None:
    def untold(schema: Any, name: str) -> list[str]:
        inside = [key for key, part in schema.get("properties", {}).items() for key in untold(part, key)]
        return inside if "description" in schema or "$ref" in schema else [*inside, name]

    schema = SCHEMAS[name]
    parts = {"all of it": schema, **{key: part for key, part in schema["$defs"].items() if "properties" in part}}
    assert {key for each, part in parts.items() for key in untold(part, each)} <= set(parts)


# ---------------------------------------------------------------------- cures

BASELINE = Outcome("finished", "accuracy", 0.1, 0.0, 4.2)
TREATMENT = (Dose("learning-rate", {"rate": 0.01}), Dose("zero-grad"))
TRIALS = (
    Trial(TREATMENT, (0.7,), 0.6, 2.5, kept=True),
    Trial((Dose("wider"),), why_not="no layer is known"),
    Trial((Dose("optimizer", {"betas": [0.9, 0.99]}),), (math.nan,), math.inf, 1.0),
)
FOUND = Prescription(
    TREATMENT, Effect(0.5, 0.4, math.nan, 3), "accuracy", "accuracy", (0.1, math.nan), (0.6, 0.7), ("undertrained",),
    (Edit("train.py", 3, 7, "0.01"),), {"train.py": "00"}, {}, "--- a\n+++ b\n",
)  # fmt: skip


@pytest.mark.parametrize(
    "cure",
    [Cure(Verdict("sick"), BASELINE, TRIALS, FOUND, "", 61.0), Cure(Verdict("healthy"), BASELINE, why="nothing is wrong with it"),
     Cure(Verdict("unknown"), Outcome("failed"), why="it could not be run")],
)  # fmt: skip
def test_what_a_cure_writes_keeps_to_its_schema(cure: Cure) -> None:
    told = json.loads(json.dumps(cure.to_json(), allow_nan=False))
    assert not errors(told, strict(SCHEMAS["cure"]))
    told["trials"] = None
    assert len(errors(told, SCHEMAS["cure"])) == 1
