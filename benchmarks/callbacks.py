"""What a callback costs: processor time a step with it over that without, in one process, turn by turn.

python benchmarks/callbacks.py [lightning] [transformers] [accelerate] [--rounds 3]
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
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

STEPS, SKIPPED = 2560, 64  # steps of a training, and those at its start that don't count: the dense ones are among them
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


def data() -> TensorDataset:
    """Enough for all steps in one pass."""
    x = torch.randn(64 * STEPS, 64)
    return TensorDataset(x, x[:, :10].argmax(1))


class Clock:
    """Keeps the time of each step's end, of the processor: other processes don't show in it."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def tick(self) -> None:
        """A step has ended."""
        self.ticks.append(time.process_time())

    @property
    def seconds(self) -> float:
        """Mean of a step."""
        return (self.ticks[-1] - self.ticks[SKIPPED]) / (len(self.ticks) - 1 - SKIPPED)


def lightning(folder: str | None) -> float:
    """Seconds a step of an MLP under Lightning, watched where there is a folder."""
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
    trainer.fit(Net(), DataLoader(data(), batch_size=64))
    return clock.seconds


def transformers(folder: str | None) -> float:
    """Seconds a step of a small GPT-2 under the Trainer, watched where there is a folder."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    from unstuck.integrations.transformers import UnstuckCallback

    clock = Clock()

    class Ticks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    tokens = torch.randint(0, 64, (8 * STEPS // 8, 32))
    config = GPT2Config(n_layer=2, n_head=2, n_embd=64, vocab_size=64, n_positions=32, bos_token_id=0, eos_token_id=0)
    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(
            out, num_train_epochs=1, per_device_train_batch_size=8, report_to=[], save_strategy="no", use_cpu=True,
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        callbacks = [Ticks()] if folder is None else [UnstuckCallback(runs=folder, **QUIET), Ticks()]
        examples = [{"input_ids": row, "labels": row} for row in tokens]
        Trainer(GPT2LMHeadModel(config), args, train_dataset=examples, callbacks=callbacks).train()  # type: ignore[arg-type]
    return clock.seconds


def accelerate(folder: str | None) -> float:
    """Seconds a step of an MLP in a loop with Accelerate, watched where there is a folder."""
    from accelerate import Accelerator

    from unstuck.integrations.accelerate import watched

    accelerator, clock, model = Accelerator(cpu=True), Clock(), mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model, optimizer, batches = accelerator.prepare(model, optimizer, DataLoader(data(), batch_size=64))
    with nullcontext() if folder is None else watched(accelerator, runs=folder, **QUIET):
        for x, y in batches:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()
            clock.tick()
    return clock.seconds


def ratio(run: Callable[[str | None], float], rounds: int) -> tuple[float, float, float]:
    """Median milliseconds a step without, with it, and the median of the rounds' ratios."""
    pairs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            pairs.append((run(None), run(folder)))
    return (
        *(1000 * statistics.median(pair[i] for pair in pairs) for i in (0, 1)),
        statistics.median(b / a for a, b in pairs),
    )  # type: ignore[return-value]


if __name__ == "__main__":
    known = {run.__name__: run for run in (lightning, transformers, accelerate)}
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("which", nargs="*", default=list(known), help=", ".join(known))
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for name in given.which:
        known[name](None)  # warm up
        without, with_it, ratio_of = ratio(known[name], given.rounds)
        print(f"{name:14} {without:7.2f} ms a step without, {with_it:7.2f} with: x {ratio_of:.3f}", flush=True)
