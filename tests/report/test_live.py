"""The line at the foot of the terminal: in a pseudo-terminal for what is written, in tmux for what is seen."""

from __future__ import annotations

import contextlib
import io
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

pytest.importorskip("pty", reason="there are no pseudo-terminals on this system")
import fcntl
import pty
import struct
import termios

from unstuck.report import live
from unstuck.report.live import LiveLine

SOURCE = str(Path(live.__file__).parents[2])
HANDLED = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH)


class Terminal:
    """A pseudo-terminal: the stream that is drawn to, and what came out of it."""

    def __init__(self, rows: int = 10, columns: int = 60) -> None:
        self.master, slave = pty.openpty()
        self.stream: TextIO = os.fdopen(slave, "w", encoding="utf-8")
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> str:
        text = b""
        while select.select([self.master], [], [], 0.05)[0]:
            text += os.read(self.master, 65536)
        return text.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(live, "INTERVAL", 0.0)
    made = Terminal()
    yield made
    with contextlib.suppress(OSError):
        made.stream.close()
    os.close(made.master)


def test_the_last_row_is_kept_back_and_given_back(terminal: Terminal) -> None:
    line = LiveLine(terminal.stream)
    line.start()
    assert terminal.read().startswith("\x1bD\x1b7\r\x1b[J\x1b[1;9r\x1b8\x1b[A\x1b7\x1b[10;1H")
    line.update({"step": 7, "loss": 2.31, "score": {"name": "accuracy", "last": 0.5}, "elapsed": 75})
    drawn = terminal.read()
    assert "unstuck │ step 7 │ loss 2.31 │ accuracy 0.500 │ 1:15" in drawn
    assert drawn.startswith("\x1b7\x1b[10;1H")
    assert drawn.endswith("\x1b[K\x1b8")
    assert "r" not in drawn.replace("accuracy", "")  # the region is made once
    line.stop()
    assert terminal.read() == "\x1b7\x1b[r\x1b[10;1H\x1b[2K\x1b8"
    line.stop()
    line.update({"step": 8})
    assert not terminal.read()


def test_it_is_given_back_on_an_exception(terminal: Terminal) -> None:
    with pytest.raises(RuntimeError), LiveLine(terminal.stream):
        raise RuntimeError
    assert terminal.read().endswith("\x1b7\x1b[r\x1b[10;1H\x1b[2K\x1b8")


def test_signals_are_as_they_were_afterwards(terminal: Terminal) -> None:
    before = [signal.getsignal(number) for number in HANDLED]
    with LiveLine(terminal.stream):
        assert signal.getsignal(signal.SIGWINCH) is not signal.SIG_DFL
    assert [signal.getsignal(number) for number in HANDLED] == before


def test_a_handler_of_someone_else_stays(terminal: Terminal) -> None:
    def mine(*_: Any) -> None: ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with LiveLine(terminal.stream):
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_change_of_size_makes_a_new_region(terminal: Terminal) -> None:
    with LiveLine(terminal.stream) as line:
        terminal.read()
        terminal.resize(20, 40)
        line.update({"step": 1})
        drawn = terminal.read()
        assert drawn.startswith("\x1b7\x1b[r\x1b8")
        assert "\x1b[1;19r" in drawn
        assert "\x1b[20;1H" in drawn
        os.kill(os.getpid(), signal.SIGWINCH)
        assert terminal.read()  # drawn at once, without an update
        terminal.resize(3, 40)  # too small to keep a row back
        line.update({"step": 2})
        assert terminal.read() == "\x1b7\x1b[r\x1b[20;1H\x1b[2K\x1b8"


@pytest.mark.parametrize("columns", [20, 33, 60, 200])
def test_the_line_never_wraps(terminal: Terminal, columns: int) -> None:
    terminal.resize(10, columns)
    with LiveLine(terminal.stream) as line:
        terminal.read()
        line.update(
            {"step": 123_456, "loss": 1e-9, "score": 0.5, "score_name": "精度", "overhead": 0.02, "note": "n" * 300}
        )
        text = terminal.read().split("H", 1)[1].split("\x1b", 1)[0]
        assert len(text) < columns
        assert text.startswith("unstuck")


def test_updates_are_drawn_a_few_times_a_second(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 3600.0)
    with LiveLine(terminal.stream) as line:
        terminal.read()
        for step in range(100):
            line.update({"step": step})
        assert not terminal.read()


def test_odd_progress_is_survived(terminal: Terminal) -> None:
    with LiveLine(terminal.stream) as line:
        line.update({"step": None, "loss": float("nan"), "score": None, "note": "a\x1b[2Jb"})
        drawn = terminal.read()
    assert "loss NaN" in drawn
    assert "\x1b[2J" not in drawn


@pytest.mark.parametrize(
    ("since", "told"),
    [(0, "░░░░░░░░░░░░ about 0:30 left"), (10, "████░░░░░░░░ about 0:20 left"), (40, "████████████ nearly done")],
)
def test_what_is_measured_when_the_script_has_ended_tells_the_time_left(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, since: int, told: str
) -> None:
    monkeypatch.setattr(live.time, "time", lambda: 1000.0 + since)
    terminal.resize(10, 120)
    with LiveLine(terminal.stream) as line:
        line.update({"step": 7, "loss": 2.3})
        terminal.read()
        line.update({"measuring": {"what": "batch sizes", "since": 1000.0, "most": 30.0}})
        drawn = terminal.read()
    assert f"unstuck │ measuring batch sizes │ {told} │ Ctrl-C ends it │ step 7 │ loss 2.30" in drawn


@pytest.mark.parametrize(
    "odd", [{}, {"what": "a\x1b[2J"}, {"most": 0, "since": None}, {"since": 1e18, "most": -1}, None, 3]
)
def test_odd_measuring_is_survived(terminal: Terminal, odd: Any) -> None:
    with LiveLine(terminal.stream) as line:
        line.update({"measuring": odd})
        assert "\x1b[2J" not in terminal.read()


@pytest.mark.parametrize("why", ["disabled", "dumb", "no terminal", "no TERM"])
def test_silence(terminal: Terminal, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    if why == "no TERM":
        monkeypatch.delenv("TERM")
    stream = io.StringIO() if why == "no terminal" else terminal.stream
    before = signal.getsignal(signal.SIGWINCH)
    with LiveLine(stream, enabled=why != "disabled") as line:
        line.update({"step": 1})
        assert signal.getsignal(signal.SIGWINCH) is before
    assert not terminal.read()
    assert isinstance(stream, io.StringIO) is (why == "no terminal")
    assert not (stream.getvalue() if isinstance(stream, io.StringIO) else "")


def test_a_terminal_that_went_away_is_survived(terminal: Terminal) -> None:
    line = LiveLine(terminal.stream)
    line.start()
    terminal.stream.close()
    line.update({"step": 1})
    line.stop()


def test_a_terminal_that_is_full_is_not_waited_for(terminal: Terminal) -> None:
    os.set_blocking(terminal.stream.fileno(), False)
    with LiveLine(terminal.stream) as line:
        for step in range(3000):  # nobody reads: the buffer fills up
            line.update({"step": step})


DEMO = """
import subprocess, sys, time
from unstuck.report.live import LiveLine
child = subprocess.Popen([sys.executable, "-u", "-c", '''
import sys, time
for i in range(30):
    print("said", i)
sys.stderr.write("half a li"); sys.stderr.flush(); time.sleep(2); print("ne")
'''])
with LiveLine(sys.stderr) as line:
    step = 0
    while child.poll() is None:
        step += 1
        line.update({"step": step, "loss": 2.3})
        time.sleep(0.05)
print("the report")
"""


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
@pytest.mark.slow
def test_in_a_real_terminal_the_script_scrolls_above_the_line(tmp_path: Path) -> None:
    (tmp_path / "demo.py").write_text(DEMO)
    socket = ["tmux", "-S", str(tmp_path / "socket")]
    run = f"PYTHONPATH={SOURCE} {sys.executable} demo.py; sleep 30"
    subprocess.run(
        [*socket, "-f", "/dev/null", "new-session", "-d", "-x", "60", "-y", "12", "-c", str(tmp_path), run], check=True
    )
    try:
        shown = _until(socket, lambda lines: len(lines) == 12 and "loss 2.30" in lines[-1] and "half a li" in lines[-2])
        assert shown[:-2] == [f"said {i}" for i in range(20, 30)]
        subprocess.run([*socket, "resize-window", "-x", "50", "-y", "16"], check=True)
        shown = _until(socket, lambda lines: len(lines) == 16 and "loss 2.30" in lines[-1])
        assert sum("unstuck" in line for line in shown) == 1
        shown = _until(socket, lambda lines: any("the report" in line for line in lines))
        assert not any("unstuck" in line for line in shown)
        assert shown[-2:] == ["half a line", "the report"]
    finally:
        subprocess.run([*socket, "kill-server"], check=False)


def _until(socket: list[str], holds: Callable[[list[str]], bool], seconds: float = 20.0) -> list[str]:
    """What tmux shows as soon as it is as wanted."""
    lines: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        shown = subprocess.run([*socket, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout
        lines = shown.rstrip("\n").split("\n")
        if holds(lines):
            return lines
        time.sleep(0.02)
    raise AssertionError("\n".join(lines))


STOPPED = """
import os, signal, sys, time
from unstuck.report.live import LiveLine
line = LiveLine(sys.stderr)
line.start()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
"""


def test_a_process_told_to_stop_gives_the_row_back_and_dies_of_the_signal(terminal: Terminal) -> None:
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    done = subprocess.run(
        [sys.executable, "-c", STOPPED], stderr=terminal.stream, env=environment, timeout=30, check=False
    )
    assert done.returncode == -signal.SIGTERM
    assert terminal.read().endswith("\x1b7\x1b[r\x1b[10;1H\x1b[2K\x1b8")
