"""The command line in a shell: examples in the help, completion, colour, what Ctrl-C does, and how long it takes still."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from unstuck._discover import find, names
from unstuck.cli import _bounded, main
from unstuck.cli._commands import program
from unstuck.cli._examples import EXAMPLES
from unstuck.cli._teller import Teller
from unstuck.verdict import CAUSES

COMMANDS = {command.name or command.callback.__name__: command for command in program("").registered_commands}
WAIT = 90.0  # seconds, on a slow machine


def help_of(*command: str) -> str:
    code = "import sys; sys.argv = ['unstuck', *sys.argv[1:], '--help']; from unstuck.cli import main; main()"
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, env=environment, check=True
    ).stdout


def complete(*words: str, shell: str = "bash", folder: Path | None = None) -> list[str]:
    """What a shell would offer for the last of these words."""
    code = "import sys; sys.argv = ['unstuck']; from unstuck.cli import main; main()\n"
    given = {
        "_UNSTUCK_COMPLETE": f"complete_{shell}", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": " ".join(words), "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert not done.stderr
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


# ---------------------------------------------------------------------- help


def test_every_command_has_examples_and_there_are_none_of_others() -> None:
    assert set(EXAMPLES) == {"", *COMMANDS}
    made = typer.main.get_command(program("")).commands
    assert all(command.epilog.startswith("\b\nExamples:\n") for command in made.values())


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, several in EXAMPLES.items() for line, _ in several])
def test_every_example_is_a_line_that_its_command_takes(name: str, line: str) -> None:
    words = _bounded(shlex.split(re.split(r" [|>] ", line)[0].removeprefix("unstuck ")))
    assert line.startswith("unstuck ") and (words[0] == name or (not name and words[0] in COMMANDS))
    command = typer.main.get_command(program(words[0])).commands[words[0]]
    context = command.make_context(words[0], words[1:], resilient_parsing=True)
    script = context.params.get("script") or []
    before = words[1 : len(words) - len(script)]
    offered = {option for parameter in command.params for option in parameter.opts} | {"--"}
    assert {word.split("=")[0] for word in before if word.startswith("-")} <= offered
    assert not context.args


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", *EXAMPLES])
def test_help_ends_with_the_examples_and_fits_on_80_columns(name: str) -> None:
    shown = help_of(*filter(None, [name]))
    assert max(map(len, shown.splitlines())) <= 80
    told = shown.split("\n  Examples:\n")[1].splitlines()
    assert [line.split("  ")[2] for line in told] == [line for line, _ in EXAMPLES[name]]


def test_one_command_alone_is_what_it_is_among_all() -> None:
    alone, all_of_them = (typer.main.get_command(made) for made in (program("run"), program("")))
    assert list(alone.commands) == ["run"] and set(all_of_them.commands) == set(COMMANDS)
    assert [p.opts for p in alone.commands["run"].params] == [p.opts for p in all_of_them.commands["run"].params]
    assert [p.opts for p in alone.params][:1] == [["--version"]]
    assert program("") is program("rnu")


# ---------------------------------------------------------------------- completion


def test_names_are_known_without_loading_what_they_name() -> None:
    assert names("rules") == sorted(find("rules"))


@pytest.mark.slow
def test_commands_options_and_choices_are_completed(tmp_path: Path) -> None:
    assert set(complete("unstuck", "")) == set(COMMANDS)
    assert complete("unstuck", "run", "--fo") == ["--format"]
    assert complete("unstuck", "run", "--fail-on", "") == ["error", "warning", "note"]
    assert complete("unstuck", "diagnose", "--format", "s") == ["sarif"]
    assert complete("unstuck", "search", "--sampler", "t") == ["tpe"]


@pytest.mark.slow
def test_behind_the_script_nothing_of_ours_is_completed() -> None:
    assert complete("unstuck", "run", "train.py", "--") == []
    assert complete("unstuck", "run", "-m", "module", "--") == []
    assert "--html" in complete("unstuck", "run", "--")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "offered"),
    [("bash", "vanishing-gradient"), ("fish", f"vanishing-gradient\t{CAUSES['vanishing-gradient']}"),
     ("zsh", "_arguments '*: :((\"vanishing-gradient\":")],
)  # fmt: skip
def test_causes_and_rules_are_completed(shell: str, offered: str) -> None:
    (found,) = complete("unstuck", "explain", "vanish", shell=shell)
    assert found.startswith(offered)


@pytest.mark.slow
def test_runs_are_completed_the_newest_first(tmp_path: Path) -> None:
    for name in ("20250304-102231-train", "20260101-000000-other", "cure-train-1"):
        (tmp_path / ".unstuck" / name).mkdir(parents=True)
    assert complete("unstuck", "diagnose", "", folder=tmp_path) == ["20260101-000000-other", "20250304-102231-train"]
    assert complete("unstuck", "diagnose", "2025", folder=tmp_path) == ["20250304-102231-train"]
    assert complete("unstuck", "diagnose", "./", folder=tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_part_is_printed(shell: str) -> None:
    code = "import sys; sys.argv = ['unstuck', '--show-completion', sys.argv[1]]; from unstuck.cli import main; main()"
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, shell], capture_output=True, text=True, env=environment, check=True
    )
    assert f"_UNSTUCK_COMPLETE=complete_{shell}" in done.stdout


# ---------------------------------------------------------------------- colour


def in_a_terminal(*args: str, **environment: str) -> str:
    """What a command shows where stdout and stderr are a terminal."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")}
    child = subprocess.Popen(
        [sys.executable, "-m", "unstuck", *args], stdin=slave, stdout=slave, stderr=slave,
        env={**kept, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(slave)
    shown, end = b"", time.monotonic() + WAIT
    with contextlib.suppress(OSError):  # Linux says so when the other end is closed
        while time.monotonic() < end and (child.poll() is None or select.select([master], [], [], 0.1)[0]):
            if select.select([master], [], [], 0.1)[0]:
                got = os.read(master, 65536)
                if not got:
                    break
                shown += got
    assert child.wait(WAIT) == 0
    os.close(master)
    return shown.decode()


@pytest.mark.slow
def test_there_is_colour_in_a_terminal_but_not_where_it_is_unwanted_nor_in_a_pipe() -> None:
    assert "\x1b[" in in_a_terminal("explain", "dead-units")
    unwanted = in_a_terminal("explain", "dead-units", NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*3\dm", unwanted)
    assert "\x1b" not in in_a_terminal("explain", "dead-units", TERM="dumb")
    piped = subprocess.run(
        [sys.executable, "-m", "unstuck", "explain", "dead-units"], capture_output=True, text=True, check=True
    )
    assert "\x1b" not in piped.stdout


# ---------------------------------------------------------------------- Ctrl-C

SLEEPS = """
import os, time
open(f"pid-{os.getpid()}", "w").close()
time.sleep(600)
"""


def is_there(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if Path("/proc").is_dir()
            else not os.kill(pid, 0)
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "says"), [("cure", "the same command goes on"), ("search", "the same command with --resume goes on")]
)
def test_ctrl_c_says_what_is_kept_in_a_line_and_leaves_no_process(command: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SLEEPS)
    child = subprocess.Popen(
        [sys.executable, "-m", "unstuck", command, "train.py"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + WAIT
    while not list(tmp_path.glob("pid-*")) and time.monotonic() < end and child.poll() is None:
        time.sleep(0.05)
    pids = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    out, err = child.communicate(timeout=WAIT)
    assert pids and child.returncode == 130
    assert not out and "Traceback" not in err
    assert err.splitlines()[-1] == f"unstuck: broken off; what had ended is kept: {says}"
    while any(map(is_there, pids)) and time.monotonic() < end + WAIT:
        time.sleep(0.05)
    assert not any(map(is_there, pids))


# ---------------------------------------------------------------------- how long still


class Stream:
    """A stream that is no terminal."""

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("took", "limit", "done", "left"),
    [(30.0, None, 0.25, 90.0), (30.0, 60.0, 0.25, 30.0), (30.0, 600.0, 0.25, 90.0), (30.0, 60.0, 0.0, 30.0), (30.0, None, 0.0, None),
     (30.0, None, 0.01, None)],
)  # fmt: skip
def test_time_left_follows_from_the_share_done_and_ends_at_the_limit(took, limit, done, left) -> None:
    teller = Teller(Stream(), quiet=False, doing="searching", limit=limit, share=lambda: done)
    assert teller._left(took) == (left if left is None else pytest.approx(left))


def test_a_confirmation_takes_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller(Stream(), quiet=False, limit=60.0)
    with teller:
        teller.tell("confirming wider")
    assert "confirming wider" in capsys.readouterr().err
    assert teller._left(10.0) == 50.0  # in a pipe nothing is shown of it
    teller.status = type("Status", (), {"console": type("Console", (), {"print": lambda *_, **__: None})})
    teller.tell("confirming wider")
    assert teller._left(10.0) is None
    assert "confirming, with fresh seeds" in str(teller.__rich__())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"unstuck \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
