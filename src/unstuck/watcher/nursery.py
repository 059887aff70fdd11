"""Has imported what every training imports, and forks a copy of itself for each.

It is run as `python nursery.py MODULE...`. Importing torch takes longer than many a trial; here it is imported once. Orders come as
lines of JSON on standard input, what becomes of them goes out as lines of JSON on standard output: `{"order": 3, "pid": 71}` when a
copy has begun, `{"order": 3, "code": 0}` when it has ended. A copy is what a new interpreter would be after `import torch`: its own
process group, environment, folder and output, no thread, and no random number drawn. When standard input ends, so do all copies.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import threading
from typing import Any

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
# What every training imports: `torch._dynamo` when its first optimizer is made, and that takes as long as torch itself.
_ALL = ("torch", "torch._dynamo", "unstuck.source", "unstuck.watcher.session", "unstuck.watcher.survey")


def _main() -> None:
    orders, answers = os.dup(0), os.dup(1)  # 0 and 1 are those of the copies
    os.dup2(2, 1)
    if not sys.flags.safe_path:
        del sys.path[0]  # files beside this one are no modules
    for name in (*_ALL, *sys.argv[1:]):
        with contextlib.suppress(Exception):  # the script will say so, if it matters
            importlib.import_module(name)
    order = _serve(orders, answers)
    if order is not None:
        _become(order)


def _serve(orders: int, answers: int) -> dict[str, Any] | None:
    """Makes copies as ordered; returns the order in a copy, and nothing when no more are wanted."""
    wakes, wake = os.pipe()
    os.set_blocking(wakes, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever gives the orders decides
    before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    alive: dict[int, int] = {}  # orders, by the numbers of their processes
    waiting = b""
    gc.collect()
    gc.freeze()  # else the copies' collector copies all that torch has made
    while True:
        ready, _, _ = select.select([orders, wakes], [], [])
        if wakes in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wakes, 4096)
            _bury(alive, answers)
        if orders not in ready:
            continue
        got = os.read(orders, 1 << 16)
        if not got:
            for pid in alive:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            return None
        *lines, waiting = (waiting + got).split(b"\n")
        for line in lines:
            order = json.loads(line)
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(before)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for file in (orders, answers, wakes, wake):
                    os.close(file)
                return order
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.setpgid(pid, pid)  # it does so itself as well: whoever is first
            alive[pid] = order["order"]
            _tell(answers, order=order["order"], pid=pid)


def _bury(alive: dict[int, int], answers: int) -> None:
    """Tells of all copies that have ended."""
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        _tell(answers, order=alive.pop(pid), code=os.waitstatus_to_exitcode(status))


def _tell(answers: int, **words: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(answers, json.dumps(words).encode() + b"\n")


def _become(order: dict[str, Any]) -> None:
    """Makes this copy what was ordered, up to running it."""
    with contextlib.suppress(PermissionError):  # it leads one already, where the other was first
        os.setpgid(0, 0)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)  # when the one it is a copy of is killed
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for file, name in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(file, name)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    settings = json.loads(os.environ["UNSTUCK_RUN"])
    os.environ["UNSTUCK_RUN"] = json.dumps({**settings, "parent": os.getppid()})
    sys.argv = ["treated.py", *order["command"]]
    if not sys.flags.safe_path:
        sys.path.insert(0, "")  # which `treated` replaces by the script's folder
    gc.unfreeze()

    from unstuck.watcher import bootstrap

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(order["threads"])
    bootstrap.prepare()


def _made() -> int:
    """Runs the script in a copy; its exit code, as the interpreter would give it."""
    from unstuck.watcher import treated

    try:
        treated._main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001 - what the interpreter does with it
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _end(code: int) -> None:
    """Ends a copy as the interpreter ends, but for taking apart all that was imported, which takes longer than many a script."""
    threading._shutdown()  # waits for the script's threads  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _main()
    if len(sys.argv) > 1 and sys.argv[0] == "treated.py":
        _end(_made())
