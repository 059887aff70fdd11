"""Children that begin with torch imported: the other side of `watcher.nursery`."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import select
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from unstuck._language import say
from unstuck.errors import UnstuckError

_SERVER = Path(__file__).parents[1] / "watcher" / "nursery.py"
_KNOWN = (
    "numpy",
    "scipy",
    "sklearn",
    "pandas",
    "matplotlib",
    "PIL",
    "torchvision",
    "torchaudio",
    "transformers",
    "lightning",
)


class Child(Protocol):
    """A process, as `subprocess.Popen` gives it."""

    @property
    def pid(self) -> int:
        """Its number, and that of its group."""
        ...

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        ...

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        ...


class Nursery:
    """A process that has imported torch, and what else a script imports of what is slow to import; its copies make the trials.

    It is begun with the first that is wanted, and ends with this process at the latest, and all its copies with it.

    Args:
        modules: What it imports beside torch.

    Raises:
        UnstuckError: It can't be started.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self.modules = tuple(modules)
        self.codes: dict[int, int] = {}  # of copies that have ended, by their orders
        self.pids: dict[int, int] = {}  # of copies that have begun
        self._server: subprocess.Popen[bytes] | None = None
        self._finalizer: Callable[[], Any] | None = None
        self._waiting = b""
        self._orders = 0

    @staticmethod
    def possible() -> bool:
        """Whether processes can be copied here as they must be."""
        return sys.platform == "linux"

    def begin(self, command: Sequence[str], environment: dict[str, str], output: Path, threads: int) -> Child:
        """Begins a copy that runs a script.

        Args:
            command: The script and its arguments.
            environment: Its whole environment.
            output: Where what it prints goes.
            threads: Of the processor.

        Raises:
            UnstuckError: It can't be started.
        """
        server = self._begun(environment)
        self._orders += 1
        order = {
            "order": self._orders, "command": list(command), "environment": environment, "output": str(output.absolute()),
            "folder": str(Path.cwd()), "threads": threads,
        }  # fmt: skip
        try:
            server.stdin.write(json.dumps(order).encode() + b"\n")  # pyright: ignore[reportOptionalMemberAccess]
            server.stdin.flush()  # pyright: ignore[reportOptionalMemberAccess]
        except OSError as error:
            raise UnstuckError(say("the script can't be started: {error}", error=str(error))) from None
        return _Copy(self, self._orders)

    def _begun(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        if self._server is None or self._server.poll() is not None:
            self._lost()
            given = {k: v for k, v in environment.items() if k not in ("UNSTUCK_RUN", "PYTHONPATH", "MPLBACKEND")}
            if "PYTHONPATH" in os.environ:
                given["PYTHONPATH"] = os.environ["PYTHONPATH"]
            try:
                self._server = subprocess.Popen(
                    [sys.executable, str(_SERVER), *self.modules],
                    env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise UnstuckError(say("the script can't be started: {error}", error=str(error))) from None
            self._finalizer = weakref.finalize(self, _end, self._server)
        return self._server

    def listen(self, seconds: float = 0.0) -> None:
        """Takes in what has become of the copies.

        Args:
            seconds: To wait for it.
        """
        server = self._server
        assert server is not None, "a copy was asked of a nursery that never began"
        assert server.stdout is not None
        while select.select([server.stdout], [], [], seconds)[0]:
            got = os.read(server.stdout.fileno(), 1 << 16)
            if not got:
                self._lost()
                return
            *lines, self._waiting = (self._waiting + got).split(b"\n")
            for line in lines:
                self._heard(json.loads(line))
            seconds = 0.0

    def _lost(self) -> None:
        """It is gone, and its copies with it."""
        self.codes = {order: -9 for order in range(1, self._orders + 1)} | self.codes
        self._waiting = b""

    def _heard(self, words: dict[str, int]) -> None:
        if "code" in words:
            self.codes[words["order"]] = words["code"]
        else:
            self.pids[words["order"]] = words["pid"]

    def close(self) -> None:
        """Ends it, and all copies."""
        if self._finalizer is not None:
            self._finalizer()
        self._server = self._finalizer = None


def _end(server: subprocess.Popen[bytes]) -> None:
    for pipe in (server.stdin, server.stdout):
        with contextlib.suppress(OSError):
            pipe.close() if pipe is not None else None
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(timeout=5)
    if server.poll() is None:
        server.kill()
        server.wait()


class _Copy:
    """A copy, as a `Child`."""

    def __init__(self, nursery: Nursery, order: int) -> None:
        self.nursery, self.order = nursery, order

    @property
    def pid(self) -> int:
        """Number of the process, once it has begun.

        Raises:
            ProcessLookupError: It never will.
        """
        while self.order not in self.nursery.pids:
            if self.poll() is not None:
                raise ProcessLookupError(f"order {self.order} was lost before it began")
            self.nursery.listen(1.0)
        return self.nursery.pids[self.order]

    def poll(self) -> int | None:
        self.nursery.listen()
        return self.nursery.codes.get(self.order)

    def wait(self) -> int:
        while (code := self.poll()) is None:
            self.nursery.listen(1.0)
        return code


def imported(script: str) -> list[str]:
    """What a script imports that is slow to import, known, and not the user's own: "sklearn.datasets"."""
    try:
        tree = ast.parse(Path(script).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and not n.level]
    return [name for name in dict.fromkeys(names) if name.partition(".")[0] in _KNOWN]
