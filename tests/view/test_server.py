"""The command: it says where it serves, takes the next free port, ends at once, and says plainly what it can't do."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import unstuck.cli._view
from unstuck.errors import MisuseError, RecordError
from unstuck.view.server import address_of, bind

PATIENCE = 60


@pytest.fixture
def view(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts `unstuck view` and waits for its address."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "unstuck", "view", "--no-open", *arguments]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
        started.append(child)
        assert child.stdout is not None
        said = ""
        for line in child.stdout:
            said += line
            if " on http" in line:
                return child, said
        raise AssertionError(f"it ended: {said}")

    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_though_a_page_listens(view: Any, grow: Callable[..., Any], folder: Path, how: int) -> None:
    grow("20250101-000000-run").grow(5)
    child, said = view("--port", "0", "--runs", str(folder))
    port = int(re.search(r"127\.0\.0\.1:(\d+)", said)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/changes?run=20250101-000000-run")
    answer = connection.getresponse()
    assert b"retry" in answer.readline()
    read: list[bytes] = []
    listening = threading.Thread(target=lambda: read.append(answer.read()), daemon=True)
    listening.start()
    child.send_signal(how)
    rest, _ = child.communicate(timeout=PATIENCE)
    listening.join(PATIENCE)
    assert b"5 steps" in read[0]  # the stream came to an orderly end
    assert child.returncode == (0 if how == signal.SIGINT else -how)
    assert rest == ("unstuck: the view has ended\n" if how == signal.SIGINT else "")
    connection.close()


@pytest.mark.slow
def test_torch_is_not_loaded() -> None:
    code = "import sys, unstuck.view.server, unstuck.cli; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=PATIENCE).returncode == 0


@pytest.mark.slow
def test_a_run_by_its_name_and_one_from_elsewhere(view: Any, grow: Callable[..., Any], folder: Path) -> None:
    grow("20250101-000000-run").grow(5)
    grow("../elsewhere/mine").grow(5)
    _, said = view("--port", "0", "--runs", str(folder), "20250101-000000-run")
    assert "/runs/20250101-000000-run (Ctrl-C" in said
    port = int(re.search(r":(\d+)/", said)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/runs/20250101-000000-run")
    assert connection.getresponse().status == 200
    connection.close()
    _, said = view("--port", "0", str(folder.parent / "elsewhere" / "mine" / "record.sqlite"))
    assert "/runs/mine (Ctrl-C" in said


def test_the_next_free_port_is_taken() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] <= port + 50


def test_what_can_not_be_bound_to_is_said() -> None:
    with pytest.raises(MisuseError, match=r"'no\.such\.host\.invalid', which is no address of this machine"):
        bind("no.such.host.invalid", 0)
    with pytest.raises(
        MisuseError, match=r"can't serve on 192\.0\.2\.1, port 8765"
    ):  # kept for documentation, nobody has it
        bind("192.0.2.1", 8765)


def test_addresses() -> None:
    assert address_of("127.0.0.1", 8765, "", "") == "http://127.0.0.1:8765/"
    assert address_of("::1", 8765, "a b/c", "") == "http://[::1]:8765/runs/a%20b%2Fc"
    assert address_of("0.0.0.0", 80, "", "secret") == f"http://{socket.gethostname()}:80/?token=secret"


def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would be served."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        "unstuck.view.server.serve",
        lambda runs, **given: told.update(given, folder=runs.folder, only=runs.only),
    )
    return told


def show(run: str | Path | None, folder: Path) -> None:
    path = None if run is None else Path(run)
    unstuck.cli._view.view(path, folder, host="127.0.0.1", port=0, token=False, opens=False)


def test_which_run_is_meant(
    tmp_path: Path, folder: Path, grow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = served(monkeypatch)
    run = grow("20250101-000000-run").path
    other = grow("../elsewhere/mine").path
    show(None, folder)
    assert (told["only"], told["first"]) == (None, "")
    for given in ("20250101-000000-run", run, run / "record.sqlite"):
        show(given, folder)
        assert (told["only"], told["first"]) == (None, "20250101-000000-run")
    for given in (other, other / "record.sqlite"):
        show(given, folder)
        assert (told["only"], told["first"]) == (other, "mine")
    with pytest.raises(MisuseError, match=r"there is no run 'nothing'; `unstuck runs --runs .*` lists those there are"):
        show("nothing", folder)
    with pytest.raises(MisuseError, match=r"is a folder of runs: unstuck view --runs .*runs"):
        show(folder, tmp_path / "other")
    (tmp_path / "notes.md").write_text("no record")
    with pytest.raises(RecordError, match=r"notes\.md"):
        show(tmp_path / "notes.md", folder)
    with pytest.raises(MisuseError, match=r"is a file, not a folder of runs"):
        show(None, run / "record.sqlite")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(unstuck.cli._view, "_NEEDED", ("starlette", "no_such_package"))
    with pytest.raises(ImportError, match=r"the live view needs no_such_package: pip install 'unstuck\[view\]'"):
        show(None, tmp_path)
