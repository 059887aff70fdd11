"""What was seen hundreds of steps ago: a recommended cell and start beside torch.nn.LSTM as it comes.

Two tasks of `unstuck.recurrent.tasks`: the sum of two marked numbers among 400, by a GRU whose gates remember for up to 400 steps to
start with; and ten symbols said again after 200 steps, by a cell of one's own, whose states turn and don't fade. The latter suits what
is to be said after a wait that is always the same. Both networks have the same loss, optimizer, rate, clipping and batches, and as many
units; a task is solved when 99 of 100 answers to 500 new sequences are right, looked at every 50 steps. Then training ends.

    python long_memory.py
    python long_memory.py --task adding --length 1000
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstuck.recurrent.cell import Definition, Step, Value
from unstuck.recurrent.layers import Recurrent
from unstuck.recurrent.tasks import TASKS, Task

BATCH, NEW = 32, 500


def linear(step: Step) -> dict[str, Value]:
    """A simple recurrent network without its nonlinearity, with orthogonal weights to start with (Henaff et al. 2016)."""
    step.starts(input_scale=0.05)
    return {"h": step.gate("h")}


@dataclass(frozen=True)
class Setting:
    """What a task is learnt with, chosen on other seeds than those of the runs."""

    cell: str | Definition
    length: int
    steps: int
    units: int
    rate: float


SETTINGS = {
    "adding": Setting("gru", 400, 1200, 64, 1e-2),
    "copy-memory": Setting(linear, 200, 1500, 128, 5e-4),
}


class Reader(nn.Module):
    """A recurrent layer, and a linear map of its output at the last step or at every one."""

    def __init__(self, layer: nn.Module, units: int, task: Task) -> None:
        super().__init__()
        self.layer, self.output, self.answers = layer, nn.Linear(units, task.output_size), task.answers

    def forward(self, inputs: Tensor) -> Tensor:
        outputs, _ = self.layer(inputs)
        return self.output(outputs[:, -1] if self.answers == "last" else outputs)


def recommended(task: Task, setting: Setting, length: int) -> nn.Module:
    """Where there are gates they remember for up to the length of the task to start with."""
    return Recurrent(setting.cell, task.input_size, setting.units, batch_first=True, horizon=length)


def usual(task: Task, setting: Setting, length: int) -> nn.Module:
    return nn.LSTM(task.input_size, setting.units, batch_first=True)


def learnt(model: Reader, task: Task, length: int, steps: int, rate: float, seed: int) -> tuple[int | None, float]:
    """After how many steps it is solved, None for never, and the last score."""
    training, new = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(10_000 + seed)
    optimizer, score = torch.optim.Adam(model.parameters(), lr=rate), 0.0
    for step in range(1, steps + 1):
        inputs, targets = task.draw(BATCH, length, training)
        loss = task.loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps:
            inputs, targets = task.draw(NEW, length, new)
            with torch.no_grad():
                outputs = model(inputs)
            score = task.score(outputs, targets)
            if task.solved(outputs, targets):
                return step, score
    return None, score


def run(name: str, options: argparse.Namespace) -> int:
    """Both networks on a task with each seed; how often the recommended one solves it."""
    task, setting, solved = TASKS[name], SETTINGS[name], 0
    length, steps = options.length or setting.length, options.steps or setting.steps
    for seed in range(options.seed, options.seed + options.seeds):
        for make in (recommended, usual):
            torch.manual_seed(seed)
            began, layer = time.process_time(), make(task, setting, length)
            model = Reader(layer, setting.units, task)
            after, score = learnt(model, task, length, steps, setting.rate, seed)
            solved += make is recommended and after is not None
            says = f"solved after {after} steps" if after else f"not solved in {steps} steps"
            spent = time.process_time() - began
            print(f"{name} {length}, seed {seed}: {layer}: {says}, {score:.3f} right, {spent:.0f} s", flush=True)
    return solved


def main(options: argparse.Namespace) -> None:
    names = [options.task] if options.task else list(SETTINGS)
    solved = sum(run(name, options) for name in names)
    print(f"final test solved {solved / (len(names) * options.seeds):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=list(SETTINGS), help="both unless given")
    parser.add_argument("--length", type=int, help="of the task; its own unless given")
    parser.add_argument("--steps", type=int, help="updates, at most; those of the task unless given")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="the first; settings were chosen on 0 and 5")
    main(parser.parse_args())
