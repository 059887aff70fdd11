"""The JSON contract: keys, order, who explains whom, strictness, and where it can't be written."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unstuck.errors import MisuseError, RecordError
from unstuck.report.json import to_json, write
from unstuck.verdict import Evidence, Finding, Verdict


def test_keys_are_the_contract(cases: SimpleNamespace) -> None:
    told = to_json(cases.vanishing[0])
    assert list(told) == ["schema", "verdict", "why_unknown", "findings", "run"]
    assert told["schema"] == 1
    assert told["verdict"] == "sick"
    assert told["why_unknown"] is None
    assert list(told["findings"][0]) == [
        "cause", "rule", "severity", "confidence", "layers", "says", "evidence", "treated_by", "explains",
    ]  # fmt: skip
    assert told["findings"][0]["evidence"][0] == {"signal": "back_rms", "layer": "net.0", "step": 0, "value": 7.9e-17}
    assert told["findings"][0]["treated_by"] == ["initialization", "activation", "normalization"]
    assert set(told["run"]) >= {"steps", "seconds", "overhead", "score", "record"}
    assert told["run"]["score"] == {"name": "accuracy", "first": 0.105, "last": 0.1135}


def test_findings_are_flat_with_symptoms_behind_their_root() -> None:
    leaf = Finding("non-finite", "c", "error", 0.9, "leaf")
    middle = Finding("exploding-gradient", "b", "error", 0.8, "middle", explains=(leaf,))
    other = Finding("undertrained", "d", "note", 0.5, "other symptom")
    root = Finding("learning-rate-too-high", "a", "error", 0.7, "root", explains=(middle, other))
    last = Finding("unnormalized-input", "e", "note", 0.3, "another root")
    findings = to_json(Verdict("sick", (root, last)))["findings"]
    assert [f["says"] for f in findings] == ["root", "middle", "leaf", "other symptom", "another root"]
    assert [f.get("explained_by") for f in findings] == [None, 0, 1, 0, None]
    assert [f.get("explains") for f in findings] == [[1, 3], [2], None, None, None]
    assert "explained_by" not in findings[0]
    assert "explains" not in findings[4]


def test_nan_and_inf_become_null_and_numpy_becomes_plain() -> None:
    evidence = (Evidence("loss", "", int(np.int64(3)), math.nan), Evidence("loss", "", 4, float(np.float32(math.inf))))
    run = {
        "score": {"name": "r2", "first": math.nan, "last": np.float32(0.5)},
        "record": Path("a") / "b",
        "more": (1, np.True_),
    }
    verdict = Verdict(
        "sick", (Finding("non-finite", "n", "error", np.float64(1.0), "it is", evidence=evidence),), run=run
    )
    told = json.loads(json.dumps(to_json(verdict), allow_nan=False))
    assert [e["value"] for e in told["findings"][0]["evidence"]] == [None, None]
    assert told["findings"][0]["evidence"][0]["step"] == 3
    assert told["run"]["score"] == {"name": "r2", "first": None, "last": 0.5}
    assert told["run"]["record"] == str(Path("a") / "b")
    assert told["run"]["more"] == [1, True]


def test_a_bare_verdict_has_every_key() -> None:
    told = to_json(Verdict("unknown", why_unknown="nothing was seen"))
    assert told["why_unknown"] == "nothing was seen"
    assert told["run"] == {"steps": 0, "seconds": None, "overhead": None, "score": None, "record": None}


def test_every_case_is_strict_json(case: tuple) -> None:
    json.dumps(to_json(case[0]), allow_nan=False)


def test_write_and_read_back(cases: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    write(cases.nan[0], path)
    assert json.loads(path.read_text("utf-8")) == to_json(cases.nan[0])


def test_a_name_that_is_no_utf8_is_written_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write(Verdict("unknown", why_unknown="no file \udcff"), path)
    assert json.loads(path.read_text("utf-8"))["why_unknown"] == "no file ?"


def test_a_folder_or_a_missing_folder_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="it is a folder"):
        write(Verdict("healthy"), tmp_path)
    with pytest.raises(MisuseError, match="there is no folder"):
        write(Verdict("healthy"), tmp_path / "no" / "out.json")
    with pytest.raises(MisuseError, match="name a file"):
        write(Verdict("healthy"), "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full here")
def test_a_full_disk_is_a_record_error() -> None:
    with pytest.raises(RecordError, match="can't write the report to '/dev/full': No space left"):
        write(Verdict("healthy"), "/dev/full")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_that_may_not_be_written_is_a_record_error(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.touch()
    path.chmod(0o400)
    with pytest.raises(RecordError, match="Permission denied"):
        write(Verdict("healthy"), path)
