"""The user has a sitecustomize of their own on PYTHONPATH."""

import sys

import digest
import tiny

print(from_site, sys.modules["sitecustomize"].__doc__)  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
digest.show(tiny.train()[0])
