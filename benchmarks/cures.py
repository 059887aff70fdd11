"""Cures beside random search, at equal wall time and cores, in one run, program by program.

`cure` is what `unstuck cure` does. Its first control draws from the same treatments: one to three remedies, any that can be
written into the script, with settings that they propose. The second draws what most people turn: rate (log-uniform from 1e-5
to 1), optimizer (SGD, SGD with momentum, RMSprop, Adam) and, where there is a loader, batch size (16 to 256). Both controls are
given the surveyed run and its time for nothing, run one training a core from the same process with torch imported, and may go on
until the cure, its confirmation included, was over. What each holds to be best with one seed is then run with fresh seeds, and
those are what is compared.

The first cure of a method is its first run that comes 95% of the way from the script as it is to the best mean of the three; its
time counts from the end of the surveyed run. `plain` is the script by itself, its torch on all cores.

    python benchmarks/cures.py examples/deep_sigmoid.py examples/softmax_twice.py
    SEED=0 DATA=DATA python benchmarks/cures.py --json cures.json CASES/*/train.py
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from measure import machine, machine_line, share, table, write_json
from unstuck._discover import find
from unstuck.doctor import diagnose
from unstuck.evidence import Record
from unstuck.patients import ScriptPatient
from unstuck.source import EditError
from unstuck.treating import Doctor
from unstuck.trials.compare import skill
from unstuck.trials.executor import Log, Processes
from unstuck.trials.job import Job, Outcome
from unstuck.trials.visit import Dose, Treatment, words

FINAL = 7000  # where the seeds of the comparison begin
METHODS = ("cure", "random treatments", "random rate, optimizer, batch")


class Timed(Processes):
    """Notes when each run of a program that was compared by one seed ended, and how good it was."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Log(folder))
        self.began = time.perf_counter()
        self.seen: list[tuple[float, Job, Outcome]] = []

    def run(self, jobs: Any, **given: Any) -> Iterator[tuple[Job, Outcome]]:
        """Makes jobs."""
        for job, outcome in super().run(jobs, **given):
            self.seen.append((time.perf_counter() - self.began, job, outcome))
            yield job, outcome


@dataclass
class Result:
    """What a method came to for a program."""

    best: Treatment | None
    seconds: float
    runs: int
    seen: list[tuple[float, float]] = field(default_factory=list)  # seconds, skill
    final: tuple[float, ...] = ()


def cured(command: list[str], folder: Path, budget: float) -> tuple[Result, ScriptPatient, Outcome, str]:
    """The cure, the patient as it was surveyed, and the script as it is."""
    patient, executor = ScriptPatient(command), Timed(folder)
    with contextlib.closing(executor):
        cure = Doctor(patient, executor, budget=budget).visit()
    start = next((t for t, job, _ in executor.seen if job.survey), 0.0)
    seen = [(t - start, skill(o)) for t, job, o in executor.seen if job.edits]
    found = cure.prescription
    result = Result(found.treatment if found else None, cure.seconds - start, len(executor.seen), seen)
    return result, patient, cure.baseline, found.text if found else cure.why


def searched(
    patient: ScriptPatient, draw: Callable[[], Treatment], folder: Path, seconds: float, limit: float
) -> Result:
    """Random search for so long."""
    executor = Timed(folder)
    tried: dict[str, Treatment] = {}

    def jobs() -> Iterator[Job]:
        misses = 0
        while misses < 200 and len(tried) < 400:
            treatment = draw()
            try:
                job = patient.job(treatment, limit=limit)
            except EditError:
                misses += 1
                continue
            if job.key in tried or not job.edits:
                misses += 1
                continue
            tried[job.key] = treatment
            yield job

    with contextlib.closing(executor):
        executor.nursery = executor._nursery(patient.job())
        drawn = list(jobs())
        executor.began = time.perf_counter()

        def over(*_: Any) -> Any:
            return time.perf_counter() - executor.began > seconds

        for _ in executor.run(drawn, enough=over, hopeless=lambda *_: "time is over" if over() else ""):
            pass
    seen = [(t, skill(o)) for t, _, o in executor.seen if t <= seconds + 1]
    best = max(executor.seen, key=lambda s: skill(s[2]), default=None)
    return Result(
        tried[best[1].key] if best and skill(best[2]) > -math.inf else None, seconds, len(executor.seen), seen
    )


def any_treatment(patient: ScriptPatient, verdict: Any, rng: np.random.Generator) -> Callable[[], Treatment]:
    """One to three remedies, with settings that they propose for this script."""
    program = patient.proposing(patient.program.record)
    doses: dict[str, list[Dose]] = {}
    for name, remedy in find("remedies").items():
        propose = getattr(sys.modules[remedy.__module__], "propose", None)
        with contextlib.suppress(EditError):
            proposed = propose(program, verdict) if propose else []
            possible = [d for d in (Dose(name, settings) for settings in proposed) if _can(patient, d)]
            if possible:
                doses[name] = possible
    names = sorted(doses)

    def draw() -> Treatment:
        several = rng.choice(len(names), size=min(len(names), int(rng.integers(1, 4))), replace=False)
        return tuple(doses[names[i]][int(rng.integers(len(doses[names[i]])))] for i in several)

    return draw


def usual_knobs(patient: ScriptPatient, rng: np.random.Generator) -> Callable[[], Treatment]:
    """A rate, an optimizer and a batch size."""
    sizes = _can(patient, Dose("batch-size", {"size": 32}))
    optimizers = _can(patient, Dose("optimizer", {"to": "Adam", "rate": 0.01}))

    def draw() -> Treatment:
        rate = float(f"{10 ** rng.uniform(-5, 0):.2g}")
        kinds = ({"to": "SGD"}, {"to": "SGD", "momentum": 0.9}, {"to": "RMSprop"}, {"to": "Adam"})
        kind = kinds[int(rng.integers(4))]
        first = Dose("optimizer", {**kind, "rate": rate}) if optimizers else Dose("learning-rate", {"rate": rate})
        return (first, Dose("batch-size", {"size": int(rng.choice([16, 32, 64, 128, 256]))})) if sizes else (first,)

    return draw


def _can(patient: ScriptPatient, dose: Dose) -> bool:
    try:
        patient.check((dose,))
    except EditError:
        return False
    return True


def compared(patient: ScriptPatient, results: dict[str, Result], folder: Path, seeds: int) -> tuple[float, ...]:
    """Runs what each holds to be best with fresh seeds; gives how good the script as it is gets with those."""
    with contextlib.closing(Processes(Log(folder))) as executor:
        wanted = {(): None, **{r.best: None for r in results.values() if r.best}}
        jobs = {t: [patient.job(t, seed=FINAL + s) for s in range(seeds)] for t in wanted}
        got = {job.key: skill(out) for job, out in executor.run([j for several in jobs.values() for j in several])}
    for result in results.values():
        result.final = tuple(got[j.key] for j in jobs[result.best or ()])
    return tuple(got[j.key] for j in jobs[()])


def one(script: Path, seeds: int, budget: float, seed: int) -> dict[str, Any]:
    """One program."""
    before = Path.cwd()
    os.chdir(script.parent)
    try:
        began = time.perf_counter()
        subprocess.run([sys.executable, script.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        plain = time.perf_counter() - began
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            cure, patient, baseline, told = cured([script.name], root / "cure", budget)
            if not hasattr(patient, "program") or not math.isfinite(baseline.skill):
                return {"program": script.parent.name + "/" + script.name, "plain": plain, "why": told or "no score"}
            verdict = diagnose(Record.read(baseline.record))
            rng = np.random.default_rng(seed)
            draws = (any_treatment(patient, verdict, rng), usual_knobs(patient, rng))
            limit = 20 + 10 * baseline.seconds
            results = dict(
                zip(
                    METHODS,
                    (cure, *(searched(patient, d, root / f"c{i}", cure.seconds, limit) for i, d in enumerate(draws))),
                    strict=True,
                )
            )
            own = compared(patient, results, root / "final", seeds)
    finally:
        os.chdir(before)
    return judged(script, plain, cure.seconds, told, own, results)


def judged(
    script: Path, plain: float, seconds: float, told: str, own: tuple[float, ...], results: dict[str, Result]
) -> dict[str, Any]:
    """The figures of a program."""
    start = _mean(own)
    top = max(_mean(r.final) for r in results.values())
    goal = start + 0.95 * (top - start)
    row: dict[str, Any] = {
        "program": f"{script.parent.name}/{script.name}", "plain": plain, "seconds": seconds, "told": told, "as it is": start, "goal": goal,
        "methods": {},
    }  # fmt: skip
    for name, result in results.items():
        first = (
            next((t for t, good in sorted(result.seen) if good >= goal), math.inf) if top - start > 0.02 else math.inf
        )
        row["methods"][name] = {
            "best": words(result.best) if result.best else "", "final": list(result.final), "mean": _mean(result.final),
            "runs": result.runs, "first": first if math.isfinite(first) else None,
        }  # fmt: skip
    return row


def _first(row: dict[str, Any], method: str) -> float:
    first = row["methods"][method]["first"]
    return math.inf if first is None else first


def _mean(values: tuple[float, ...]) -> float:
    return statistics.fmean(max(-1.0, v) for v in values)


def report(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    full = [row for row in rows if "methods" in row]
    lines = []
    for row in full:
        cells = [row["program"], f"{row['seconds'] / row['plain']:.1f}", f"{row['as it is']:.2f}"]
        for method in METHODS:
            m = row["methods"][method]
            cells += [f"{m['mean']:.2f}", f"{m['first']:.0f} s" if m["first"] is not None else "-"]
        lines.append([*cells, row["methods"]["cure"]["best"]])
    heads = ["program", "cure's time / plain", "as it is", *(h for m in METHODS for h in (m, "first")), "prescribed"]
    sick = [r for r in full if max(m["mean"] for m in r["methods"].values()) - r["as it is"] > 0.02]
    told = [table(heads, lines), ""]
    for other in METHODS[1:]:
        least = [r["methods"]["cure"]["mean"] >= r["methods"][other]["mean"] - 0.01 for r in full]
        faster = [_first(r, "cure") < _first(r, other) for r in sick]
        told.append(
            f"cure beside {other}: score better or equal (0.01) in {share(least)}; strictly faster to the first cure in {share(faster)}"
        )
    ratios = [r["seconds"] / r["plain"] for r in sick if r["methods"]["cure"]["best"]]
    if ratios:
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        told.append(f"time to a confirmed cure over the plain run: median {middle:.1f}, from {low:.1f} to {high:.1f}")
    told += [f"{r['program']}: {r['why']}" for r in rows if "why" in r]
    return "\n".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="of the comparison")
    parser.add_argument("--budget", type=float, default=120.0, help="of the cure, seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the random search")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    facts = machine()
    rows: list[dict[str, Any]] = []
    for script in args.scripts:
        rows.append(one(script.absolute(), args.seeds, args.budget, args.seed))
        print(report(rows[-1:]), flush=True)
        if args.json:
            write_json(args.json, {"machine": facts, "programs": rows})
    print(f"\n{machine_line(facts)}\n\n{report(rows)}")


if __name__ == "__main__":
    main()
