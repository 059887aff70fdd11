"""Your network won't train: find out why.

`watch` watches a training in this process, `diagnose` judges a record, `Record` reads one; a `Training` is one as objects, which `cure`
treats. They are imported when first used, so that `import unstuck` costs next to nothing and never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unstuck.curing import cure
    from unstuck.doctor import diagnose
    from unstuck.evidence import Record
    from unstuck.training import Training
    from unstuck.watching import watch

__version__ = "0.1.0.dev0"
__all__ = ["Record", "Training", "__version__", "cure", "diagnose", "watch"]

_HOMES = {
    "Record": "unstuck.evidence",
    "Training": "unstuck.training",
    "cure": "unstuck.curing",
    "diagnose": "unstuck.doctor",
    "watch": "unstuck.watching",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unstuck' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
