"""Accelerate: tracker and context find what `unstuck run` finds; several processes have a record each, and one of them tells."""

import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import unstuck
from unstuck.errors import SickError

pytestmark = pytest.mark.slow
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("accelerate")
    from accelerate import Accelerator

    from unstuck.integrations.accelerate import UnstuckTracker, watched

PROGRAM = """
import sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from accelerate import Accelerator
from accelerate.utils import set_seed

kind = sys.argv[1]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        act, depth = (nn.Sigmoid, 8) if kind == "sigmoid" else (nn.ReLU, 2)
        middle = [m for _ in range(depth - 1) for m in (nn.Linear(32, 32), act())]
        self.net = nn.Sequential(nn.Linear(16, 32), act(), *middle)
        self.out = nn.Linear(32, 3)

    def forward(self, x):
        logits = self.out(self.net(x))
        return logits.softmax(1) if kind == "softmax" else logits


tracker = None
if len(sys.argv) > 2:
    from unstuck.integrations.accelerate import UnstuckTracker

    tracker = UnstuckTracker(json=sys.argv[2], report=False, budget=0.0, probe_budget=0.0)
set_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, log_with=tracker)
accelerator.init_trackers("project", {"learning_rate": 0.1})
x = torch.randn(640, 16)
y = (x @ torch.randn(16, 3)).argmax(1)
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
train = DataLoader(TensorDataset(x[:512], y[:512]), batch_size=16, shuffle=True)
val = DataLoader(TensorDataset(x[512:], y[512:]), batch_size=32)
model, optimizer, train, val = accelerator.prepare(model, optimizer, train, val)
for epoch in range(6):
    model.train()
    for inputs, targets in train:
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        right = sum((model(inputs).argmax(1) == targets).sum().item() for inputs, targets in val)
    accelerator.log({"right": right}, step=epoch)
accelerator.end_training()
"""


def test_finds_what_unstuck_run_finds(both_ways, assert_same):
    found = both_ways(PROGRAM, "healthy", "sigmoid", "softmax")
    for script, callback in found.values():
        assert_same(script, callback)
    causes = {
        kind: [f["cause"] for f in script["findings"] if f["severity"] != "note"] for kind, (script, _) in found.items()
    }
    assert causes["healthy"] == []
    assert "vanishing-gradient" in causes["sigmoid"]
    assert causes["softmax"][0] == "output-loss-mismatch"


TWO = """
import sys
import torch
from torch import nn
from accelerate import Accelerator
from unstuck.integrations.accelerate import watched

accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
x = torch.randn(256, 8)
y = (x[:, 0] > 0).long()
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
model, optimizer = accelerator.prepare(model, optimizer)
with watched(accelerator, runs=sys.argv[1], json=sys.argv[2]) as run:
    for step in range(64):
        rows = torch.randint(0, 256, (32,))
        optimizer.zero_grad()
        accelerator.backward(nn.functional.cross_entropy(model(x[rows]), y[rows]))
        optimizer.step()
print("model is", type(model).__name__)
accelerator.end_training()
"""


def test_of_two_processes_each_has_a_record_and_one_tells(tmp_path):
    program, runs, told = (tmp_path / name for name in ("program.py", "runs", "verdict.json"))
    program.write_text(TWO)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(program), str(runs), str(told)],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("model is DistributedDataParallel") == 2
    assert done.stdout.count("64 steps in") == 1
    records = [unstuck.Record.read(folder) for folder in runs.iterdir() if folder.is_dir()]
    assert [record.steps for record in records] == [64, 64]
    assert {layer.name for layer in records[0].program.layers} == {layer.name for layer in records[1].program.layers}
    assert "model.0" in {layer.name for layer in records[0].program.layers}  # and not module.0
    assert json.loads(told.read_text())["run"]["steps"] == 64


@pytest.fixture
def train():
    """Trains for 32 steps with an accelerator of its own, unless something happens before."""

    def run(accelerator, at_step=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        model, optimizer = accelerator.prepare(model, optimizer)
        x = torch.randn(256, 8)
        y = (x[:, 0] > 0).long()
        for step in range(32):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            accelerator.backward(at_step(loss) if at_step is not None and step == 20 else loss)
            optimizer.step()

    return run


def test_the_tracker_is_found_by_its_name(train, tmp_path, capsys):
    accelerator = Accelerator(cpu=True, log_with=UnstuckTracker(runs=tmp_path, probe_budget=0.0))
    accelerator.init_trackers("project")
    tracker = accelerator.get_tracker("unstuck")
    train(accelerator)
    assert tracker.verdict.run["steps"] == 32  # also while it goes on
    assert accelerator.get_tracker("unstuck", unwrap=True) is tracker.run
    accelerator.end_training()
    assert "32 steps" in capsys.readouterr().out
    assert tracker.run.record.meta["status"] == "finished"


def test_the_context_ends_by_an_error_and_knows_a_schedule(train, tmp_path):
    def fails(loss):
        raise ValueError("of the script")

    accelerator, before = Accelerator(cpu=True), nn.Module.__call__
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    schedule = accelerator.prepare(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3))[1]
    with (
        pytest.raises(ValueError, match="of the script"),
        watched(accelerator, schedule, runs=tmp_path, report=False) as run,
    ):
        train(accelerator, fails)
    assert nn.Module.__call__ is before
    assert (run.record.meta["status"], run.record.steps) == ("failed", 20)
    assert "StepLR" in {optimizer.schedule for optimizer in run.record.program.optimizers}


def test_fails_after_the_training_where_asked(train, tmp_path):
    accelerator = Accelerator(cpu=True)
    with (
        pytest.raises(SickError, match="non-finite"),
        watched(accelerator, runs=tmp_path, report=False, fail_on="error", probe_budget=0.0),
    ):
        train(accelerator, lambda loss: loss * float("nan"))
