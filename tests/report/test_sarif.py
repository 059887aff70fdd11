"""SARIF: what the standard and GitHub demand of a log, by hand; where findings stand; hostile names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unstuck._language import speaking
from unstuck.evidence import Layer, LossCall, Parameter, Record
from unstuck.report.sarif import render, to_sarif
from unstuck.verdict import CAUSES, Finding, Verdict


def finding(*layers: str, confidence: float = 0.9, says: str = "it is dead") -> Finding:
    return Finding("dead-units", "dead-units", "error", confidence, says, layers)


def result(record: Record, *layers: str, **given: Any) -> dict[str, Any]:
    (found,) = to_sarif(Verdict("sick", (finding(*layers, **given),)), record)["runs"][0]["results"]
    return found


def places(found: dict[str, Any]) -> list[tuple[str, int]]:
    where = [location["physicalLocation"] for location in found["locations"]]
    return [(place["artifactLocation"]["uri"], place["region"]["startLine"]) for place in where]


def test_every_log_has_what_the_standard_and_github_demand(case: tuple) -> None:
    log = json.loads(render(*case))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "unstuck" and driver["version"]
    assert [rule["id"] for rule in driver["rules"]] == list(CAUSES)
    for rule in driver["rules"]:
        texts = [rule["shortDescription"]["text"], rule["fullDescription"]["text"], rule["help"]["text"]]
        assert all(texts) and len(texts[0]) <= 1024 and len(texts[1]) <= 1024
    for found in run["results"]:
        assert driver["rules"][found["ruleIndex"]]["id"] == found["ruleId"]
        assert found["level"] in ("error", "warning", "note") and found["kind"] == "fail"
        assert found["message"]["text"] and found["partialFingerprints"]
        assert -1 <= found["rank"] <= 100
        assert 1 <= len(found["locations"]) <= 100
        for uri, line in places(found):
            assert line >= 1 and re.fullmatch(r"[\w.~!$&'()*+,;=:@%/-]+", uri)  # RFC 3986
    (invocation,) = run["invocations"]
    assert isinstance(invocation["executionSuccessful"], bool)
    assert invocation["workingDirectory"]["uri"].startswith("file:///")
    assert run["originalUriBaseIds"]["%SRCROOT%"]["uri"].endswith("/")


def test_findings_and_their_symptoms_are_results_in_the_order_of_the_json(cases: SimpleNamespace) -> None:
    (run,) = to_sarif(*cases.vanishing)["runs"]
    told = [(r["ruleId"], r["level"], r["rank"]) for r in run["results"]]
    assert told == [
        ("vanishing-gradient", "error", 93.0), ("undertrained", "warning", 71.0), ("saturated-activation", "warning", 66.0),
        ("unnormalized-input", "note", 55.0),
    ]  # fmt: skip
    root, symptom = run["results"][:2]
    assert symptom["properties"]["explained_by"] == 0
    assert root["properties"]["treated_by"] == ["initialization", "activation", "normalization"]
    assert root["properties"]["evidence"][0] == {"signal": "back_rms", "layer": "net.0", "step": 0, "value": 7.9e-17}
    assert root["message"]["text"].startswith("The gradient of net.0 is 1.7e-16 of that of net.38")
    assert run["properties"]["verdict"] == "sick"
    assert run["invocations"][0]["exitCode"] == 0


def test_layers_of_one_line_are_one_location() -> None:
    layers = [Layer("a", site="train.py:7"), Layer("b", site="train.py:7"), Layer("c", site="train.py:9")]
    found = result(Record.of(layers=layers, meta={"script": "train.py"}), "a", "b", "c")
    assert places(found) == [("train.py", 7), ("train.py", 9)]
    assert [x["name"] for x in found["locations"][0]["logicalLocations"]] == ["a", "b"]


def test_a_parameter_stands_where_the_layers_are_that_use_it() -> None:
    record = Record.of(layers=[Layer("a", site="train.py:7")], parameters=[Parameter("a.weight", layers=("a",))])
    assert places(result(record, "a.weight")) == [("train.py", 7)]


def test_without_layers_a_finding_stands_at_the_loss_and_without_a_loss_at_the_script(tmp_path: Path) -> None:
    meta = {"script": "train.py", "cwd": str(tmp_path)}
    assert places(result(Record.of(meta=meta, losses=[LossCall("mse_loss", "train.py:31")]))) == [("train.py", 31)]
    assert places(result(Record.of(meta=meta))) == [("train.py", 1)]


def test_files_are_told_from_the_root_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    package = tmp_path / "ml work" / "parts"
    package.mkdir(parents=True)
    (package.parent / "train.py").write_text("from parts.net import net\n")
    (package / "net.py").touch()
    layers = [Layer("a", site="train.py:7"), Layer("b", site="net.py:2")]
    record = Record.of(layers=layers, meta={"script": "train.py", "argv": ["train.py"], "cwd": str(package.parent)})
    found = result(record, "a", "b")
    assert places(found) == [("ml%20work/train.py", 7), ("ml%20work/parts/net.py", 2)]
    assert found["locations"][0]["physicalLocation"]["artifactLocation"]["uriBaseId"] == "%SRCROOT%"


def test_a_file_outside_of_the_repository_has_its_whole_address(tmp_path: Path) -> None:
    script = tmp_path / "elsewhere" / "train.py"
    meta = {"script": str(script), "cwd": str(tmp_path / "here")}
    found = result(Record.of(layers=[Layer("a", site="train.py:7")], meta=meta), "a")
    assert places(found) == [(script.as_uri(), 7)]
    assert "uriBaseId" not in found["locations"][0]["physicalLocation"]["artifactLocation"]


@pytest.mark.parametrize(("module", "file"), [("parts.train", "parts/train.py"), ("parts", "parts/__main__.py")])
def test_a_module_is_found_by_its_name(module: str, file: str, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    record = Record.of(meta={"script": f"-m {module}", "argv": ["-m", module, "x"], "cwd": str(tmp_path)})
    assert places(result(record)) == [(file, 1)]


def test_the_same_finding_has_the_same_fingerprint_whatever_its_numbers() -> None:
    record = Record.of()
    prints = [
        result(record, *layers, **given)["partialFingerprints"]["causeAndLayers/v1"]
        for layers, given in ((("a",), {}), (("a",), {"says": "otherwise", "confidence": 0.5}), (("b",), {}))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_a_run_that_failed_and_one_that_could_not_be_judged_say_so(cases: SimpleNamespace) -> None:
    failed = to_sarif(*cases.nan)["runs"][0]["invocations"][0]
    assert (failed["executionSuccessful"], failed["exitCode"]) == (False, 1)
    (note,) = to_sarif(*cases.empty)["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert note["level"] == "note" and note["message"]["text"].startswith("No backward pass was seen")


def test_a_rule_that_failed_is_a_notification() -> None:
    log = to_sarif(Verdict("healthy", run={"rule_errors": {"mine": "KeyError: 1"}}), Record.of())
    (note,) = log["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert (note["level"], note["message"]["text"]) == ("warning", "The rule mine failed: KeyError: 1.")


def test_the_time_is_in_utc() -> None:
    record = Record.of(meta={"started": "2025-03-04T10:22:31+02:00"})
    assert to_sarif(Verdict("healthy"), record)["runs"][0]["invocations"][0]["startTimeUtc"] == "2025-03-04T08:22:31Z"


def test_nothing_in_a_name_becomes_a_link() -> None:
    text = result(Record.of(), says="[click](http://x) is dead")["message"]["text"]
    assert text == "\\[click\\](http://x) is dead."


def test_it_is_english_whatever_is_spoken(cases: SimpleNamespace) -> None:
    english = render(*cases.vanishing)
    with speaking("zh"):
        assert render(*cases.vanishing) == english
