"""The plugin of pytest, in sessions of its own: what it does when asked, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from unstuck.evidence import Record
from unstuck.integrations import pytest_plugin
from unstuck.verdict import SEVERITIES

pytest_plugins = ["pytester"]

TRAININGS = """
import unittest, warnings
import pytest, torch
from torch import nn

def train(loss=nn.functional.cross_entropy, steps=120):
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for step in range(steps):
        optimizer.zero_grad()
        loss(net(x), x[:, :3].argmax(1)).backward()
        optimizer.step()

def broadcast(output, target):
    return ((output[:, :1] - target) ** 2).mean()

watched = pytest.mark.unstuck(probe_budget=0)
"""
MARKED = """
@watched
def test_healthy():
    train()

@watched
def test_sick():
    train(broadcast)
"""
MANY = """
def test_not_asked():
    train(broadcast)

@pytest.mark.unstuck(probe_budget=0, fail_on="never")
def test_never():
    train(broadcast)

@pytest.mark.unstuck(probe_budget=0, fail_on="note", budget=0.05)
def test_note():
    train(broadcast)

def test_fixture(unstuck_run):
    train()
    assert unstuck_run.record.steps > 0
    assert unstuck_run.verdict.verdict == "healthy"

@watched
def test_own():
    train(broadcast)
    assert 1 == 2, "its own"

@watched
def test_skipped():
    pytest.skip("not here")

@pytest.mark.xfail
@watched
def test_expected():
    train(broadcast)

@pytest.mark.unstuck(fail_on="never")
def test_warns():
    def warned(output, target):
        warnings.warn("of its own")
        return nn.functional.cross_entropy(output, target)

    with warnings.catch_warnings(action="ignore"):
        train(warned)

@watched
def test_nothing():
    pass

class TestCase(unittest.TestCase):
    @watched
    def test_method(self):
        train(broadcast)

    @watched
    def test_method_own(self):
        train(broadcast)
        self.fail("its own")

@pytest.fixture
def broken():
    1 / 0

def test_broken(unstuck_run, broken):
    pass
"""


def session_of(text: str, folder: Path, *options: str) -> SimpleNamespace:
    """Runs pytest on some text in a process of its own; without what is installed beside, so that the plugin is loaded once."""
    (folder / "test_it.py").write_text(TRAININGS + text)
    plugin = [
        "-p",
        "unstuck.integrations.pytest_plugin",
        "--strict-markers",
        "--junitxml",
        "r.xml",
        "--basetemp",
        "temporary",
    ]
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", ".", *plugin, *options, "test_it.py"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    cases = {case.attrib["name"]: case for case in ElementTree.parse(folder / "r.xml").getroot().iter("testcase")}
    kinds = {
        name: next((part.tag for part in case if part.tag in ("failure", "error", "skipped")), "passed")
        for name, case in cases.items()
    }
    properties = {
        name: {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")} for name, case in cases.items()
    }
    texts = {name: "".join(case.itertext()) for name, case in cases.items()}
    return SimpleNamespace(printed=done.stdout, kinds=kinds, properties=properties, texts=texts, folder=folder)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A session with tests of all kinds."""
    return session_of(
        MARKED + MANY, tmp_path_factory.mktemp("many"), "--unstuck-runs", "runs", "-W", "error::ResourceWarning"
    )


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs pytest in this process, on what trains nothing."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess("--strict-markers", *options, plugins=[pytest_plugin])

    return run


def test_its_severities_are_those_of_findings() -> None:
    assert list(pytest_plugin._LIMITS) == [*SEVERITIES, "never"]


@pytest.mark.slow
def test_it_is_installed_by_entry_point_and_imports_nothing_of_weight() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\nunstuck = "unstuck.integrations.pytest_plugin"' in text
    code = "import sys, pytest; before = {*sys.modules}; import unstuck.integrations.pytest_plugin; print(*sorted({*sys.modules} - before))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["unstuck", "unstuck.integrations", "unstuck.integrations.pytest_plugin"]


def test_without_being_asked_it_does_nothing(session) -> None:
    result = session("def test_it(): pass", "-v")
    result.assert_outcomes(passed=1)
    assert not [line for line in result.outlines if re.match(r"=+ unstuck", line)]


@pytest.mark.parametrize(
    ("marker", "says"),
    [("fail_on='fatal'", "must be one of error, warning, note, never"), ("budget='much'", "must be a share"),
     ("'warning'", "takes its settings by name"), ("fail='note'", "doesn't know fail")],
)  # fmt: skip
def test_a_marker_that_makes_no_sense_fails_its_test(session, marker: str, says: str) -> None:
    result = session(f"import pytest\n@pytest.mark.unstuck({marker})\ndef test_it(): pass\n")
    result.assert_outcomes(failed=1)
    assert says in "\n".join(result.outlines)


@pytest.mark.parametrize("options", [["-o", "unstuck_fail_on=fatal"], ["--unstuck-fail-on", "fatal"]])
def test_a_setting_that_makes_no_sense_is_refused(session, options: list[str]) -> None:
    assert session("def test_it(): pass", *options).ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.slow
def test_only_tests_that_ask_fail_and_only_when_it_is_severe(many: SimpleNamespace) -> None:
    assert many.kinds == {
        "test_healthy": "passed", "test_sick": "failure", "test_not_asked": "passed", "test_never": "passed",
        "test_note": "failure", "test_fixture": "passed", "test_own": "failure", "test_skipped": "skipped",
        "test_expected": "skipped", "test_nothing": "passed", "test_warns": "passed",
        "test_method": "failure", "test_method_own": "failure",
        "test_broken": "error",
    }, many.printed  # fmt: skip
    assert many.properties["test_not_asked"] == many.properties["test_skipped"] == {}


@pytest.mark.slow
def test_a_sick_training_fails_its_test_with_the_report_and_the_record(many: SimpleNamespace) -> None:
    text = many.texts["test_sick"]
    assert "✗ SICK" in text and "test_it.py::test_sick can't train" in " ".join(text.split())
    assert "loss-broadcast  error" in text and "Traceback" not in text
    told = many.properties["test_sick"]
    assert told["unstuck"] == "sick: loss-broadcast (error)"
    record = Record.read(told["unstuck_record"])
    assert Path(told["unstuck_record"]).is_relative_to(many.folder / "runs")
    assert (record.steps, record.meta["script"], record.meta["verdict"]) == (120, "test_it.py::test_sick", "sick")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_own", "test_method_own"])
def test_a_test_that_fails_by_itself_tells_both(many: SimpleNamespace, name: str) -> None:
    assert "its own" in many.texts[name]
    section = many.printed.split(f"{name} ___", 1)[1]
    assert "its own" in section and "Captured unstuck call" in section and "✗ SICK" in section


@pytest.mark.slow
def test_the_end_lists_what_is_not_healthy(many: SimpleNamespace) -> None:
    summary = re.split(r"=+ unstuck =+", many.printed)[1]
    assert "11 watched, 3 of them healthy" in summary
    assert "test_it.py::test_never: sick: loss-broadcast (error)" in summary
    assert many.properties["test_sick"]["unstuck_record"] in summary and "test_healthy" not in summary


@pytest.mark.slow
def test_where_nothing_trains_it_warns(many: SimpleNamespace) -> None:
    assert "UnstuckWarning: unstuck can't judge the training in this test: no training was seen" in many.printed
    assert many.properties["test_nothing"]["unstuck"] == "unknown"


@pytest.mark.slow
def test_experiments_on_copies_warn_of_nothing(many: SimpleNamespace) -> None:
    record = Record.read(many.properties["test_warns"]["unstuck_record"])
    assert record.happened("probe") and not any("error" in event.data for event in record.happened("probe"))
    assert "of its own" not in many.printed


@pytest.mark.slow
def test_workers_of_xdist_tell_as_much_and_an_option_decides(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    result = session_of(MARKED, tmp_path, "-p", "xdist", "-n", "2", "--unstuck-fail-on", "never")
    assert set(result.kinds.values()) == {"passed"}
    assert "2 watched, 1 of them healthy" in result.printed
    assert Record.read(result.properties["test_sick"]["unstuck_record"]).steps == 120
    assert list((tmp_path / "temporary").glob("*/unstuck/*/record.sqlite"))


@pytest.mark.slow
def test_a_setting_decides_where_no_option_does(tmp_path: Path) -> None:
    result = session_of(MARKED, tmp_path, "-o", "unstuck_fail_on=never", "-o", "unstuck_runs=kept", "-k", "sick")
    assert result.kinds == {"test_sick": "passed"}
    assert list((tmp_path / "kept").glob("*/record.sqlite"))
