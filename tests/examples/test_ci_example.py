"""The action and the workflow: they are YAML of the right form, and the action's steps do what they say when a shell runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
FOLDER = Path(__file__).parents[2] / "examples" / "ci"
ACTION = yaml.safe_load((FOLDER / "action.yml").read_text())
WORKFLOW = yaml.safe_load((FOLDER / "workflow.yml").read_text())
SICK = """
import sys, torch
torch.manual_seed(0)
x = torch.randn(64, 8)
net = torch.nn.Linear(8, 3)
optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
for step in range(int(sys.argv[2])):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(net(x)[:, :1], x[:, 0]).backward()
    optimizer.step()
"""


def train(tmp_path: Path, **inputs: str) -> tuple[int, dict[str, str], str]:
    """Runs the step that trains as GitHub does, with our own interpreter first; its exit code, outputs and summary."""
    step = ACTION["runs"]["steps"][1]
    given = {name: told.get("default", "") for name, told in ACTION["inputs"].items()} | {
        name.replace("_", "-"): value for name, value in inputs.items()
    }
    told = {name: given[re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value)[1]] for name, value in step["env"].items()}  # type: ignore[index]
    (tmp_path / "bin").mkdir()
    for name, command in (("python", sys.executable), ("unstuck", f"{sys.executable} -m unstuck")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    environment = {**os.environ, **files, **told, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "step.sh").write_text(step["run"])
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "step.sh"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, timeout=300, check=False)
    outputs, summary = (Path(file).read_text() if Path(file).exists() else "" for file in files.values())
    return done.returncode, dict(line.split("=", 1) for line in outputs.splitlines()), summary


def test_the_action_is_a_composite_one_whose_parts_fit() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert all(step["shell"] == "bash" and "${{" not in step["run"] for step in ACTION["runs"]["steps"])
    used = re.findall(r"inputs\.([\w-]+)", json.dumps(ACTION["runs"]))
    assert set(used) == set(ACTION["inputs"])
    ids = {step.get("id") for step in ACTION["runs"]["steps"]}
    assert all(re.search(r"steps\.(\w+)\.", told["value"])[1] in ids for told in ACTION["outputs"].values())  # type: ignore[index]


def test_the_workflow_uses_the_action_as_it_is() -> None:
    steps = WORKFLOW["jobs"]["train"]["steps"]
    (own,) = (step for step in steps if step.get("uses", "").startswith("./"))
    assert set(own["with"]) <= set(ACTION["inputs"])
    assert (
        ACTION["inputs"]["folder"]["default"]
        == next(s for s in steps if "artifact" in s.get("uses", ""))["with"]["path"]
    )


def test_the_page_shows_the_workflow_as_it_is() -> None:
    page = (FOLDER.parents[1] / "docs" / "ci.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert shown == "".join((FOLDER / "workflow.yml").read_text().splitlines(keepends=True)[1:])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_a_sick_training_fails_the_step_and_leaves_its_reports(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SICK)
    code, outputs, summary = train(tmp_path, script="train.py", arguments="--steps 120", options="--probe-budget 0")
    assert code == 3
    assert outputs == {"verdict": "sick", "cause": "loss-broadcast"}
    assert summary.startswith("## ✗ SICK: train.py")
    report = tmp_path / "unstuck-report"
    (result,) = [
        r for r in json.loads((report / "unstuck.sarif").read_text())["runs"][0]["results"] if r["level"] == "error"
    ]
    place = result["locations"][0]["physicalLocation"]
    assert (result["ruleId"], place["artifactLocation"]["uri"]) == ("loss-broadcast", "train.py")
    assert "<html" in (report / "page.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_what_never_trains_passes_and_what_is_missing_fails(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('hello')")
    code, outputs, summary = train(tmp_path, script="train.py")
    assert (code, outputs, summary) == (0, {"verdict": "unknown", "cause": ""}, "")
    shutil.rmtree(tmp_path / "bin")
    shutil.rmtree(tmp_path / "unstuck-report")
    assert train(tmp_path, script="nowhere.py")[0] == 2
