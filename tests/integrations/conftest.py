"""Runs a program once under `unstuck run` and once with the callback in it, and compares what is found."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ALL = """
import runpy, sys
program, folder, *kinds = sys.argv[1:]
for kind in kinds:
    sys.argv = [program, kind, f"{folder}/callback-{kind}.json"]
    runpy.run_path(program, run_name="__main__")
"""


def _launch(command: list[str], folder: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.fixture
def both_ways(tmp_path):
    """Runs a program unmodified and with its callback, and gives the verdicts of both, by kind.

    The program takes its kind, and with a callback the file for the verdict: `sys.argv[1]`, `sys.argv[2]`. Both ways look at the steps
    that are looked at in any case, and make no experiments, so that nothing hangs on the machine's speed: `budget=0.0, probe_budget=0.0`.
    """

    def run(text, *kinds):
        program = tmp_path / "program.py"
        program.write_text(text)
        found = {}
        _launch(["-c", _ALL, str(program), str(tmp_path), *kinds], tmp_path)
        for kind in kinds:
            file = tmp_path / f"script-{kind}.json"
            options = ["--quiet", "--budget", "0", "--probe-budget", "0", "--json", str(file), "--runs", str(tmp_path)]
            _launch(["-m", "unstuck", "run", *options, str(program), kind], tmp_path)
            found[kind] = json.loads(file.read_text()), json.loads((tmp_path / f"callback-{kind}.json").read_text())
        return found

    return run


def _told(verdict):
    return [
        (f["cause"], f["rule"], f["severity"], f["layers"], f.get("explains"), [e["layer"] for e in f["evidence"]])
        for f in verdict["findings"]
    ]


@pytest.fixture
def assert_same():
    """Says whether two verdicts are the same in causes, severities, layers and steps, and their numbers within a hundredth."""

    def same(script, callback):
        assert callback["verdict"] == script["verdict"]
        assert callback["run"]["steps"] == script["run"]["steps"]
        assert _told(callback) == _told(script)
        for one, other in zip(script["findings"], callback["findings"], strict=True):
            assert other["confidence"] == pytest.approx(one["confidence"], abs=0.02), one["cause"]
            for a, b in zip(one["evidence"], other["evidence"], strict=True):
                assert (a["signal"], a["step"]) == (b["signal"], b["step"])
                values = [math.nan if e["value"] is None else e["value"] for e in (a, b)]
                # one program, one seed: only sums in another order, of numbers that grew without bound, may differ
                assert values[1] == pytest.approx(values[0], rel=0.01, nan_ok=True), a

    return same
