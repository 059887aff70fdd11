"""The command line as a user meets it: each test runs it as a process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unstuck.evidence import Record

TRAINING = """
import sys, torch
from torch import nn
torch.manual_seed(0)
x = torch.randn(64, 8); y = x[:, :3].argmax(1)
net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
for step in range(120):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
print("loss", loss.item().hex())
"""
BROADCAST = TRAINING.replace("nn.functional.cross_entropy(net(x), y)", "nn.functional.mse_loss(net(x)[:, :1], x[:, 0])")


def unstuck(*args, folder, **options):
    command = [sys.executable, "-m", "unstuck", *map(str, args)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.fixture
def script(tmp_path):
    def write(text, name="train.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.slow
def test_a_healthy_training_from_start_to_report(script, tmp_path):
    done = unstuck("run", "--json", "r.json", "--html", "r.html", script(TRAINING), folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("loss 0x")
    assert "HEALTHY" in done.stderr
    verdict = json.loads((tmp_path / "r.json").read_text())
    assert (verdict["schema"], verdict["verdict"], verdict["run"]["steps"]) == (1, "healthy", 120)
    assert verdict["run"]["score"]["name"] == "accuracy"
    assert Record.read(tmp_path / verdict["run"]["record"]).steps == 120
    assert "<html" in (tmp_path / "r.html").read_text()
    listed = unstuck("runs", folder=tmp_path)
    assert "train.py" in listed.stdout


@pytest.mark.slow
def test_fail_on_and_quiet(script, tmp_path):
    done = unstuck("run", "--quiet", "--fail-on", "warning", script(BROADCAST), folder=tmp_path)
    assert done.returncode == 3
    assert "unstuck" not in done.stderr


@pytest.mark.slow
def test_a_module_with_its_own_options(script, tmp_path):
    script("import sys; print(sys.argv[1:], __name__)", "program.py")
    done = unstuck("run", "-q", "-m", "program", "--json", "x", "-m", folder=tmp_path)
    assert done.stdout.strip() == "['--json', 'x', '-m'] __main__"


@pytest.mark.slow
def test_what_was_seen_survives_a_kill(script, tmp_path):
    text = TRAINING.replace("    optimizer.step()", "    optimizer.step()\n    import time; time.sleep(0.02)")
    text = text.replace("print(", "import os, signal; os.kill(os.getpid(), signal.SIGKILL); print(")
    done = unstuck("run", "--json", "r.json", script(text), folder=tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "r.json").read_text())["run"]["steps"] > 60


@pytest.mark.slow
def test_exit_codes_and_tracebacks_are_the_scripts_own(script, tmp_path):
    path = script(TRAINING + "\nraise ValueError('mine')\n")
    plain = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, check=False)
    done = unstuck("run", "--quiet", path, folder=tmp_path)
    assert done.returncode == plain.returncode == 1
    assert done.stderr == plain.stderr
    assert done.stdout == plain.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "nowhere.py"], "there is no file 'nowhere.py'"),
        (["run", "."], "is a folder without a __main__.py"),
        (["run"], "which script?"),
        (["run", "--budget", "much", "train.py"], "--budget is 'much'"),
        (["run", "--fail-on", "tears", "train.py"], "must be one of error, warning, note"),
        (["run", "--json", "no/such/r.json", "train.py"], "there is no folder"),
        (["run", "--html", ".", "train.py"], "is a folder: name a file"),
        (["run", "--runs", "train.py", "train.py"], "train.py"),
        (["run", "--set", "ded-units.fraction=1", "train.py"], "dead-units"),
    ],
)
def test_misuse_is_one_clear_line_and_exit_code_two(script, tmp_path, args, says):
    script("print('must not run')")
    done = unstuck(*args, folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_unknown_options_are_refused_before_the_script_and_passed_on_behind_it(script, tmp_path):
    path = script("import sys; print(sys.argv[1:])")
    assert unstuck("run", "--nonsense", path, folder=tmp_path).returncode == 2
    assert unstuck("run", "-q", path, "--nonsense", "--json", folder=tmp_path).stdout == "['--nonsense', '--json']\n"


def test_a_script_without_torch_is_unknown_and_says_why(script, tmp_path):
    done = unstuck("run", "--json", "r.json", script("print('hello')"), folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    verdict = json.loads((tmp_path / "r.json").read_text())
    assert verdict["verdict"] == "unknown"
    assert "never imported torch" in verdict["why_unknown"]


def test_a_syntax_error_is_pythons_to_tell(script, tmp_path):
    done = unstuck("run", script("def broken(:\n"), folder=tmp_path)
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr
    assert "unstuck/" not in done.stderr.split("SyntaxError")[0]


@pytest.mark.slow
def test_torch_without_training_is_unknown_and_says_why(script, tmp_path):
    done = unstuck(
        "run", "--json", "r.json", script("import torch; print(torch.ones(2).sum().item())"), folder=tmp_path
    )
    assert done.stdout == "2.0\n"
    verdict = json.loads((tmp_path / "r.json").read_text())
    assert verdict["verdict"] == "unknown"
    assert verdict["why_unknown"]


@pytest.mark.slow
def test_other_processes_that_train_are_watched_and_workers_are_silent(script, tmp_path):
    text = TRAINING.replace("import sys, torch", "import sys, torch, subprocess")
    child = script(text, "child.py")
    parent = script(f"import subprocess, sys, torch\nsubprocess.run([sys.executable, {str(child)!r}], check=True)\n")
    done = unstuck("run", "--json", "r.json", parent, folder=tmp_path)
    assert done.returncode == 0
    assert json.loads((tmp_path / "r.json").read_text())["run"]["steps"] == 120


def test_version(tmp_path):
    assert unstuck("--version", folder=tmp_path).stdout.startswith("unstuck 0.")


@pytest.mark.slow
def test_the_default_folder_falls_back_when_it_cannot_be_written(script, tmp_path):
    path = script(TRAINING)
    (tmp_path / ".unstuck").write_text("a file where the folder should be")
    done = unstuck("run", path, folder=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0
    assert "the record goes to" in done.stderr
    assert list(Path(tmp_path).glob("unstuck-*/*/record.sqlite"))
