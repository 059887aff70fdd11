"""How often a treatment that does nothing is called helpful, by the very confirmation that a cure rests on.

The treatment draws one random number before the network is made: what follows is another training of the same kind, so that the
two of a pair differ as two seeds do, and the true effect is zero. Each of the trials has seeds of its own; where the first pairs leave
it open, more are made, as in a cure. At most 5% may be called helpful.

    python benchmarks/null_trials.py                   # 100 trials of three pairs, about ten minutes on two cores
    python benchmarks/null_trials.py --trials 20 --json null.json
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import machine, machine_line, share, write_json
from unstuck.patients import ScriptPatient, Written
from unstuck.source import Edit
from unstuck.treating import Doctor
from unstuck.trials.executor import Log, Processes
from unstuck.trials.job import Job
from unstuck.trials.visit import Dose, Treatment
from unstuck.verdict import Verdict

SCRIPT = """
import torch
from sklearn.datasets import load_digits
from torch import nn

data = load_digits()
x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
order = torch.randperm(len(x))
train, test = order[:300], order[300:]
net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
for epoch in range(4):
    net.train()
    for batch in train[torch.randperm(len(train))].split(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        nn.functional.cross_entropy(net(x[test]), y[test])
"""
NOTHING: Treatment = (Dose("nothing"),)


class Patient(ScriptPatient):
    """A script whose treatment draws a random number."""

    def __init__(self, script: Path, *, shift: int) -> None:
        super().__init__((str(script),))
        text = script.read_text()
        at = text.index("net = ")
        self.nothing = Edit(str(script), at, at, "torch.rand(())\n")
        self.shift = shift

    def job(self, treatment: Treatment = (), **given: Any) -> Job:
        """A run, of a seed that no other trial has."""
        seed = given.pop("seed", 0) + self.shift
        return Job(
            self.command, edits=(self.nothing,) if treatment else (), seed=seed, **{**given, "probe_budget": 0.0}
        )

    def written(self, treatment: Treatment) -> Written:
        """Nothing."""
        return Written()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument(
        "--seeds", type=int, default=3, help="pairs of a trial, and as many again where these leave it open"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        script = Path("train.py")
        script.write_text(SCRIPT)
        with contextlib.closing(Processes(Log(Path("runs")))) as executor:
            for trial in range(args.trials):
                began = time.perf_counter()
                rows.append(one(script, executor, args.seeds, shift=1_000_000 + 1000 * trial))
                print(f"{trial + 1:4d}  {rows[-1]['effect']}  {time.perf_counter() - began:.1f} s", flush=True)
    print(f"\n{machine_line(machine())}\n")
    print(f"called helpful: {share(row['helps'] for row in rows)}")
    if args.json:
        write_json(args.json, {"machine": machine(), "trials": rows})


def one(script: Path, executor: Processes, seeds: int, *, shift: int) -> dict[str, Any]:
    """One trial."""
    doctor = Doctor(Patient(script, shift=shift), executor, seeds=seeds)
    baseline = next(outcome for _, outcome in executor.run([doctor.patient.job(seed=0)]))
    cure = doctor.confirm(Verdict("unknown"), baseline, NOTHING)
    found = cure.prescription
    return {"helps": found is not None, "effect": found.effect.mean if found else None, "why": cure.why}


if __name__ == "__main__":
    main()
