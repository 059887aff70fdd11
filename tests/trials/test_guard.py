"""What a process has started ends with it, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unstuck.trials.guard import _left

OWNER = """
import subprocess, sys, time
from pathlib import Path
from unstuck.trials.guard import Guard
guard = Guard(Path("mine"))
nap = "import subprocess, sys, time; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", nap], stdout=subprocess.PIPE, start_new_session=True)
guard.watch(child.pid)
print(child.pid, int(child.stdout.readline()), flush=True)
{then}
time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """Starts a process with a guard, a folder, a child and a grandchild; gives it and their numbers."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    started = []

    def start(then=""):
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER.replace("{then}", then)], cwd=tmp_path, stdout=subprocess.PIPE
        )
        started.append(process)
        return process, [int(pid) for pid in process.stdout.readline().split()]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def away(folder):
    for _ in range(200):
        if not folder.exists():
            return True
        time.sleep(0.01)
    return False


def test_who_is_released_is_watched_no_more():
    assert _left([b"+1\n", b"+2\n", b"-1\n", b"+3\n", b"-9\n"]) == {2, 3}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_ends_children_and_theirs_and_removes_the_folder(owner, gone, tmp_path, how):
    process, pids = owner()
    process.send_signal(how)
    assert all(gone(pid) for pid in pids)
    assert away(tmp_path / "mine")


def test_who_is_released_lives_on(owner, tmp_path):
    process, (child, grandchild) = owner("guard.release(child.pid)")
    time.sleep(0.1)
    process.kill()
    assert away(tmp_path / "mine")
    os.kill(grandchild, 0)
    os.killpg(child, signal.SIGKILL)


def test_closing_ends_what_is_watched_as_well(owner, gone, tmp_path):
    process, pids = owner("guard.close()")
    assert gone(pids[1])
    assert away(tmp_path / "mine")
    assert process.poll() is None


def test_it_is_no_child_of_whom_it_watches_over(owner, gone):
    then = "from os import getpid\nprint(Path(f'/proc/self/task/{getpid()}/children').read_text(), flush=True)"
    process, pids = owner(then)
    assert [int(pid) for pid in process.stdout.readline().split()] == pids[:1]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the system has no /proc")
def test_who_was_not_told_of_is_known_by_the_folder_in_its_variables(tmp_path):
    """The owner is killed between the start of a process and telling of it."""
    folder = tmp_path / "mine"
    code = "import sys; from pathlib import Path; from unstuck.trials.guard import Guard; Guard(Path(sys.argv[1]))"
    wait = "print(flush=True); input()"
    (folder / "job").mkdir(parents=True)
    owner = subprocess.Popen(
        [sys.executable, "-c", f"{code}; {wait}", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    owner.stdout.readline()
    begun = subprocess.Popen(
        ["sleep", "60"], env={**os.environ, "UNSTUCK_RUN": f"{folder}/job"}, start_new_session=True
    )
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        owner.kill()
        assert begun.wait(timeout=20) == -signal.SIGKILL
        assert away(folder)
        assert other.poll() is None
    finally:
        owner.wait()
        owner.stdin.close()
        owner.stdout.close()
        for process in (begun, other):
            process.kill()
            process.wait()
