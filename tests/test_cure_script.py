"""A cure from end to end: a script that crawls, the remedy that is found, and the file that is written."""

import json
import re
import subprocess
import sys

import pytest

CRAWLS = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
x = torch.randn(768, 10)
y = (x @ torch.randn(10, 3, generator=torch.Generator().manual_seed(1))).argmax(1)
train = DataLoader(TensorDataset(x[:512], y[:512]), batch_size=32, shuffle=True)
net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = torch.optim.SGD(net.parameters(), lr=1e-5)
for epoch in range(10):
    net.train()
    for a, b in train:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(a), b)
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        answers = net(x[512:])
        nn.functional.cross_entropy(answers, y[512:])
        accuracy = (answers.argmax(1) == y[512:]).float().mean().item()
print("accuracy", accuracy)
"""
HEALTHY = CRAWLS.replace("SGD(net.parameters(), lr=1e-5)", "Adam(net.parameters(), lr=0.01)")


def unstuck(*args, folder):
    command = [sys.executable, "-m", "unstuck", *map(str, args)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)


def cure(script, folder, *options):
    args = (
        "cure",
        "--json",
        "cure.json",
        "--html",
        "cure.html",
        "--write",
        "better.py",
        "--budget",
        "20m",
        "--runs",
        "runs",
        *options,
        script,
    )
    done = unstuck(*args, folder=folder)
    assert done.returncode == 0, done.stderr
    return done, json.loads((folder / "cure.json").read_text())


def accuracy(text):
    return float(re.findall(r"^accuracy ([\d.]+)", text, re.MULTILINE)[-1])


def runs(folder):
    """Names of the runs that were made, and when each began to."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/cure-*/*/output.txt")}


@pytest.fixture(scope="module")
def cured(tmp_path_factory):
    """A script that crawls, after the visit."""
    folder = tmp_path_factory.mktemp("crawls")
    (folder / "train.py").write_text(CRAWLS)
    return folder, *cure("train.py", folder, "--diff")


@pytest.mark.slow
def test_what_crawls_is_sped_up(cured):
    folder, done, told = cured
    found = told["prescription"]
    assert "learning-rate-too-low" in told["baseline"]["findings"]
    assert found is not None, (told["why"], done.stderr)
    assert found["low"] > 0.2
    assert min(found["score"]) > 0.85 > max(found["without"])
    assert "learning-rate-too-low" not in found["findings_after"]
    assert found["text"] in done.stderr or "cure" in done.stderr
    assert (folder / "train.py").read_text() == CRAWLS
    page = (folder / "cure.html").read_text()
    assert 'id="chart-course-loss"' in page
    assert "unstuck cure --diff train.py | patch -p1" in page


@pytest.mark.slow
def test_the_written_script_and_the_applied_diff_are_the_same_and_keep_the_promise(cured):
    folder, done, told = cured
    (folder / "patched").mkdir(exist_ok=True)
    (folder / "patched" / "train.py").write_text(CRAWLS)
    diff = done.stdout + ("" if done.stdout.endswith("\n") else "\n")
    assert diff == told["prescription"]["diff"]
    applied = subprocess.run(
        ["patch", "-p1"], cwd=folder / "patched", input=diff, text=True, check=False, capture_output=True
    )
    assert applied.returncode == 0, applied.stdout
    assert (folder / "patched" / "train.py").read_text() == (folder / "better.py").read_text()
    plain = subprocess.run([sys.executable, "better.py"], cwd=folder, capture_output=True, text=True, check=True)
    promised = told["prescription"]["score"]
    # another seed than those of the confirmation: as far from them as they are from each other, and 5% of 256 samples
    spread = max(promised) - min(promised) + 0.05
    assert min(promised) - spread < accuracy(plain.stdout) < max(promised) + spread


@pytest.mark.slow
def test_run_with_the_prescription_is_the_written_script(cured):
    folder, _, _ = cured
    plain = subprocess.run([sys.executable, "better.py"], cwd=folder, capture_output=True, text=True, check=True)
    done = unstuck("run", "--quiet", "--with", "cure.json", "train.py", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == plain.stdout


@pytest.mark.slow
def test_a_visit_that_is_made_again_makes_no_run_again(cured):
    folder, _, told = cured
    before = runs(folder)
    _, again = cure("train.py", folder)
    assert runs(folder) == before
    assert again["prescription"] == told["prescription"]


@pytest.mark.slow
def test_a_visit_that_was_broken_off_goes_on(cured):
    folder, _, told = cured
    before = runs(folder)
    (log,) = folder.glob("runs/cure-*/trials.jsonl")
    lines = log.read_text().splitlines(keepends=True)
    lost = {json.loads(line)["key"] for line in lines[-2:]}
    log.write_text("".join(lines[:-2]) + lines[-2][:50])
    _, again = cure("train.py", folder)
    after = runs(folder)
    assert {name for name in after if after[name] != before.get(name)} == lost
    assert again["prescription"]["score"] == told["prescription"]["score"]


@pytest.mark.slow
def test_a_script_that_has_changed_is_not_given_an_old_prescription(cured):
    folder, _, _ = cured
    (folder / "train.py").write_text(CRAWLS + "# a word\n")
    try:
        done = unstuck("run", "--with", "cure.json", "train.py", folder=folder)
    finally:
        (folder / "train.py").write_text(CRAWLS)
    assert (done.returncode, done.stdout) == (2, "")
    assert "has changed since the prescription was made: run `unstuck cure` again" in done.stderr


@pytest.mark.slow
def test_what_is_healthy_is_left_alone_and_nothing_is_tried(tmp_path):
    (tmp_path / "train.py").write_text(HEALTHY)
    done, told = cure("train.py", tmp_path)
    assert (told["prescription"], told["trials"], told["baseline"]["verdict"]) == (None, [], "healthy"), told
    assert told["why"] == "nothing is wrong with it"
    assert (
        len(runs(tmp_path)) <= 6
    )  # with two other seeds: runs without a change, for a confirmation, may be begun while a core is idle
    assert not [path for path in tmp_path.glob("runs/cure-*/*/edits.json") if json.loads(path.read_text())]
    assert not (tmp_path / "better.py").exists()
    assert "no cure needed" in done.stderr
