"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import unstuck

MODULES = [
    "unstuck",
    *(m.name for m in pkgutil.walk_packages(unstuck.__path__, "unstuck.") if not m.name.endswith("__main__")),
]
OTHERS = ("unstuck.integrations",)  # need packages that may not be there


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str):
    module = (
        pytest.importorskip(name, exc_type=ImportError) if name.startswith(OTHERS) else importlib.import_module(name)
    )
    assert doctest.testmod(module).failed == 0
