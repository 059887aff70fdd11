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
from torch import nn

from measure import Estimate, machine, machine_line, table, write_json
from tools import TOOLS, Tool
from workloads import WORKLOADS, Training


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
