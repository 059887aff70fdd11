"""Ray Train: what the first worker found comes back with the result."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("ray")
pytest.importorskip("pyarrow", reason="Ray Train needs pyarrow")

PROGRAM = """
import json
import sys

import ray
import torch
from ray import train
from ray.train.torch import TorchTrainer
from torch import nn


def loop(config):
    torch.manual_seed(0)
    x = torch.randn(256, 16)
    y = (x @ torch.randn(16, 3)).argmax(1)
    act, depth = (nn.Sigmoid, 8) if config["kind"] == "sigmoid" else (nn.ReLU, 2)
    middle = [m for _ in range(depth - 1) for m in (nn.Linear(32, 32), act())]
    net = nn.Sequential(nn.Linear(16, 32), act(), *middle, nn.Linear(32, 3))
    optimizer = torch.optim.SGD(net.parameters(), 1e4 if config["kind"] == "rate" else 0.1)
    for _ in range(200):
        at = torch.randint(0, 256, (32,))
        loss = nn.functional.cross_entropy(net(x[at]), y[at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    train.report({"loss": loss.item()})
    return {"mine": 5}


if __name__ == "__main__":
    kind, file, storage, *callback = sys.argv[1:]
    if kind == "plain":  # the same training without Ray
        train.report = lambda metrics: None
        loop({"kind": file})
        raise SystemExit
    from unstuck.integrations.ray_train import watched

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    trainer = TorchTrainer(watched(loop, report=False, budget=0.0, probe_budget=0.0), train_loop_config={"kind": kind},
                           scaling_config=train.ScalingConfig(num_workers=int(callback[0])),
                           run_config=train.RunConfig(storage_path=storage))
    result = trainer.fit()
    with open(file, "w") as out:
        json.dump(result.return_value, out)
"""


def launch(*command, folder):
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env={**os.environ, "RAY_TRAIN_V2_ENABLED": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.parametrize(("kind", "workers"), [("sigmoid", 1), ("rate", 2)])
def test_the_verdict_comes_back_and_is_that_of_the_same_training_elsewhere(tmp_path, kind, workers, assert_same):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch(str(program), kind, "back.json", str(tmp_path / "storage"), str(workers), folder=tmp_path)
    options = [
        "--quiet",
        "--budget",
        "0",
        "--probe-budget",
        "0",
        "--json",
        "script.json",
        "--runs",
        str(tmp_path / "runs"),
    ]
    launch("-m", "unstuck", "run", *options, str(program), "plain", kind, "", folder=tmp_path)
    back = json.loads((tmp_path / "back.json").read_text())
    assert back["mine"] == 5
    assert back["unstuck"]["host"] == os.uname().nodename
    assert_same(json.loads((tmp_path / "script.json").read_text()), back["unstuck"])
