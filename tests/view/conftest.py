"""Runs that are written by hand, and a real server of them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from unstuck.evidence import Layer, Model, Optimizer, Parameter, Program, Task
from unstuck.store import Writer
from unstuck.view.app import View
from unstuck.view.guard import Door
from unstuck.view.runs import Runs
from unstuck.view.server import Server, bind

LOSS = (("loss", ""), ("score", ""), ("grad_norm", ""), ("lr", ""))
LAYERS = ("net.0", "net.2")
PATIENCE = 60.0  # seconds a test waits for what must come


def wait_for(happens: Callable[[], Any], what: str) -> Any:
    """What a condition gives, when it gives something."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        got = happens()
        if got:
            return got
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def program(rate: float = 0.1) -> Program:
    return Program(
        models=(Model("net", "Sequential", 1234),),
        layers=tuple(Layer(name, "linear", "Linear", "train.py:3", (), (f"{name}.weight",), (32, 10)) for name in LAYERS),
        parameters=tuple(Parameter(f"{name}.weight", (10, 10), (name,)) for name in LAYERS),
        optimizers=(Optimizer("SGD", "torch.optim.sgd", {"lr": rate, "momentum": 0.9}, 100, 1, 1234),),
        task=Task("classification", 10, "accuracy", 2.303, 0.1),
    )  # fmt: skip


class Growing:
    """A run that is being written, in this process."""

    def __init__(self, folder: Path, **meta: Any) -> None:
        folder.mkdir(parents=True)
        self.path, self.step, self.is_open = folder, 0, True
        self.writer = Writer(folder / "record.sqlite", meta={"script": "train.py", **meta}, flush_every=60.0)
        self.writer.program(program().to_json())

    def grow(self, steps: int, *, rate: float = 0.1, scale: float = 1.0) -> None:
        for _ in range(steps):
            loss = 2.3 * 0.99**self.step * scale
            self.writer.row(self.step, LOSS, [loss, 1 - loss / 2.4, loss, rate])
            if self.step % 10 == 0:
                columns = [(s, n) for n in LAYERS for s in ("back_rms", "act_std")]
                columns += [("update_ratio", f"{name}.weight") for name in LAYERS]
                self.writer.sample(self.step, tuple(columns), [scale * 1e-3, 1.0, 1e-2, 1.0, 1e-3, 1e-3])
            self.step += 1
        told = {"step": self.step, "loss": 2.3 * 0.99**self.step, "score": 0.5, "score_name": "accuracy"}
        self.writer.note(progress=told, steps=self.step, seconds=self.step * 0.01)
        assert self.writer.flush(PATIENCE)

    def end(self, status: str = "finished", **meta: Any) -> None:
        self.writer.close(status=status, **meta)


@dataclass
class Served:
    """A server that runs in a thread."""

    view: View
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None, host: str | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of one answer; the path goes out as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", f"127.0.0.1:{self.port}" if host is None else host)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, told, answer.read().decode()

    def listen(self, path: str) -> Iterator[dict[str, Any]]:
        """What a stream tells, until it ends."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))


Serve = Callable[..., Served]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of runs."""
    return tmp_path / "runs"


@pytest.fixture
def grow(folder: Path) -> Iterator[Callable[..., Growing]]:
    """Starts runs, and ends those a test leaves open."""
    made: list[Growing] = []

    def start(name: str = "20250304-102231-train", **meta: Any) -> Growing:
        made.append(Growing(folder / name, **meta))
        return made[-1]

    yield start
    for run in made:
        run.end()


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    """Serves the folder of runs, until the test ends."""
    started: list[tuple[Server, threading.Thread]] = []

    def start(*, runs: Runs | None = None, host: str = "127.0.0.1", token: bool = False, every: float = 0.05) -> Served:
        bound = bind("127.0.0.1", 0)
        port = bound.getsockname()[1]
        door = Door.of(host, port, token=token)
        view = View(runs or Runs(folder), door, every=every)
        server = Server(view)
        context = contextvars.copy_context()  # which language is spoken
        thread = threading.Thread(target=context.run, args=(asyncio.run, server.serve([bound])), daemon=True)
        thread.start()
        started.append((server, thread))
        wait_for(lambda: server.started, "the server")
        return Served(view, port, door.token)

    yield start
    for server, thread in started:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()
