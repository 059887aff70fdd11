"""What `unstuck run` adds to a script that hardly does anything, and what `import unstuck` costs.

The script trains for two steps. `python SCRIPT` and `unstuck run SCRIPT` take turns; the seconds added are the
difference of neighbours, median with its 95% bootstrap interval. For reference, the same with a script that does not
import torch. `python -X importtime -c "import unstuck"` then says what importing takes, and whether torch came along
(it must not).

    python benchmarks/startup.py [--rounds 10] [--json FILE]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Estimate, machine, machine_line, single_threaded, table, timed, unstuck_command, write_json

TWO_STEPS = """\
import torch

model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).pow(2).mean().backward()
    optimizer.step()
"""
SCRIPTS = {"two steps": TWO_STEPS, "no torch": "print('hello')\n"}


@dataclass(frozen=True)
class Added:
    """Seconds of a script alone and under `unstuck run`, and the difference."""

    script: str
    plain: Estimate
    watched: Estimate
    added: Estimate
    codes: list[int]


def added(name: str, text: str, *, rounds: int) -> Added:
    """Run a script in turn both ways.

    Args:
        name: Of the script.
        text: The script.
        rounds: Pairs of runs; one more, first, is thrown away.

    Returns:
        What each way took.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "script.py").write_text(text)
        watched_command = [*unstuck_command(), "run", "--runs", str(folder / "runs"), "script.py"]
        pairs = [
            [timed(command, folder=folder, env=single_threaded()) for command in (_plain(), watched_command)]
            for _ in range(rounds + 1)
        ][1:]
    plain, watched = ([pair[i].wall for pair in pairs] for i in (0, 1))
    differences = [b - a for a, b in zip(plain, watched, strict=True)]
    codes = sorted({timing.code for pair in pairs for timing in pair})
    return Added(name, Estimate.of(plain), Estimate.of(watched), Estimate.of(differences), codes)


def _plain() -> list[str]:
    return [sys.executable, "script.py"]


@dataclass(frozen=True)
class Import:
    """What importing a module took, the dearest modules it brought, and whether torch was among them."""

    statement: str
    milliseconds: Estimate
    dearest: list[tuple[str, float]]
    torch: bool
    failed: str


def imported(statement: str, *, rounds: int) -> Import:
    """Time an import statement with `-X importtime`.

    Args:
        statement: As in `import unstuck`.
        rounds: Fresh interpreters; one more, first, is thrown away.

    Returns:
        The time, without the interpreter's own start.
    """
    command = [sys.executable, "-X", "importtime", "-c", f"import sys; sys.stderr.write('BEGIN\\n'); {statement}"]
    times, last, failed = [], [], ""
    for _ in range(rounds + 1):
        done = subprocess.run(command, capture_output=True, text=True, env=single_threaded())
        failed = done.stderr.strip().splitlines()[-1] if done.returncode else ""
        last = _rows(done.stderr.partition("BEGIN\n")[2])
        times.append(sum(own for own, _, _ in last) / 1000)
    dearest = sorted(((name, total / 1000) for _, total, name in last), key=lambda row: -row[1])[:5]
    names = {name for _, _, name in last}
    return Import(statement, Estimate.of(times[1:]), dearest, "torch" in names, failed)


def _rows(report: str) -> list[tuple[int, int, str]]:
    """`(own microseconds, with what it imports, module)` of each line of an importtime report."""
    found = re.findall(r"^import time: +(\d+) \| +(\d+) \| *(\S+)$", report, re.MULTILINE)
    return [(int(own), int(total), name) for own, total, name in found]


def main() -> int:
    """Measure both, print tables; 1 when importing unstuck imports torch, or a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="pairs of runs (default: 10)")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    asked = parser.parse_args()
    facts = machine()
    print(machine_line(facts) + "\n")
    runs = [added(name, text, rounds=asked.rounds) for name, text in SCRIPTS.items()]
    head = ["script", "python, s", "unstuck run, s", "added, s", "exit codes"]
    print(table(head, [[r.script, r.plain.text(2), r.watched.text(2), r.added.text(2), r.codes] for r in runs]) + "\n")
    imports = [imported(s, rounds=asked.rounds) for s in ("import unstuck", "import unstuck.cli", "import torch")]
    rows = [
        [i.statement, i.milliseconds.text(1), "yes" if i.torch else "no", i.failed or _said(i.dearest)] for i in imports
    ]
    print(table(["statement", "ms", "imports torch", "dearest parts, ms with what they import"], rows))
    write_json(
        asked.json, {"machine": facts, "runs": [asdict(r) for r in runs], "imports": [asdict(i) for i in imports]}
    )
    ours = imports[:2]
    return int(any(i.torch or i.failed for i in ours) or any(r.codes != [0] for r in runs))


def _said(dearest: list[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {ms:.1f}" for name, ms in dearest)


if __name__ == "__main__":
    sys.exit(main())
