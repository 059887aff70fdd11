"""What `unstuck run` adds to whole scripts: process time of `unstuck run SCRIPT` over that of `python SCRIPT`.

Both take turns, one thread each; everything counts, from the interpreter's start to the report on the terminal. The
ratio is that of neighbours, median with its 95% bootstrap interval. A second column leaves out the seconds that a
script of two steps pays as well (start-up, judging, report; see startup.py): what is left grows with the training.
Processor time is that of all processes, so work moved to a thread or to the parent is not hidden.

    python benchmarks/overhead_script.py                      # every script of examples/
    python benchmarks/overhead_script.py train.py --rounds 9 [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import (
    ROOT,
    Estimate,
    Timing,
    machine,
    machine_line,
    single_threaded,
    table,
    timed,
    unstuck_command,
    write_json,
)
from startup import TWO_STEPS


@dataclass(frozen=True)
class Row:
    """Ratios of one script: wall time, wall time beyond start-up, processor time; seconds plain; exit codes seen."""

    script: str
    seconds: float
    wall: Estimate
    beyond_startup: Estimate
    cpu: Estimate
    codes: list[int]


def pairs(script: Path, *, rounds: int) -> list[tuple[Timing, Timing]]:
    """Run a script plainly and watched in turn, in its own folder.

    Args:
        script: What to run.
        rounds: Pairs; the first of one more is thrown away.

    Returns:
        The times of each pair.
    """
    with tempfile.TemporaryDirectory() as runs:
        commands = [sys.executable, str(script)], [*unstuck_command(), "run", "--runs", runs, str(script)]
        made = [
            [timed(command, folder=script.parent, env=single_threaded()) for command in commands]
            for _ in range(rounds + 1)
        ]
    return [(plain, watched) for plain, watched in made[1:]]


def row(script: Path, *, rounds: int, startup: float) -> Row:
    """The ratios of a script.

    Args:
        script: What to run.
        rounds: Pairs of runs.
        startup: Seconds that `unstuck run` adds to a script of two steps.

    Returns:
        Its ratios.
    """
    made = pairs(script, rounds=rounds)
    return Row(
        script.name,
        statistics.median(plain.wall for plain, _ in made),
        Estimate.of([watched.wall / plain.wall for plain, watched in made]),
        Estimate.of([(watched.wall - startup) / plain.wall for plain, watched in made]),
        Estimate.of([watched.cpu / plain.cpu for plain, watched in made]),
        sorted({timing.code for pair in made for timing in pair}),
    )


def main() -> int:
    """Measure the scripts and print a table; 1 when a script failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", type=Path, help="default: examples/*.py")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs of each (default: 5)")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    asked = parser.parse_args()
    scripts = [path.resolve() for path in asked.scripts] or sorted((ROOT / "examples").glob("*.py"))
    facts = machine()
    print(machine_line(facts) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        shortest = Path(folder) / "two_steps.py"
        shortest.write_text(TWO_STEPS)
        startup = statistics.median(b.wall - a.wall for a, b in pairs(shortest, rounds=asked.rounds))
    rows = [row(script, rounds=asked.rounds, startup=startup) for script in scripts]
    cells = [
        [r.script, f"{r.seconds:.1f}", r.wall.text(), r.beyond_startup.text(), r.cpu.text(), r.codes] for r in rows
    ]
    print(f"`unstuck run` adds {startup:.2f} s to a script of two steps; {asked.rounds} pairs of runs a script\n")
    print(table(["script", "python, s", "wall", "wall beyond start-up", "processor", "exit codes"], cells))
    write_json(asked.json, {"machine": facts, "startup": startup, "rows": [asdict(r) for r in rows]})
    return int(any(r.codes != [0] for r in rows))


if __name__ == "__main__":
    sys.exit(main())
