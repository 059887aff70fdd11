"""What was found, ready for use without a search."""

import json
import subprocess
import sys

import pytest

from unstuck.errors import MisuseError
from unstuck.search.export import described, exported
from unstuck.search.problems import FunctionProblem, TrainingProblem
from unstuck.search.searching import Plan, Search, search
from unstuck.trials.executor import Log, Processes

CNN = """
import torch
from torch import nn
from unstuck.search.convolutional import convolutional
from unstuck.training import Training

def space(draw):
    return convolutional(draw, layers=(1, 2), heights=(1, 3), widths=(1, 3), filters=(4, 8), strides=(1, 2))

def training(net):
    x = torch.randn(48, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = (x.mean((1, 2, 3)) > 0).long()
    model = net.module(channels=1, classes=2)
    batches = [(x[:16], y[:16]), (x[16:32], y[16:32])]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return Training(model, nn.functional.cross_entropy, optimizer, batches, evaluation=[(x[32:], y[32:])], epochs=3)
"""
USES = """
import torch
from net import Net
import sys
assert not any(name.startswith("unstuck") for name in sys.modules)
net = Net(1, 2)
net.load_state_dict(torch.load("weights.pt"))
x = torch.randn(48, 1, 6, 6, generator=torch.Generator().manual_seed(0))
y = (x.mean((1, 2, 3)) > 0).long()
net.eval()
print(float((net(x[32:]).argmax(1) == y[32:]).float().mean()))
"""


@pytest.mark.slow
def test_an_architecture_is_source_weights_and_a_recipe_that_work_without_us(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CNN)
    log = Log(tmp_path / "run", crashes=True)
    executor, problem = Processes(log), TrainingProblem("mine.py")
    try:
        answer = Search(problem, executor, log, Plan("evolution", evaluations=2, top=1, seeds=2, workers=2)).visit()
    finally:
        executor.close()
    out = tmp_path / "out"
    assert {p.name for p in exported(answer, problem, out)} == {"recipe.json", "net.py", "weights.pt"}
    (out / "use.py").write_text(USES)
    done = subprocess.run([sys.executable, "use.py"], cwd=out, capture_output=True, text=True, check=True)
    winner = answer.winner
    assert float(done.stdout) == pytest.approx(winner.values[winner.best_seed], abs=1e-6)
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["values"] == winner.child.point.values
    told = described(answer, problem)
    assert told["drawings"][str(winner.child.number)].startswith("<svg")
    json.dumps(told, allow_nan=False)


def test_nothing_found_is_nothing_written(tmp_path):
    def fails(x):
        raise RuntimeError("no")

    answer = search(lambda draw: draw.number("x", 0.0, 1.0), fails, evaluations=3)
    with pytest.raises(MisuseError, match="nothing was found"):
        exported(answer, FunctionProblem(lambda draw: draw.number("x", 0.0, 1.0), fails), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_search_that_is_no_better_than_random_says_so():
    problem = FunctionProblem(lambda draw: draw.choice("n", list(range(40))), lambda n: 1.0)
    answer = search(lambda draw: draw.choice("n", list(range(40))), lambda n: 1.0, evaluations=12, sampler="evolution")
    assert any("no better than random so far (p = " in sentence for sentence in described(answer, problem)["verdicts"])
