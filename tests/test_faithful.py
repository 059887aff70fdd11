"""A script is the same program under `unstuck run`: the programs of `benchmarks/faithful.py`, each both ways."""

import importlib
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
faithful = importlib.import_module("faithful")


def marked(program):
    return pytest.param(program, id=program.name, marks=() if program.quick else pytest.mark.slow)


@pytest.fixture(scope="module")
def comparisons(request):
    """All programs that are asked for, two at a time while their tests wait in turn: each is a process that one core suffices for."""
    asked = [item.callspec.params["program"] for item in request.session.items if "comparisons" in item.fixturenames]
    with ThreadPoolExecutor(2) as pool:
        yield {program.name: pool.submit(faithful.compare, program) for program in asked}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("program", [marked(program) for program in faithful.programs()])
def test_same_program_when_watched(program, comparisons):
    plain, watched, found = comparisons[program.name].result()
    assert not [f"{d.what}: {d.says}" for d in found if not d.tolerated], plain.stderr.decode(errors="replace")
    assert plain.code != -1 and watched.code != -1, "stopped after the time limit"


PLAIN = faithful.Outcome(0, b"losses 0x1p+0\n", b"", {"model.pt": "12ab"})


@pytest.mark.parametrize(
    ("watched", "what"),
    [
        (PLAIN, []),
        (replace(PLAIN, code=1), ["exit code"]),
        (replace(PLAIN, stdout=b"losses 0x1.0000000000001p+0\n"), ["stdout"]),
        (replace(PLAIN, stdout=b"losses 0x1p+0\r\n"), ["stdout"]),
        (replace(PLAIN, stderr=b"UserWarning\n"), ["stderr"]),
        (replace(PLAIN, files={"model.pt": "34cd"}), ["files"]),
        (replace(PLAIN, files={"model.pt": "12ab", "runs/record.sqlite": "56ef"}), ["files"]),
        (replace(PLAIN, left_running=True), ["processes"]),
    ],
)
def test_every_difference_is_seen(watched, what):
    assert [d.what for d in faithful.differences(PLAIN, watched)] == what


def traceback(*frames):
    lines = "".join(f'  File "{file}", line 1, in call\n    return call()\n           ^^^^^^\n' for file in frames)
    return replace(PLAIN, stderr=f"Traceback (most recent call last):\n{lines}ValueError: no\n".encode())


def test_only_frames_of_torch_are_tolerated_in_tracebacks():
    torch = f"{faithful.torch_folder()}/nn/modules/module.py"
    plain = traceback("train.py", torch, "net.py")
    assert [d.tolerated for d in faithful.differences(plain, traceback("train.py", torch, torch, "net.py"))] == [True]
    assert [d.tolerated for d in faithful.differences(plain, traceback("train.py", "watcher.py", torch, "net.py"))] == [
        False
    ]


def test_how_a_program_ends_is_told_as_a_shell_tells_it(tmp_path):
    waits = "import time\nprint('READY', flush=True)\ntime.sleep(9)\n"
    stopped = faithful.Program("stopped", "waits.py", signal=signal.SIGTERM, to="started", text=waits)
    hung = faithful.Program("hung", "waits.py", text=waits)
    assert faithful.run_plain(stopped, tmp_path / "stopped").code == 128 + signal.SIGTERM
    assert faithful.run_plain(hung, tmp_path / "hung", limit=0.3).code == -1


def test_what_a_program_writes_is_kept_apart_from_what_it_was_given(tmp_path):
    writes = faithful.Program(
        "writes", "writes.py", text="open('out.txt', 'w').write('1')\nprint(open('tiny.py').readable())\n"
    )
    outcome = faithful.run_plain(writes, tmp_path / "program")
    assert (outcome.code, outcome.stdout, list(outcome.files)) == (0, b"True\n", ["out.txt"])
