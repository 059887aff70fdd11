"""What the benchmarks share: the machine's description, ratios with an interval, timed children, Markdown tables."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import unstuck

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Estimate:
    """A median with the bounds of its 95% bootstrap interval."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], *, resamples: int = 4000, seed: int = 0) -> Estimate:
        """The median of `values` and where it lies in 95 of 100 resamples of them.

        Args:
            values: One number a pair of measurements, at least one.
            resamples: Bootstrap resamples.
            seed: Of the resampling.

        Returns:
            Median and interval; with one value all three are it.
        """
        data = np.asarray(values, dtype=np.float64)
        picks = np.random.default_rng(seed).integers(len(data), size=(resamples, len(data)))
        low, high = np.quantile(np.median(data[picks], axis=1), [0.025, 0.975])
        return cls(float(np.median(data)), float(low), float(high))

    def text(self, digits: int = 3) -> str:
        """Like `1.012 [1.008, 1.017]`."""
        return f"{self.middle:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


@dataclass(frozen=True)
class Timing:
    """What one child process took: wall and processor seconds (its own children included), and its exit code."""

    wall: float
    cpu: float
    code: int


def share(flags: Iterable[bool]) -> str:
    """A share with its 95% Wilson interval, like `7 of 9, 0.78 [0.45, 0.94]`."""
    given = list(flags)
    if not given:
        return "0 of 0"
    n, p, z = len(given), sum(given) / len(given), 1.96
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return f"{sum(given)} of {n}, {p:.2f} [{abs(low):.2f}, {high:.2f}]"


def timed(command: Sequence[str], *, folder: Path, env: Mapping[str, str]) -> Timing:
    """Run a command to its end, its output thrown away, and time it.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        env: Its whole environment.

    Returns:
        Its times and exit code.
    """
    before = os.times()
    start = time.perf_counter()
    code = subprocess.run(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode
    wall = time.perf_counter() - start
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Timing(wall, cpu, code)


def unstuck_command(python: str = sys.executable) -> list[str]:
    """How to start `unstuck` in an environment: its script when installed, else what that script does."""
    found = shutil.which("unstuck", path=str(Path(python).parent))
    return [found] if found else [python, "-P", "-c", "import sys; from unstuck.cli import main; sys.exit(main())"]


def single_threaded(env: Mapping[str, str] = os.environ, **more: str) -> dict[str, str]:
    """The environment with one thread a process, and `more`."""
    return {**env, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **more}


def machine(device: str = "cpu") -> dict[str, Any]:
    """When and on what kind of machine this ran, for the head of a result."""
    facts: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "unstuck": unstuck.__version__,
        "load": round(os.getloadavg()[0], 2),
    }
    if device != "cpu":
        import torch

        facts["device"] = torch.cuda.get_device_name(device)
    return facts


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def machine_line(facts: Mapping[str, Any]) -> str:
    """The machine in one line of Markdown."""
    device = f"{facts['device']}, " if "device" in facts else ""
    versions = f"Python {facts['python']}, torch {facts['torch']}, unstuck {facts['unstuck']}"
    where = f"{device}{facts['cpu']}, {facts['cores']} cores, {facts['system']}"
    return f"{facts['date']}; {where}, {versions}, load {facts['load']} at the start."


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, padded so that it reads as text too.

    Args:
        head: Titles of the columns.
        rows: Cells; anything with a text form.

    Returns:
        Lines joined by newlines, without one at the end.
    """
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def write_json(path: Path | None, data: Any) -> None:
    """Write a result where the user asked for it, nothing when nowhere."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1) + "\n")
