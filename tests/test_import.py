"""`import unstuck` is cheap and leaves torch alone; its names arrive when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import unstuck


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("module", ["torch", "numpy", "rich", "typer", "jinja2", "ray", "matplotlib"])
def test_import_leaves_heavy_packages_alone(module: str):
    assert run(f"import sys, unstuck; print({module!r} in sys.modules)") == "False"


@pytest.mark.parametrize("name", ["unstuck.evidence", "unstuck.verdict", "unstuck.errors", "unstuck._discover"])
def test_the_ground_floor_leaves_torch_alone(name: str):
    assert run(f"import sys, {name}; print('torch' in sys.modules)") == "False"


def test_import_takes_little_time():
    # It takes 2 ms, numpy 100 ms, torch over a second. The best of three, since others use the machine too.
    code = "import time; t = time.perf_counter(); import unstuck; print(time.perf_counter() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.05


def test_version_is_that_of_the_distribution():
    assert unstuck.__version__[0].isdigit()


def test_names_are_listed_before_they_are_used():
    assert run("import unstuck; print({'Record', 'diagnose', 'watch'} <= set(dir(unstuck)))") == "True"


def test_names_are_those_of_their_homes():
    from unstuck.evidence import Record

    assert unstuck.Record is Record


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'unstuck' has no attribute 'nothing'"):
        unstuck.nothing  # noqa: B018
