"""`unstuck batch`, from start to report, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from unstuck.cli._batch import compared, proved
from unstuck.evidence import Event, Record
from unstuck.report._batch import gathered

TRAINING = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
x = torch.randn(2000, 10)
y = (x[:, 0] + 0.5 * torch.randn(2000) > 0).long()
model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for _ in range(2):
    for inputs, targets in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
print("loss", loss.item().hex())
"""
FOURTH = """        (loss / 4).backward()
        count += 1
        if count % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
"""


def unstuck(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unstuck", *args]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}  # times of several threads say nothing on a busy machine
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=300, env=one)


@pytest.fixture
def script(tmp_path):
    def write(text: str, name: str = "train.py") -> str:
        (tmp_path / name).write_text(text)
        return name

    return write


@pytest.mark.slow
def test_from_start_to_report(script, tmp_path):
    done = unstuck(
        "batch", "--budget", "20s", "--json", "b.json", "--html", "b.html", script(TRAINING), folder=tmp_path
    )
    plain = subprocess.run([sys.executable, "train.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, plain.stdout)
    told = json.loads((tmp_path / "b.json").read_text())
    assert told["verdict"] in ("change", "keep"), told["why_unknown"]
    assert (told["own"]["size"], told["own"]["num_samples"], told["own"]["optimizer"]) == (8, 2000, "SGD")
    assert {s["size"] for s in told["sizes"]} >= {1, 2, 4, 8, 16, 32, 64}
    assert {p["step"] for p in told["noise"]} >= {0, 500}
    assert told["own"]["step_seconds"] > 0
    assert str(told["choice"]["recommended"]) in done.stderr
    assert "Time to the same loss" in (tmp_path / "b.html").read_text()
    record = Record.read(tmp_path / told["record"])
    assert not record.happened("watcher-error")
    assert record.meta["batch_seconds"] > 0


@pytest.mark.slow
def test_of_a_module_with_options_of_its_own(script, tmp_path):
    script(TRAINING.replace("range(2)", "range(int(__import__('sys').argv[2]))"), "mine.py")
    done = unstuck(
        "batch", "--quiet", "--budget", "3s", "--json", "b.json", "-m", "mine", "--json", "1", folder=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "b.json").read_text())["own"]["updates"] == 250


@pytest.mark.slow
def test_what_failed_or_never_trained(script, tmp_path):
    failed = unstuck("batch", script(TRAINING + "\nraise SystemExit(3)\n"), folder=tmp_path)
    assert failed.returncode == 3
    broken = unstuck("batch", script(TRAINING + "\nraise ValueError('no')\n"), folder=tmp_path)
    assert broken.returncode == 1
    assert "the script failed with ValueError: no" in " ".join(broken.stderr.split())
    nothing = unstuck("batch", script("import torch", "one.py"), folder=tmp_path)
    assert nothing.returncode == 0
    assert "no training was seen" in " ".join(nothing.stderr.split())
    without = unstuck("batch", script("print(1)", "two.py"), folder=tmp_path)
    assert (
        "UNKNOWN two.py: it can't be told which batch size is best: nothing was recorded: the script never imported torch."
        in " ".join(without.stderr.split())
    )


@pytest.mark.slow
def test_batches_that_are_added_up_make_larger_ones(script, tmp_path):
    """Four batches of 8 to an update, under autocast: what is told is of updates of 32, and of ways to make them."""
    text = TRAINING.replace("        optimizer.zero_grad()\n", "").replace(
        "for _ in range(2)", "count = 0\nfor _ in range(2)"
    )
    text = text.replace("        loss.backward()\n        optimizer.step()\n", FOURTH)
    text = text.replace("model(inputs), targets)", 'torch.autocast("cpu", torch.bfloat16)(model)(inputs), targets)')
    done = unstuck("batch", "--budget", "5s", "--json", "b.json", script(text), folder=tmp_path)
    told = json.loads((tmp_path / "b.json").read_text())
    assert told["verdict"] in ("change", "keep"), told["why_unknown"]
    own = told["own"]
    assert (own["size"], own["micro_size"], own["num_batches"], own["adds"]) == (32, 8, 4, False)
    ways = [(s["size"], s["num_batches"]) for s in told["sizes"]]
    assert {(32, 4), (8, 1), (64, 1)} <= set(ways)
    assert told["own"]["updates"] == 125
    assert " 4 × 8 " in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.endswith(" ")]


def got(loss, seconds, score=0.9):
    return {"loss": loss, "seconds": seconds, "score": score}


@pytest.mark.parametrize(
    ("pairs", "holds"),
    [
        ([(got(1.0, 10.0), got(1.0, 5.0)), (got(1.1, 10.0), got(1.09, 5.1))], True),
        ([(got(1.0, 10.0), got(2.0, 5.0)), (got(1.1, 10.0), got(2.2, 5.1))], False),
        ([(got(1.0, 5.0), got(1.0, 10.0)), (got(1.1, 5.1), got(1.1, 10.0))], False),
        ([(got(1.0, 10.0), got(0.5, 5.0)), (got(1.0, 10.0), got(2.0, 5.1))], None),
    ],
)
def test_pairs_hold_or_not(pairs, holds):
    told = compared(pairs)
    assert told["holds"] is holds
    assert told["pairs"] == 2
    ratios = [b["seconds"] / a["seconds"] for a, b in pairs]
    assert told["seconds"]["ratio"] == pytest.approx((ratios[0] * ratios[1]) ** 0.5)
    assert told["seconds"]["low"] < told["seconds"]["ratio"] < told["seconds"]["high"]
    assert told["loss_with"] == pytest.approx((pairs[0][1]["loss"] + pairs[1][1]["loss"]) / 2)


@pytest.mark.slow
def test_what_is_recommended_is_proved_by_pairs_of_runs(script, tmp_path):
    """On a record that recommends 32 of a script with batches of 8: both are changed in it, and twice the passes are made."""
    done = unstuck("run", "--probe-budget", "0", "--quiet", "--runs", "runs", script(TRAINING), folder=tmp_path)
    assert done.returncode == 0
    record = Record.read(next((tmp_path / "runs").glob("*/record.sqlite")).parent)
    chosen = {"size": 32, "rate": 2.0, "updates": 0.5, "samples": 2.0}
    parts = [
        {"part": "own", "size": 8, "rate": 0.05, "updates": 500},
        {"part": "size", **chosen},
        {"part": "choice", "own": 8, "recommended": 32, "why": ""},
    ]
    record = replace(record, events=tuple(Event(500, "batch", "", part) for part in parts))
    made = proved(record, [str(tmp_path / "train.py")], tmp_path / "visit", seeds=2, quiet=True)
    told = gathered(made).proof
    assert told.get("why") is None
    assert told["pairs"] == 2
    runs = [Record.read(path.parent) for path in (tmp_path / "visit" / "proof").glob("*/record.sqlite")]
    assert sorted(r.steps for r in runs) == [
        252,
        252,
        500,
        500,
        500,
    ]  # 4 passes of 63, and a first run by which it is changed
    assert sorted({r.series("lr").median() for r in runs}) == pytest.approx([0.05, 0.1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["batch"], "usage: unstuck batch [OPTIONS] SCRIPT"),
        (["batch", "nowhere.py"], "there is no file 'nowhere.py'"),
        (["batch", "--budget", "soon", "train.py"], "--budget is 'soon'"),
        (["batch", "--json", "no/such/b.json", "train.py"], "there is no folder"),
        (["batch", "--prove", "-m", "train"], "--prove changes a script and runs it"),
    ],
)
def test_misuse_is_told_in_a_line(script, tmp_path, args, words):
    script(TRAINING)
    done = unstuck(*args, folder=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
