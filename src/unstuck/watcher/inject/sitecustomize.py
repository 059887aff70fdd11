"""Python runs this before a script that `unstuck run` started, as its folder comes first in PYTHONPATH.

It takes itself out of the way (path, module), runs the user's own sitecustomize if there is one, and asks the bootstrap to
attach the watcher once torch has been imported. Python itself does all the rest, so argv, sys.path, `__main__` and
tracebacks are as ever.
"""

import os
import sys


def _step_aside() -> None:
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs 10 ms at start
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or os.curdir) != here]  # noqa: PTH100
    ours = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # noqa: F401  # pyright: ignore[reportMissingImports] - the user's own, which ours shadowed
    except ImportError as error:
        sys.modules["sitecustomize"] = ours  # the import system wants it while it is being imported
        if error.name != "sitecustomize":
            raise


def _watch() -> None:
    if "UNSTUCK_RUN" not in os.environ:
        return
    try:
        from unstuck.watcher import bootstrap
    except ImportError:  # an interpreter of another environment, started by the script: not ours to watch
        return
    bootstrap.prepare()


_step_aside()
_watch()
