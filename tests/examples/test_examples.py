"""Every example runs as its users would run it and ends as its page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# What the last line may say. The bounds leave room for other kernels and versions, not for another outcome.
OUTCOMES = {
    "broadcast_regression": (-1.0, 0.2),
    "dead_relu": (0.05, 0.6),
    "deep_sigmoid": (0.05, 0.15),
    "diverging_rate": (0.05, 0.2),
    "forgot_zero_grad": (0.05, 0.5),
    "forgotten_parameters": (0.3, 0.8),
    "healthy_cnn": (0.96, 1.0),
    "healthy_handwritten": (0.95, 1.0),
    "nan_log": (0.3, 0.7),
    "softmax_twice": (0.1, 0.85),
    "sunspots_lstm": (0.75, 1.0),
}
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def test_every_example_has_its_outcome_here_and_its_row_on_the_page():
    names = [script.stem for script in SCRIPTS]
    rows = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert names == sorted(OUTCOMES) == sorted(rows)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_says_in_one_line_what_is_wrong_and_does_not_know_who_watches(script: Path):
    text = script.read_text()
    assert re.match(r'"""[^"\n]+\."""\n\n', text)
    assert "unstuck" not in text


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_ends_as_claimed(script: Path, tmp_path: Path):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    found = re.fullmatch(r"final (?:test|validation) (?:accuracy|R2) (-?[\d.]+)", last)
    assert found, last
    low, high = OUTCOMES[script.stem]
    assert low <= float(found[1]) <= high
    assert ("nan" in done.stdout) == (script.stem == "nan_log")
