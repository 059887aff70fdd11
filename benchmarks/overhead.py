"""What watching costs: whole-run time of a training with each tool attached, over the same training without.

One process, one thread, blocks in turn: plain, tool A, plain, tool B, ... in an order drawn anew each round. A block
is one whole training from the same seed: attach, so many steps, close (reports and files included; imports are not).
Each tool's block is divided by the mean of the plain blocks before and after it, so slow drifts of the machine cancel;
the median of those ratios is given with its 95% bootstrap interval. `plain` as a tool is the control: its interval
should hold 1, and its width is what the machine's noise leaves to be seen. Processor time is this process's, all its
threads.

    python benchmarks/overhead.py                                  # every tool that is installed, every workload
    python benchmarks/overhead.py --tools plain,unstuck --workloads mlp --rounds 40
    python benchmarks/overhead.py --device cuda --json overhead-cuda.json
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import io
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from measure import Estimate, machine, machine_line, table, write_json

NUM_BATCHES = 32


# ---------------------------------------------------------------------------------------------------------- workloads
@dataclass(frozen=True)
class Training:
    """A training about to begin, made anew for each block."""

    model: nn.Module
    batches: Callable[[], Iterator[Any]]


def mlp(device: torch.device) -> Training:
    """4 linear layers with ReLU, 150,794 parameters, batch 64."""
    sizes = [64, 256, 256, 256]
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return _training(nn.Sequential(*layers, nn.Linear(256, 10)), device, batch_size=64, shape=(64,))


def mlp_loader(device: torch.device) -> Training:
    """The same behind a shuffling DataLoader without workers."""
    made = mlp(device)
    inputs, targets = zip(*itertools.islice(made.batches(), NUM_BATCHES), strict=True)
    loader = DataLoader(TensorDataset(torch.cat(inputs), torch.cat(targets)), batch_size=64, shuffle=True)
    return Training(made.model, lambda: itertools.chain.from_iterable(iter(loader) for _ in itertools.count()))


def cnn(device: torch.device) -> Training:
    """2 convolutions with ReLU and pooling, 1 linear layer, 20,490 parameters, batch 16 of 28 x 28."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
    )  # fmt: skip
    return _training(model, device, batch_size=16, shape=(1, 28, 28))


class TinyTransformer(nn.Module):
    """Embedding, 2 encoder layers of width 256 with dropout, and a head over 1000 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 256)
        self.place = nn.Parameter(torch.zeros(64, 256))
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True), 2)
        self.head = nn.Linear(256, 1000)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(tokens) + self.place)).flatten(0, 1)


def transformer(device: torch.device) -> Training:
    """2-layer transformer, 2,108,904 parameters, batch 8 of 64 tokens."""
    model = TinyTransformer().to(device)
    made = [
        (torch.randint(1000, (8, 64)).to(device), torch.randint(1000, (512,)).to(device)) for _ in range(NUM_BATCHES)
    ]
    return Training(model, lambda: itertools.cycle(made))


def _training(model: nn.Module, device: torch.device, *, batch_size: int, shape: tuple[int, ...]) -> Training:
    centres = torch.randn(10, *shape)
    targets = [torch.randint(10, (batch_size,)) for _ in range(NUM_BATCHES)]
    made = [((centres[y] + torch.randn(batch_size, *shape)).to(device), y.to(device)) for y in targets]
    return Training(model.to(device), lambda: itertools.cycle(made))


WORKLOADS: dict[str, Callable[[torch.device], Training]] = {
    "mlp": mlp,
    "mlp-loader": mlp_loader,
    "cnn": cnn,
    "transformer": transformer,
}


# -------------------------------------------------------------------------------------------------------------- tools
class Tool:
    """A tool in the use its documentation shows first. As it stands, the plain loop.

    Making one imports what it needs, outside the timing, and raises `ImportError` when it is not installed.
    """

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Start watching; files go to `folder`, which is new and empty."""

    def after_backward(self, step: int, loss: Tensor) -> None:
        """Called between backward and the optimizer's step."""

    def after_step(self, step: int, loss: Tensor) -> None:
        """Called after the optimizer's step."""

    def close(self) -> None:
        """Stop watching and write what the tool writes."""

    def account(self) -> float | None:
        """The share of the run's time that the tool says it took, when it says so. Not timed."""
        return None


class Unstuck(Tool):
    """`with unstuck.watch(model, optimizer) as run:` around the loop, `run.report()` at the end."""

    def __init__(self, budget: float | None = None) -> None:
        from unstuck import watch

        self._options = {} if budget is None else {"budget": budget}
        self._watch = watch

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._run = self._watch(model, optimizer, runs=folder, **self._options)
        self._run.__enter__()

    def close(self) -> None:
        self._run.__exit__(None, None, None)
        self._run.report()

    def account(self) -> float | None:
        return self._run.record.meta.get("overhead")


class Gradsnitch(Tool):
    """`watch(model, optimizer, check_every=50)`, `log` each step, `report` at the end."""

    def __init__(self) -> None:
        import gradsnitch

        self._gradsnitch = gradsnitch

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._monitor = self._gradsnitch.watch(model, optimizer, check_every=50)

    def after_backward(self, step: int, loss: Tensor) -> None:
        self._monitor.log(step, loss.item())

    def close(self) -> None:
        self._monitor.report()


class Ormas(Tool):
    """`Monitor(model, optimizer)` (checks every 50 steps), `step` each step, `close` with its reports."""

    def __init__(self) -> None:
        from ormas_monitor import Monitor

        self._monitor_class = Monitor

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._monitor = self._monitor_class(model, optimizer, out=str(folder / "ormas_run"))

    def after_backward(self, step: int, loss: Tensor) -> None:
        self._monitor.step(loss)

    def close(self) -> None:
        self._monitor.close()


class Torchmortem(Tool):
    """`with Autopsy(model, optimizer=optimizer)`, `step(loss=loss.item())` each step, the HTML report at the end."""

    def __init__(self) -> None:
        from torchmortem import Autopsy

        self._autopsy_class = Autopsy

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._folder = folder
        self._autopsy = self._autopsy_class(model, optimizer=optimizer)
        self._autopsy.attach()

    def after_step(self, step: int, loss: Tensor) -> None:
        self._autopsy.step(loss=loss.item())

    def close(self) -> None:
        self._autopsy.detach()
        self._autopsy.report(self._folder / "autopsy_report.html")


class Wandb(Tool):
    """`wandb.init`, `watch(model)`, `log({"loss": ...})` each step, `finish`; offline."""

    def __init__(self, log_freq: int | None = None) -> None:
        import wandb

        self._wandb = wandb
        self._options: dict[str, Any] = {} if log_freq is None else {"log_freq": log_freq}

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._run = self._wandb.init(project="overhead", mode="offline", dir=str(folder))
        self._run.watch(model, **self._options)

    def after_step(self, step: int, loss: Tensor) -> None:
        self._run.log({"loss": loss.item()})

    def close(self) -> None:
        self._run.unwatch()
        self._run.finish()


class TensorBoard(Tool):
    """`SummaryWriter`: the loss each step, histograms of every parameter and its gradient each 10th."""

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer_class = SummaryWriter

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._model = model
        self._writer = self._writer_class(str(folder))

    def after_step(self, step: int, loss: Tensor) -> None:
        self._writer.add_scalar("loss", loss.item(), step)
        if step % 10 == 0:
            for name, parameter in self._model.named_parameters():
                self._writer.add_histogram(name, parameter, step)
                self._writer.add_histogram(f"{name}.grad", parameter.grad, step)

    def close(self) -> None:
        self._writer.close()


class LossItem(Tool):
    """Nothing but `loss.item()` each step, as most loops do to print it."""

    def after_step(self, step: int, loss: Tensor) -> None:
        loss.item()


TOOLS: dict[str, Callable[[], Tool]] = {
    "plain": Tool,
    "unstuck": Unstuck,
    "unstuck-1%": lambda: Unstuck(budget=0.01),
    "loss.item()": LossItem,
    "gradsnitch": Gradsnitch,
    "ormas-monitor": Ormas,
    "torchmortem": Torchmortem,
    "wandb.watch": Wandb,
    "wandb.watch-10": lambda: Wandb(log_freq=10),
    "tensorboard-10": TensorBoard,
}


# ------------------------------------------------------------------------------------------------------------- blocks
@dataclass(frozen=True)
class Block:
    """Seconds of one training: all of it, its loop alone, processor time; a digest of the weights it ended with."""

    wall: float
    loop: float
    cpu: float
    digest: str
    account: float | None


def train(make: Callable[[torch.device], Training], tool: Tool, *, steps: int, device: torch.device) -> Block:
    """One training from seed 0 with a tool attached.

    Args:
        make: The workload.
        tool: What watches, just made.
        steps: Updates.
        device: Where it runs.

    Returns:
        What it took.
    """
    torch.manual_seed(0)
    training = make(device)
    optimizer = torch.optim.Adam(training.model.parameters(), lr=1e-3)
    loss_function = nn.CrossEntropyLoss()
    with tempfile.TemporaryDirectory() as folder:
        gc.collect()
        _wait(device)
        cpu, start = time.process_time(), time.perf_counter()
        tool.attach(training.model, optimizer, Path(folder))
        loop = time.perf_counter()
        for step, (x, y) in enumerate(itertools.islice(training.batches(), steps)):
            optimizer.zero_grad()
            loss = loss_function(training.model(x), y)
            loss.backward()
            tool.after_backward(step, loss)
            optimizer.step()
            tool.after_step(step, loss)
        _wait(device)
        loop = time.perf_counter() - loop
        tool.close()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        return Block(wall, loop, cpu, _digest(training.model), tool.account())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _digest(model: nn.Module) -> str:
    made = hashlib.sha256()
    for parameter in model.parameters():
        made.update(parameter.detach().cpu().numpy().tobytes())
    return made.hexdigest()[:16]


def steps_for(make: Callable[[torch.device], Training], seconds: float, device: torch.device) -> int:
    """Steps that fill `seconds` of the plain loop, from two short trials of it."""
    train(make, Tool(), steps=20, device=device)
    once = train(make, Tool(), steps=20, device=device).loop / 20
    again = max(20, round(seconds / 5 / once))
    return max(20, round(seconds * again / train(make, Tool(), steps=again, device=device).loop))


@dataclass(frozen=True)
class Pair:
    """A tool's block and the plain blocks on its two sides."""

    before: Block
    block: Block
    after: Block

    def ratio(self, of: str) -> float:
        """The block's time over the mean of its neighbours'; `of` is wall, loop or cpu."""
        return 2 * getattr(self.block, of) / (getattr(self.before, of) + getattr(self.after, of))


@dataclass(frozen=True)
class Row:
    """What one tool cost on one workload.

    Attributes:
        wall, loop, cpu: Ratios to the plain loop: of the whole training, its loop alone, its processor time.
        step_us: Microseconds added to a step.
        ends_seconds: Seconds spent attaching and closing.
        same_bits: Every block ended with the plain loop's weights to the last bit.
        account: The tool's own account of its share, median.
        ratios: Wall ratios in the order they were measured.
    """

    tool: str
    wall: Estimate
    loop: Estimate
    cpu: Estimate
    step_us: float
    ends_seconds: float
    same_bits: bool
    account: float | None
    ratios: list[float]

    @classmethod
    def of(cls, tool: str, pairs: list[Pair], steps: int) -> Row:
        """The estimates from a tool's blocks."""
        added = [(p.block.loop - (p.before.loop + p.after.loop) / 2) / steps * 1e6 for p in pairs]
        accounts = [p.block.account for p in pairs if p.block.account is not None]
        return cls(
            tool,
            *(Estimate.of([p.ratio(of) for p in pairs]) for of in ("wall", "loop", "cpu")),
            step_us=Estimate.of(added).middle,
            ends_seconds=Estimate.of([p.block.wall - p.block.loop for p in pairs]).middle,
            same_bits=all(p.block.digest == p.before.digest for p in pairs),
            account=Estimate.of(accounts).middle if accounts else None,
            ratios=[round(p.ratio("wall"), 5) for p in pairs],
        )

    def cells(self) -> list[str]:
        """A row of the table."""
        account = "" if self.account is None else f"{self.account:.1%}"
        same = "yes" if self.same_bits else "NO"
        ends = f"{self.ends_seconds:.2f}"
        return [
            self.tool,
            self.wall.text(),
            self.loop.text(),
            self.cpu.text(),
            f"{self.step_us:+.0f}",
            ends,
            same,
            account,
        ]


HEAD = ["tool", "whole run", "loop alone", "processor", "us a step", "ends, s", "same bits", "own account"]


def usable(names: list[str], make: Callable[[torch.device], Training], device: torch.device) -> dict[str, str]:
    """Try each tool for 60 steps, which also pays its first-use costs.

    Args:
        names: Of `TOOLS`.
        make: The workload.
        device: Where it runs.

    Returns:
        By name, "" when it works, else what is the matter.
    """
    found: dict[str, str] = {}
    for name in names:
        try:
            train(make, TOOLS[name](), steps=60, device=device)
            found[name] = ""
        except ImportError as error:
            found[name] = f"not installed ({error.name})"
        except Exception as error:  # noqa: BLE001 - a peer that can't watch this model is a result, not an end
            found[name] = f"failed: {type(error).__name__}: {error}"
    return found


def compare(
    make: Callable[[torch.device], Training], names: list[str], *, steps: int, rounds: int, device: torch.device
) -> list[Row]:
    """Train in turn without and with each tool.

    Args:
        make: The workload.
        names: Tools that work.
        steps: Updates a block.
        rounds: Blocks of each tool.
        device: Where it runs.

    Returns:
        One row a tool, in the order of `names`.
    """
    pairs: dict[str, list[Pair]] = {name: [] for name in names}
    order = random.Random(0)
    before = train(make, Tool(), steps=steps, device=device)
    for number in range(rounds):
        for name in order.sample(names, len(names)):
            block = train(make, TOOLS[name](), steps=steps, device=device)
            after = train(make, Tool(), steps=steps, device=device)
            pairs[name].append(Pair(before, block, after))
            before = after
        print(f"  round {number + 1} of {rounds}", file=sys.__stderr__, flush=True)
    return [Row.of(name, pairs[name], steps) for name in names]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What tools print goes nowhere, theirs and ours alike, so that a terminal's speed is not measured."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def main() -> int:
    """Measure, print a table a workload, and write JSON; 1 when unstuck itself was asked for and failed."""
    asked = _arguments()
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true")
    torch.set_num_threads(1)
    device = torch.device(asked.device)
    facts = machine(asked.device)
    print(machine_line(facts) + "\n")
    result: dict[str, Any] = {"machine": facts, "rounds": asked.rounds, "seconds": asked.seconds, "workloads": {}}
    broken = False
    for name in asked.workloads:
        make = WORKLOADS[name]
        with quiet():
            state = usable(asked.tools, make, device)
            steps = steps_for(make, asked.seconds, device)
            works = [tool for tool in asked.tools if not state[tool]]
            rows = compare(make, works, steps=steps, rounds=asked.rounds, device=device)
        missing = [[tool, why] + [""] * (len(HEAD) - 2) for tool, why in state.items() if why]
        broken |= any(tool.startswith("unstuck") for tool, *_ in missing)
        print(f"### {name}: {make.__doc__}\n\n{steps} steps a block, {asked.rounds} blocks a tool\n")
        print(table(HEAD, [row.cells() for row in rows] + missing) + "\n", flush=True)
        result["workloads"][name] = {"steps": steps, "rows": [asdict(row) for row in rows], "missing": state}
        write_json(asked.json, result)
    return int(broken)


def _arguments() -> argparse.Namespace:
    def names(known: dict[str, Any]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            unknown = [name for name in text.split(",") if name not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
            return text.split(",")

        return parse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=names(TOOLS), default=list(TOOLS), help="comma-separated (default: all)")
    parser.add_argument(
        "--workloads", type=names(WORKLOADS), default=list(WORKLOADS), help="comma-separated (default: all)"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of the plain loop in a block (default: 3)")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each tool (default: 7)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
