"""How right the diagnosis is: `unstuck run` over a folder of cases, precision and recall by cause, a confusion table.

A case is a folder with `train.py` and `truth.json`: `healthy` (true or false), `causes` (codes accepted as the first
finding, most apt first; several, since several fixes are equivalent), `also_fine` (true too, no false alarm), `fault`
(in a sentence). Where there is a `fixed.py`, --fixed runs it as a healthy program. Programs get SEED and DATA in their
environment. A finding is loud when its severity is warning or error.

    python benchmarks/cases.py --dir CASES --runs RUNS --json verdicts.json    # run, judge, keep the records
    python benchmarks/cases.py --dir CASES --runs RUNS --again                 # judge the kept records anew, in seconds
    python benchmarks/cases.py --dir CASES --cases 'so-*' --seeds 0,1,2 --fixed
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import fnmatch
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measure import machine, machine_line, share, single_threaded, table, unstuck_command, write_json

LOUD = {"warning", "error"}
HEALTHY, NOTHING = "(healthy)", "(nothing)"


@dataclass(frozen=True)
class Case:
    """A program and the truth about it."""

    name: str
    folder: Path
    script: str
    fault: str
    causes: tuple[str, ...]
    also_fine: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Nothing is to be found."""
        return not self.causes

    @property
    def truth(self) -> str:
        """The most apt cause."""
        return HEALTHY if self.healthy else self.causes[0]


def cases(folder: Path, *, names: str = "*", fixed: bool = False) -> list[Case]:
    """The cases of a folder.

    Args:
        folder: Holds a folder a case.
        names: Pattern of the wanted ones.
        fixed: Take the repaired programs of the faulty cases instead; they count as healthy.

    Returns:
        Sorted by name.
    """
    found = []
    for path in sorted(folder.glob("*/truth.json")):
        truth = json.loads(path.read_text())
        name, script = path.parent.name, "fixed.py" if fixed else "train.py"
        if fnmatch.fnmatch(name, names) and (path.parent / script).exists():
            causes = () if fixed or truth["healthy"] else tuple(truth["causes"])
            fine = () if not causes else tuple(truth.get("also_fine") or ())
            fault = f"repaired: {truth['fault']}" if fixed else truth["fault"]
            found.append(Case(name, path.parent, script, fault, causes, fine))
    return found


@dataclass(frozen=True)
class Judged:
    """What was said of one run of a case.

    Attributes:
        causes: Of all findings, most decisive first.
        loud: Of those of severity warning or error.
        says: The first finding's sentence, or why there is none.
        overhead: The watcher's own account of its share, None when there is none.
        confidence: Of the first finding, None when there is none.
    """

    case: Case
    seed: int
    verdict: str
    causes: tuple[str, ...]
    loud: tuple[str, ...]
    says: str
    seconds: float
    overhead: float | None
    confidence: float | None = None

    @classmethod
    def of(cls, case: Case, seed: int, report: dict[str, Any], seconds: float) -> Judged:
        """What a report (as `--json` writes it) says of a case."""
        findings = report["findings"]
        loud = tuple(f["cause"] for f in findings if f["severity"] in LOUD)
        says = findings[0]["says"] if findings else report.get("why_unknown") or ""
        overhead = (report.get("run") or {}).get("overhead")
        sure = findings[0]["confidence"] if findings else None
        causes = tuple(f["cause"] for f in findings)
        return cls(case, seed, report["verdict"], causes, loud, says, seconds, overhead, sure)

    @property
    def first(self) -> str:
        """The diagnosis: the first finding's cause when anything is loud."""
        return self.causes[0] if self.loud else NOTHING

    @property
    def right(self) -> bool:
        """The diagnosis is an accepted one; for a healthy program, that there is none."""
        return not self.loud if self.case.healthy else self.first in self.case.causes

    @property
    def spurious(self) -> list[str]:
        """Loud causes that are not true of the case."""
        return [cause for cause in self.loud if cause not in {*self.case.causes, *self.case.also_fine}]


def run(case: Case, seed: int, *, command: Sequence[str], runs: Path, data: Path, limit: float) -> Judged:
    """Run a case under `unstuck run`.

    Args:
        case: What to run.
        seed: Given to it.
        command: How to start `unstuck`.
        runs: Where its record and report are kept.
        data: Folder given to it as DATA.
        limit: Seconds after which it is stopped.

    Returns:
        What was said; verdict `none` when there was no report.
    """
    kept = _kept(runs, case, seed)
    kept.mkdir(parents=True, exist_ok=True)
    report = kept / "report.json"
    report.unlink(missing_ok=True)
    options = ["run", "--quiet", "--json", str(report), "--runs", str(kept), case.script]
    start = time.perf_counter()
    try:
        env = single_threaded(SEED=str(seed), DATA=str(data))
        done = subprocess.run(
            [*command, *options], cwd=case.folder, env=env, capture_output=True, text=True, timeout=limit
        )
        error = done.stderr.strip()[-300:]
    except subprocess.TimeoutExpired:
        error = f"stopped after {limit:.0f} s"
    seconds = time.perf_counter() - start
    missing = {"verdict": "none", "findings": [], "why_unknown": f"no report: {error}"}
    return Judged.of(case, seed, json.loads(report.read_text()) if report.exists() else missing, seconds)


def again(case: Case, seed: int, *, runs: Path) -> Judged:
    """Judge the record that an earlier run of a case left.

    Args:
        case: What was run.
        seed: It was run with.
        runs: Where records were kept.

    Returns:
        What the rules say of it now.
    """
    from unstuck.doctor import diagnose
    from unstuck.evidence import Record
    from unstuck.report.json import to_json

    before = json.loads((_kept(runs, case, seed) / "report.json").read_text())
    start = time.perf_counter()
    now = to_json(diagnose(Record.read(before["run"]["record"])))
    return Judged.of(case, seed, now, time.perf_counter() - start)


def _kept(runs: Path, case: Case, seed: int) -> Path:
    return runs / f"{case.name}-{Path(case.script).stem}-{seed}"


# ------------------------------------------------------------------------------------------------------------ figures
def overall(judged: Sequence[Judged]) -> str:
    """The figures over all runs."""
    sick, well = [j for j in judged if not j.case.healthy], [j for j in judged if j.case.healthy]
    shares = [j.overhead for j in judged if j.overhead is not None]
    cost = f"{statistics.median(shares):.1%}, at most {max(shares):.1%}" if shares else "unknown"
    rows = [
        ["faulty: anything found", share(bool(j.loud) for j in sick)],
        ["faulty: first finding right", share(j.right for j in sick)],
        ["faulty: right among the first 3", share(any(c in j.case.causes for c in j.causes[:3]) for j in sick)],
        ["faulty: something untrue said", share(bool(j.spurious) for j in sick)],
        ["healthy: false alarm", share(bool(j.loud) for j in well)],
        ["healthy: false error", share(j.verdict == "sick" and bool(j.loud) for j in well)],
        ["a diagnosis given is right (precision)", share(j.right for j in judged if j.loud)],
        ["no report", share(j.verdict == "none" for j in judged)],
        ["own account of the cost, median", cost],
    ]
    return table(["figure", "share, 95% interval"], rows)


def by_cause(judged: Sequence[Judged]) -> str:
    """Recall and precision of each cause.

    Recall is over the runs whose most apt cause it is, and counts any accepted diagnosis. Precision is over the runs
    where it was the first finding. The last column counts runs where it was said loudly, at any rank, and is not true.
    """
    causes = sorted({j.case.truth for j in judged} | {c for j in judged for c in j.loud} | {j.first for j in judged})
    rows = []
    for cause in causes:
        if cause in (HEALTHY, NOTHING):
            continue
        true = [j.right for j in judged if j.case.truth == cause]
        named = [j.right for j in judged if j.first == cause]
        untrue = sum(cause in j.spurious for j in judged)
        rows.append([cause, _ratio(true), _ratio(named), untrue or ""])
    return table(["cause", "recall", "precision", "untrue"], rows)


def _ratio(flags: list[bool]) -> str:
    return f"{sum(flags)}/{len(flags)} = {sum(flags) / len(flags):.2f}" if flags else "-"


def confusion(judged: Sequence[Judged]) -> str:
    """Runs by most apt cause (rows) and first finding (columns); the accepted ones bold."""
    counts = collections.Counter((j.case.truth, j.first, j.right) for j in judged)
    rows_of = sorted({truth for truth, _, _ in counts})
    columns = sorted({first for _, first, _ in counts})

    def cell(truth: str, first: str) -> str:
        right, wrong = counts[truth, first, True], counts[truth, first, False]
        return " + ".join(text for count, text in ((right, f"**{right}**"), (wrong, str(wrong))) if count)

    return table(["is \\ named", *columns], [[truth, *(cell(truth, first) for first in columns)] for truth in rows_of])


BINS = (0.0, 0.6, 0.7, 0.8, 0.9, 1.01)


def calibration(judged: Sequence[Judged]) -> str:
    """How often a diagnosis given with some confidence is right.

    The first columns compare what was said with what came of it. The last asks whether the confidence could be bettered:
    each program's is mapped by an isotonic regression over all other programs (leave one program out), and the
    column gives the mean of what that says for the bin.
    """
    given = [j for j in judged if j.loud and j.confidence is not None]
    mapped = _left_out(given)
    rows = []
    for low, high in itertools.pairwise(BINS):
        part = [(j, m) for j, m in zip(given, mapped, strict=True) if low <= (j.confidence or 0) < high]
        if part:
            said = statistics.mean(j.confidence or 0 for j, _ in part)
            rows.append([
                f"{low:.1f} to {min(high, 1):.1f}", len(part), f"{said:.2f}", share(j.right for j, _ in part),
                f"{statistics.mean(m for _, m in part):.2f}",
            ])  # fmt: skip
    error = statistics.mean(((j.confidence or 0) - j.right) ** 2 for j in given) if given else float("nan")
    rows.append(["all", len(given), f"Brier score {error:.3f}", share(j.right for j in given), ""])
    return table(["confidence", "diagnoses", "mean said", "right", "by the other programs"], rows)


def _left_out(given: Sequence[Judged]) -> list[float]:
    """What an isotonic regression over the other programs makes of each confidence."""
    from sklearn.isotonic import IsotonicRegression

    found = []
    for j in given:
        others = [o for o in given if o.case.name != j.case.name]
        if len({o.right for o in others}) < 2:
            found.append(float(others[0].right) if others else float("nan"))
            continue
        line = IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1)
        line.fit([o.confidence or 0 for o in others], [float(o.right) for o in others])
        found.append(float(line.predict([j.confidence or 0])[0]))
    return found


def wrong(judged: Sequence[Judged]) -> str:
    """The runs whose diagnosis is wrong, with the truth and what was said."""
    rows = [
        [j.case.name, j.seed, j.case.truth, j.first, j.case.fault, j.says.replace("\n", " ")[:160]]
        for j in judged
        if not j.right or j.spurious
    ]
    return table(["case", "seed", "is", "named", "fault", "said"], rows)


def main() -> int:
    """Run or re-judge the cases and print figures in Markdown; 1 when a run gave no report."""
    asked = _arguments()
    facts = machine()
    command = [str(asked.bin / "unstuck")] if asked.bin else unstuck_command()
    data = asked.data or asked.dir.parent / "data"
    wanted = cases(asked.dir, names=asked.cases)
    if asked.fixed:
        wanted += cases(asked.dir, names=asked.cases, fixed=True)
    with tempfile.TemporaryDirectory() as scratch:
        runs = (asked.runs or Path(scratch)).resolve()

        def judge(case: Case, seed: int) -> Judged:
            if asked.again:
                return again(case, seed, runs=runs)
            return run(case, seed, command=command, runs=runs, data=data.resolve(), limit=asked.limit)

        judged = _all(judge, [(case, seed) for case in wanted for seed in asked.seeds], jobs=asked.jobs)
    print(machine_line(facts))
    print(f"\n{len(judged)} runs of {len(wanted)} programs\n\n{overall(judged)}\n\n{by_cause(judged)}")
    print(f"\n{confusion(judged)}\n\n{calibration(judged)}\n\n{wrong(judged)}")
    rows = [
        {**asdict(j), "case": j.case.name, "script": j.case.script, "first": j.first, "right": j.right} for j in judged
    ]
    write_json(asked.json, {"machine": facts, "runs": rows})
    return int(any(j.verdict == "none" for j in judged))


def _all(judge: Callable[[Case, int], Judged], jobs_of: list[tuple[Case, int]], *, jobs: int) -> list[Judged]:
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        judged = []
        for j in pool.map(lambda job: judge(*job), jobs_of):
            judged.append(j)
            mark = "right" if j.right else "WRONG"
            print(
                f"{mark}  {j.case.name} {j.case.script} s{j.seed}: {j.first}, is {j.case.truth}",
                file=sys.stderr,
                flush=True,
            )
        return judged


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, required=True, help="folder of cases")
    parser.add_argument("--cases", default="*", help="pattern of names (default: all)")
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0], help="default: 0")
    parser.add_argument("--fixed", action="store_true", help="run the repaired programs too, as healthy ones")
    parser.add_argument("--again", action="store_true", help="judge the records in --runs anew instead of training")
    parser.add_argument("--runs", type=Path, help="keep records and reports here")
    parser.add_argument("--data", type=Path, help="given to the programs as DATA (default: DIR/../data)")
    parser.add_argument("--bin", type=Path, help="folder of the unstuck to use (default: this Python's)")
    parser.add_argument("--jobs", type=int, default=1, help="programs at a time (default: 1)")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds a program may take (default: 240)")
    parser.add_argument("--json", type=Path, help="write every verdict to this file")
    asked = parser.parse_args()
    if asked.again and not asked.runs:
        parser.error("--again needs --runs, the folder that an earlier run kept its records in")
    return asked


if __name__ == "__main__":
    sys.exit(main())
