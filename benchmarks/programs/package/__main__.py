"""Run as `python -m package`, with imports relative to itself and the module in front of the path."""

import sys
from pathlib import Path

import digest

from .inner import train

print(__name__, __package__, __spec__.name, [Path(a).name for a in sys.argv], Path(sys.path[0]).name)
digest.show(train())
