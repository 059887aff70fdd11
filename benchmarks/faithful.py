"""Whether a script is the same program under `unstuck run`: its output, exit code, files and numbers, to the last bit.

Each program of `programs/` (and each of `examples/`, with lines at its end that print what it came to) runs once as
`python SCRIPT` and once as `unstuck run --quiet SCRIPT`, in the same folder, from the same state. Compared are the
bytes of stdout, which hold losses in hexadecimal and digests of weights, gradients, optimizers and random states; the
bytes of stderr; the exit code as a shell sees it (128 + n for a signal n); every file written; and whether a process
was left running. Frames of torch's own files may come and go in a traceback (hooks take a longer way through
`Module.__call__`); that is shown as "torch frames" and fails under --strict only.

    python benchmarks/faithful.py                       # all; exit code 1 on any difference
    python benchmarks/faithful.py saves copies          # these
    python benchmarks/faithful.py --control             # plain against plain: are the programs themselves repeatable?
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import fcntl
import hashlib
import importlib.util
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal

from measure import ROOT, machine, machine_line, table, unstuck_command

PROGRAMS = Path(__file__).resolve().parent / "programs"
PARTS = {"digest", "tiny"}  # imported by the programs
TAIL = "\n\nimport digest as _digest\n\n_digest.end(globals())\n"


@dataclass(frozen=True)
class Program:
    """A script and the circumstances in which it is run.

    Attributes:
        name: What it is called here.
        script: File name in the folder it runs in, or a module's name.
        args: Its arguments.
        module: Run with `-m`.
        stdin: What it can read.
        env: Added to the environment; a relative PYTHONPATH is taken from the folder it runs in.
        signal: Sent when it has printed READY, 0 for none.
        to: Who gets the signal: every process, as on Ctrl-C, or only the one that was started, as from `kill`.
        ignored: Signals (INT, ...) that are ignored from the start, as under `nohup` or in a script's background.
        terminal: Run on a terminal instead of pipes.
        text: The script, where it is no file of `programs/`.
        options: Of `unstuck run`, besides the usual ones.
        example: From `examples/`; prints what it came to through lines added at its end.
        quick: Among the tests that always run.
    """

    name: str
    script: str
    args: tuple[str, ...] = ()
    module: bool = False
    stdin: bytes = b""
    env: dict[str, str] = field(default_factory=dict)
    signal: int = 0
    to: Literal["all", "started"] = "all"
    ignored: tuple[str, ...] = ()
    terminal: bool = False
    text: str = ""
    options: tuple[str, ...] = ()
    example: bool = False
    quick: bool = False


SPECIAL = [
    Program("dropout_cnn", "dropout_cnn.py"),
    Program("curvature_along_the_run", "dropout_cnn.py", options=("--curvature",)),
    Program("exits_with_words", "exits_with_words.py", quick=True),
    Program("writes_bytes", "writes_bytes.py", quick=True),
    Program("reads_stdin", "reads_stdin.py", stdin=b"you\nand\n\xff\x00 more", quick=True),
    Program("surroundings", "surroundings.py", args=("--quiet", "-x", "a b", "--", "*.py")),
    Program("warnings_are_errors", "warnings_are_errors.py", env={"PYTHONWARNINGS": "error"}),
    Program("own_sitecustomize", "own_sitecustomize.py", env={"PYTHONPATH": "own_site"}),
    Program("module", "package", args=("--epochs", "3"), module=True),
    Program("syntax_error", "syntax_error.py", text='print("never"\nx = = 1\n'),
    Program("terminal", "terminal.py", terminal=True),
    Program("in_the_background", "signals.py", ignored=("INT", "HUP", "QUIT"), quick=True),
    Program("interrupted", "waits.py", signal=signal.SIGINT),
    Program("interrupted_and_saves", "waits_and_saves.py", signal=signal.SIGINT),
    Program("terminated", "waits.py", signal=signal.SIGTERM, to="started"),
    Program("terminated_in_order", "waits_for_term.py", signal=signal.SIGTERM, to="started"),
]


def programs() -> list[Program]:
    """Every program, those with circumstances of their own first, then the rest of `programs/`, then the examples."""
    named = {Path(program.script).stem for program in SPECIAL} | PARTS
    rest = [Program(p.stem, p.name) for p in sorted(PROGRAMS.glob("*.py")) if p.stem not in named]
    examples = [Program(f"examples/{p.stem}", p.name, example=True) for p in sorted((ROOT / "examples").glob("*.py"))]
    return [*SPECIAL, *rest, *examples]


# ------------------------------------------------------------------------------------------------------------ running
@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Attributes:
        code: Exit code as a shell sees it; -1 when it had to be stopped after the time limit.
        stdout, stderr: Their bytes; a terminal has only the first.
        files: Digest of each file it wrote, by path.
        left_running: A process of it was still there at the end.
        seconds: It took.
        steps: Updates that were watched, None when there is no report.
    """

    code: int
    stdout: bytes
    stderr: bytes
    files: dict[str, str]
    left_running: bool = False
    seconds: float = 0.0
    steps: int | None = None


def run_plain(program: Program, folder: Path, *, limit: float = 120.0) -> Outcome:
    """Run it with Python alone.

    Args:
        program: What to run.
        folder: Where; emptied first.
        limit: Seconds after which it is stopped.

    Returns:
        What it left behind.
    """
    return _run(
        [sys.executable, *(["-m"] if program.module else []), program.script, *program.args], program, folder, limit
    )


def run_watched(program: Program, folder: Path, *, limit: float = 240.0) -> Outcome:
    """Run it under `unstuck run`, its report kept apart from the program's folder.

    Args:
        program: What to run.
        folder: Where; emptied first.
        limit: Seconds after which it is stopped.

    Returns:
        What it left behind, with the steps that were watched.
    """
    with tempfile.TemporaryDirectory() as ours:
        report = Path(ours) / "report.json"
        options = [
            "run",
            "--quiet",
            "--runs",
            ours,
            "--json",
            str(report),
            *program.options,
            *(["-m"] if program.module else []),
        ]
        outcome = _run([*unstuck_command(), *options, program.script, *program.args], program, folder, limit)
        steps = json.loads(report.read_text())["run"].get("steps") if report.exists() else None
        return replace(outcome, steps=steps)


def _run(command: Sequence[str], program: Program, folder: Path, limit: float) -> Outcome:
    _lay_out(program, folder)
    if program.ignored:
        command = ["sh", "-c", f"trap '' {' '.join(program.ignored)}; exec \"$@\"", "sh", *command]
    given = set(_files(folder))
    start = time.perf_counter()
    with _streams(program) as (stdin, stdout, stderr, read):
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(program, folder), stdin=stdin, stdout=stdout, stderr=stderr,
            start_new_session=True,
        )  # fmt: skip
        code = _wait(process, program, lambda: read()[0], limit)
        seconds = time.perf_counter() - start
        left_running = not _group_ended(process.pid)
        out, err = read()
    files = {path: digest for path, digest in _files(folder).items() if path not in given}
    return Outcome(code, out, err, files, left_running, seconds)


def _lay_out(program: Program, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROGRAMS, folder, ignore=skip)
    if program.text:
        (folder / program.script).write_text(program.text)
    if program.example:
        shutil.copytree(ROOT / "examples", folder, ignore=skip, dirs_exist_ok=True)
        with (folder / program.script).open("a") as script:
            script.write(TAIL)


def _environment(program: Program, folder: Path) -> dict[str, str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **program.env}
    if "PYTHONPATH" in program.env:
        env["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(folder / program.env["PYTHONPATH"]), os.getenv("PYTHONPATH")])
        )
    return env


def _files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@contextlib.contextmanager
def _streams(program: Program) -> Iterator:
    """The three streams of a run, and a function that reads what came out so far."""
    if program.terminal:
        yield from _terminal()
        return
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(program.stdin)
        stdin.seek(0)

        def read() -> tuple[bytes, bytes]:
            return _content(stdout), _content(stderr)

        yield stdin, stdout, stderr, read


def _content(file: BinaryIO) -> bytes:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0)  # without moving the position that the child writes at


def _terminal() -> Iterator:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    seen: list[bytes] = []

    def collect() -> None:
        with contextlib.suppress(OSError):  # raised when the last holder of the other side is gone
            while part := os.read(ours, 65536):
                seen.append(part)

    reader = threading.Thread(target=collect, daemon=True)
    reader.start()

    def read() -> tuple[bytes, bytes]:
        with contextlib.suppress(OSError):
            os.close(theirs)
        reader.join(5)
        return b"".join(seen), b""

    try:
        yield theirs, theirs, theirs, read
    finally:
        os.close(ours)


def _wait(process: subprocess.Popen, program: Program, output, limit: float) -> int:
    end = time.monotonic() + limit
    if program.signal:
        while b"READY" not in output() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.5)  # until it really waits: a signal between two lines of Python is seen only after the next call
        (os.killpg if program.to == "all" else os.kill)(process.pid, program.signal)
    try:
        code = process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return -1
    return code if code >= 0 else 128 - code


def _group_ended(group: int, *, grace: float = 3.0) -> bool:
    """Whether every process of a run is gone within a grace; what is not, is ended here."""
    end = time.monotonic() + grace
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)
    return False


# ---------------------------------------------------------------------------------------------------------- comparing
@dataclass(frozen=True)
class Difference:
    """One thing that is not the same; `tolerated` when only torch's own frames of a traceback differ."""

    what: str
    says: str
    tolerated: bool = False


def differences(plain: Outcome, watched: Outcome) -> list[Difference]:
    """What the second run did otherwise than the first.

    Args:
        plain: The run that is right.
        watched: The run that is to be the same.

    Returns:
        One entry for each of exit code, stdout, stderr, files, processes that differ.
    """
    found = []
    if plain.code != watched.code:
        found.append(Difference("exit code", f"{plain.code} became {watched.code}"))
    if plain.stdout != watched.stdout:
        found.append(Difference("stdout", _diff(plain.stdout, watched.stdout)))
    if plain.stderr != watched.stderr:
        only_torch = without_torch_frames(plain.stderr) == without_torch_frames(watched.stderr)
        what = "torch frames" if only_torch else "stderr"
        found.append(Difference(what, _diff(plain.stderr, watched.stderr), tolerated=only_torch))
    if plain.files != watched.files:
        changed = sorted(dict(set(plain.files.items()) ^ set(watched.files.items())))
        found.append(Difference("files", ", ".join(changed)))
    if plain.left_running != watched.left_running:
        found.append(Difference("processes", f"left running: {plain.left_running} became {watched.left_running}"))
    return found


def torch_folder() -> Path:
    """Where torch lies, without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def without_torch_frames(stderr: bytes) -> bytes:
    """A traceback without the frames that lie in torch's files."""
    folder = re.escape(str(torch_folder())).encode()
    return re.sub(rb'^ *File "%b/.*\n(?:^    .*\n)*' % folder, b"", stderr, flags=re.MULTILINE)


def _diff(a: bytes, b: bytes, *, most: int = 30) -> str:
    before, after = (text.decode(errors="backslashreplace").splitlines() for text in (a, b))
    lines = list(difflib.unified_diff(before, after, "plain", "watched", lineterm="", n=1))
    return "\n".join(line[:200] for line in lines[:most] or [f"{len(a)} bytes against {len(b)}, the same lines"])


def compare(program: Program, *, control: bool = False) -> tuple[Outcome, Outcome, list[Difference]]:
    """Run a program both ways.

    Args:
        program: What to run.
        control: Run it plainly both times.

    Returns:
        Both outcomes, and how they differ.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "program"
        plain = run_plain(program, folder)
        watched = run_plain(program, folder) if control else run_watched(program, folder)
        return plain, watched, differences(plain, watched)


def main() -> int:
    """Compare all programs asked for and print a table; 1 on a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="programs (default: all)")
    parser.add_argument("--control", action="store_true", help="plain against plain")
    parser.add_argument("--strict", action="store_true", help="torch's own frames in tracebacks count too")
    parser.add_argument("--list", action="store_true", help="name the programs and stop")
    asked = parser.parse_args()
    known = {program.name: program for program in programs()}
    if asked.list:
        print("\n".join(known))
        return 0
    if unknown := [name for name in asked.names if name not in known]:
        parser.error(f"no {', '.join(unknown)}; see --list")
    rows, details, failed = [], [], 0
    for program in [known[name] for name in asked.names] or known.values():
        plain, watched, found = compare(program, control=asked.control)
        bad = [d for d in found if asked.strict or not d.tolerated]
        failed += bool(bad)
        steps = "" if watched.steps is None else watched.steps
        how = "DIFFERENT: " if bad else "same, but " if found else "same"
        rows.append([program.name, plain.code, steps, len(plain.stdout), how + ", ".join(d.what for d in found)])
        details += [f"\n{program.name}: {d.what}\n{d.says}" for d in found]
        print(
            f"{program.name}: {rows[-1][-1]} ({plain.seconds:.1f} s, {watched.seconds:.1f} s)",
            file=sys.stderr,
            flush=True,
        )
    print(machine_line(machine()) + "\n")
    print(table(["program", "exit code", "steps watched", "bytes printed", "under unstuck run"], rows))
    print(f"\n{len(rows) - failed} of {len(rows)} the same", *details, sep="\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
