"""What a callback costs: processor time a step with it over that without, in one process, turn by turn.

`plain` is a loop without a framework under `unstuck.watch`, to compare with. Other processes make steps dearer, which share caches and
cores with this one. So the steps of all rounds are also compared at their lower fifth, where they were disturbed least and none is
sampled: what watching adds to a plain step.

python benchmarks/callbacks.py [plain] [lightning] [transformers] [accelerate] [--rounds 5] [--steps 2560]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

STEPS, SKIPPED = 2560, 64  # steps of a training, and those at its start that don't count: the dense ones are among them
UNDISTURBED = 0.2  # the quantile of steps that are compared
QUIET = {"report": False, "probe_budget": 0.0}


def mlp() -> nn.Module:
    """151k parameters."""
    return nn.Sequential(
        nn.Linear(64, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


def data(steps: int) -> TensorDataset:
    """Enough for all steps in one pass."""
    x = torch.randn(64 * steps, 64)
    return TensorDataset(x, x[:, :10].argmax(1))


class Clock:
    """Keeps the time of each step's end, of the processor: other processes don't show in it."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def tick(self) -> None:
        """A step has ended."""
        self.ticks.append(time.process_time())

    def steps(self) -> list[float]:
        """Seconds of each step that counts."""
        return [after - before for before, after in pairwise(self.ticks[SKIPPED:])]


def plain(folder: str | None, steps: int) -> list[float]:
    """Seconds of the steps of an MLP in a loop of its own, watched where there is a folder."""
    from unstuck.watching import watch

    clock, model = Clock(), mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with nullcontext() if folder is None else watch(runs=folder, probe_budget=0.0):
        for x, y in DataLoader(data(steps), batch_size=64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            clock.tick()
    return clock.steps()


def lightning(folder: str | None, steps: int) -> list[float]:
    """Seconds of the steps of an MLP under Lightning, watched where there is a folder."""
    import lightning.pytorch as pl

    from unstuck.integrations.lightning import UnstuckCallback

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def training_step(self, batch: Any, index: int) -> Any:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    clock = Clock()
    ticks = pl.Callback()
    ticks.on_train_batch_end = lambda *_: clock.tick()  # type: ignore[method-assign]
    callbacks = [ticks] if folder is None else [UnstuckCallback(runs=folder, **QUIET), ticks]
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=callbacks, **off)
    trainer.fit(Net(), DataLoader(data(steps), batch_size=64))
    return clock.steps()


def transformers(folder: str | None, steps: int) -> list[float]:
    """Seconds of the steps, an eighth of so many, of a small GPT-2 under the Trainer, watched where there is a folder."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    from unstuck.integrations.transformers import UnstuckCallback

    clock = Clock()

    class Ticks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    tokens = torch.randint(0, 64, (steps, 32))
    config = GPT2Config(n_layer=2, n_head=2, n_embd=64, vocab_size=64, n_positions=32, bos_token_id=0, eos_token_id=0)
    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(
            out, num_train_epochs=1, per_device_train_batch_size=8, report_to=[], save_strategy="no", use_cpu=True,
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        callbacks = [Ticks()] if folder is None else [UnstuckCallback(runs=folder, **QUIET), Ticks()]
        examples = [{"input_ids": row, "labels": row} for row in tokens]
        Trainer(GPT2LMHeadModel(config), args, train_dataset=examples, callbacks=callbacks).train()  # type: ignore[arg-type]
    return clock.steps()


def accelerate(folder: str | None, steps: int) -> list[float]:
    """Seconds of the steps of an MLP in a loop with Accelerate, watched where there is a folder."""
    from accelerate import Accelerator

    from unstuck.integrations.accelerate import watched

    accelerator, clock, model = Accelerator(cpu=True), Clock(), mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model, optimizer, batches = accelerator.prepare(model, optimizer, DataLoader(data(steps), batch_size=64))
    with nullcontext() if folder is None else watched(accelerator, runs=folder, **QUIET):
        for x, y in batches:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()
            clock.tick()
    return clock.steps()


def compare(
    run: Callable[[str | None, int], list[float]], rounds: int, steps: int
) -> tuple[float, float, float, float]:
    """Compares the steps with a callback to those without.

    Args:
        run: A training, watched where it is given a folder.
        rounds: Pairs of trainings; which of the two comes first takes turns.
        steps: Of a training.

    Returns:
        Milliseconds of a step without, the median of the pairs' ratios, microseconds that are added to an undisturbed step, and
        the ratio there.
    """
    pairs = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            found = {given: run(given, steps) for given in ((None, folder) if number % 2 else (folder, None))}
            pairs.append((found[None], found[folder]))
    without = statistics.median(statistics.fmean(pair[0]) for pair in pairs)
    ratio = statistics.median(statistics.fmean(b) / statistics.fmean(a) for a, b in pairs)
    low, with_it = (_undisturbed([step for pair in pairs for step in pair[i]]) for i in (0, 1))
    return 1e3 * without, ratio, 1e6 * (with_it - low), with_it / low


def _undisturbed(steps: list[float]) -> float:
    return sorted(steps)[int(UNDISTURBED * len(steps))]


if __name__ == "__main__":
    known = {run.__name__: run for run in (plain, lightning, transformers, accelerate)}
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("which", nargs="*", default=list(known), help=", ".join(known))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=STEPS)
    given = options.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for name in given.which:
        known[name](None, SKIPPED + 16)  # warm up
        without, ratio, added, least = compare(known[name], given.rounds, given.steps)
        print(
            f"{name:14} {without:6.2f} ms a step: x {ratio:.3f}; undisturbed + {added:.0f} us, x {least:.3f}",
            flush=True,
        )
