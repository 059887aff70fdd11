"""How other tools diagnose the same programs: each is attached to each case by itself, and what it says is compared.

A case is as `cases.py` has it. Its program runs unmodified, once a tool, in a process of its own; `attached.py` attaches
the tool in the use its documentation shows first. A tool that can't be attached (no module, no torch optimizer), that
raises, or that makes the program raise, is not applicable: it said nothing of that program.

A tool names what it sees in its own words. `ACCEPTS` has the causes that each of them may stand for, by what the text of
the finding and the tool's documentation give as explanation and as cure; where in doubt, one more. A finding is right
if any of those is an accepted cause of the case. `unstuck` runs as `unstuck run --json` and must name the cause itself.

    python benchmarks/peers.py --dir CASES --json peers.json
    python benchmarks/peers.py --dir CASES OTHER_CASES --data DATA --runs RUNS --minutes 25    # go on later: RUNS is kept
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cases import LOUD, Case, cases, share
from measure import machine, machine_line, single_threaded, table, unstuck_command, write_json
from unstuck.verdict import CAUSES

ATTACHED = str(Path(__file__).resolve().with_name("attached.py"))

ACCEPTS: dict[str, dict[str, str]] = {
    "torchtest2": {
        "output_finite FAIL": "non-finite",
        "output_varies WARN": "dead-units saturated-activation bad-initialization zero-gradient loss-broadcast "
        "unnormalized-input",
        "eval_determinism WARN": "mode-mismatch",
        "loss FAIL": "non-finite zero-gradient parameters-not-trained",
        "initial_loss WARN": "bad-initialization unnormalized-input output-loss-mismatch degenerate-targets",
        "optimizer_coverage FAIL": "parameters-not-trained",
        "optimizer_coverage WARN": "parameters-not-trained",
        "gradient_flow FAIL": "parameters-not-trained zero-gradient",
        "gradient_flow WARN": "zero-gradient dead-units vanishing-gradient saturated-activation bad-initialization",
        "gradient_magnitude FAIL": "non-finite exploding-gradient",
        "gradient_magnitude WARN": "exploding-gradient bad-initialization unnormalized-input unnormalized-target "
        "learning-rate-too-high loss-scale",
        "params_change FAIL": "parameters-not-trained learning-rate-too-low zero-gradient",
        "params_change WARN": "zero-gradient vanishing-gradient dead-units saturated-activation",
        "frozen_params FAIL": "",
        "input_dependency FAIL": "dead-units",
        "input_dependency WARN": "",
        "batch_independence FAIL": "output-loss-mismatch",
        "batch_independence WARN": "output-loss-mismatch",
        "overfit_batch FAIL": "learning-rate-too-high learning-rate-too-low non-finite exploding-gradient "
        "output-loss-mismatch output-range loss-broadcast zero-gradient parameters-not-trained",
        "overfit_batch WARN": "learning-rate-too-low too-little-capacity undertrained",
    },
    "torchmortem": {
        "Dead units": "dead-units bad-initialization learning-rate-too-high",
        "Vanishing gradients detected": "vanishing-gradient saturated-activation bad-initialization",
        "Exploding gradients detected": "exploding-gradient learning-rate-too-high bad-initialization non-finite",
        "Gradient stalling": "vanishing-gradient zero-gradient dead-units saturated-activation bad-initialization "
        "parameters-not-trained",
        "High gradient noise (low SNR)": "batch-too-small learning-rate-too-high",
        "Training divergence detected": "learning-rate-too-high exploding-gradient non-finite",
        "Loss plateau detected": "learning-rate-too-low critical-point",
        "Catapult phase detected": "learning-rate-too-high",
        "Edge of stability regime detected": "learning-rate-too-high",
        "Rank collapse": "over-regularized learning-rate-too-high too-little-capacity",
        "Activation saturation": "saturated-activation vanishing-gradient bad-initialization learning-rate-too-high",
        "Update ratio too low": "learning-rate-too-low vanishing-gradient",
        "Update ratio too high": "learning-rate-too-high exploding-gradient",
        "Weight norm explosion": "exploding-gradient learning-rate-too-high",
        "Stagnant weight norms": "vanishing-gradient learning-rate-too-low parameters-not-trained",
        "Inter-layer weight norm imbalance": "bad-initialization ill-conditioned",
    },
    "gradsnitch": {
        "Loss became NaN/Inf": "non-finite learning-rate-too-high exploding-gradient",
        "Gradient norm exploded (inf)": "exploding-gradient non-finite learning-rate-too-high",
        "Gradient-norm spike": "exploding-gradient learning-rate-too-high",
        "Train/val divergence (overfitting)": "overfitting",
        "Loss plateau (no early progress)": "learning-rate-too-low bad-initialization dead-units zero-gradient "
        "parameters-not-trained degenerate-targets labels-unrelated critical-point",
        "Loss divergence (sustained rise)": "learning-rate-too-high exploding-gradient",
        "Vanishing gradients": "vanishing-gradient dead-units saturated-activation bad-initialization "
        "learning-rate-too-low",
        "LR too high (update/weight ratio)": "learning-rate-too-high exploding-gradient",
        "LR too low (update/weight ratio)": "learning-rate-too-low parameters-not-trained",
        "Loss oscillation (growing amplitude)": "learning-rate-too-high exploding-gradient",
        "LR schedule collapsed early": "learning-rate-too-low undertrained",
    },
    "ormas-monitor": {
        "nonfinite_loss": "non-finite exploding-gradient learning-rate-too-high",
        "nonfinite_gradient": "non-finite exploding-gradient learning-rate-too-high",
        "loss_spike": "learning-rate-too-high exploding-gradient",
        "alarm: no_gradient": "zero-gradient dead-units vanishing-gradient saturated-activation",
        "alarm: vanishing": "vanishing-gradient zero-gradient dead-units saturated-activation",
        "alarm: exploding": "exploding-gradient learning-rate-too-high",
        "channels": "dead-units bad-initialization",
        "certificate": "dead-units bad-initialization",
        "no_gradients": "zero-gradient parameters-not-trained gradients-accumulate",
    },
    "unstuck": {cause: cause for cause in CAUSES},
}


@dataclass(frozen=True)
class Diagnosis:
    """What a tool said of a case.

    Attributes:
        why_not: Why it isn't applicable, None when it is.
        loud: Names of its findings of severity warning or error, most severe first.
        codes: For each, the causes it may stand for.
    """

    tool: str
    case: Case
    why_not: str | None
    loud: tuple[str, ...]
    codes: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, tool: str, case: Case, result: dict[str, Any]) -> Diagnosis:
        """From what was kept: `why_not`, and `said` with the name, severity and sentence of each finding."""
        loud = tuple(dict.fromkeys(name for name, severity, _ in result["said"] if severity in LOUD))
        return cls(tool, case, result["why_not"], loud, tuple(tuple(ACCEPTS[tool][name].split()) for name in loud))

    def right(self, among: int | None = None) -> bool:
        """Whether one of the first findings may stand for an accepted cause."""
        return any(code in self.case.causes for codes in self.codes[:among] for code in codes)

    def text(self) -> str:
        """The first finding and how many more there are, bold from where a right one is."""
        if self.why_not:
            return "not applicable"
        first, more = "".join(self.loud[:1]), f"+{len(self.loud) - 1}" if len(self.loud) > 1 else ""
        if self.right(1):
            first = f"**{first}**"
        elif self.right():
            more = f"**{more}**"
        return f"{first} {more}".strip()


def diagnose(tool: str, case: Case, *, seed: int, runs: Path, data: Path, limit: float) -> Diagnosis:
    """Run a case with a tool attached, unless that has been done.

    Args:
        tool: A key of `ACCEPTS`.
        case: What to run.
        seed: Given to it.
        runs: Where what the tool said is kept.
        data: Folder given to it as DATA.
        limit: Seconds after which it is stopped.

    Returns:
        What the tool said.
    """
    kept = _kept(runs, case, seed, tool)
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            own = [*unstuck_command(), "run", "--quiet", "--json", str(report), "--runs", folder, case.script]
            other = [sys.executable, ATTACHED, tool, case.script, str(report), folder]
            try:
                done = subprocess.run(
                    own if tool == "unstuck" else other, cwd=case.folder, capture_output=True, text=True, timeout=limit,
                    env=single_threaded(SEED=str(seed), DATA=str(data)),
                )  # fmt: skip
                why = f"no report: {done.stderr.strip()[-300:]}"
            except subprocess.TimeoutExpired:
                why = f"stopped after {limit:.0f} s"
            result = json.loads(report.read_text()) if report.exists() else {"why_not": why, "said": []}
        if "findings" in result:
            said = [(finding["cause"], finding["severity"], finding["says"]) for finding in result["findings"]]
            result = {"why_not": None, "said": said}
        write_json(kept, result)
    return Diagnosis.of(tool, case, json.loads(kept.read_text()))


def _kept(runs: Path, case: Case, seed: int, tool: str) -> Path:
    return runs / f"{case.name}-{seed}-{tool}.json"


def figures(diagnoses: Sequence[Diagnosis], tools: Sequence[str]) -> str:
    """One row a tool, over all programs; where it isn't applicable it said nothing."""
    rows = []
    for tool in tools:
        own = [d for d in diagnoses if d.tool == tool]
        sick, well = [d for d in own if not d.case.healthy], [d for d in own if d.case.healthy]
        rows.append([
            tool, share(d.why_not is None for d in own), share(bool(d.loud) for d in sick),
            share(d.right() for d in sick), share(d.right(1) for d in sick), share(bool(d.loud) for d in well),
        ])  # fmt: skip
    head = ["tool", "applicable", "faulty: anything found", "faulty: right among the findings", "faulty: right first"]
    return table([*head, "healthy: false alarm"], rows)


def programs(diagnoses: Sequence[Diagnosis], tools: Sequence[str]) -> str:
    """What each tool says of each program."""
    said = {(d.case.name, d.tool): d.text() for d in diagnoses}
    names = sorted({(d.case.healthy, d.case.name, d.case.truth) for d in diagnoses})
    rows = [[name, truth, *(said[name, tool] for tool in tools)] for _, name, truth in names]
    return table(["case", "is", *tools], rows)


def not_applicable(diagnoses: Sequence[Diagnosis]) -> str:
    """The programs that a tool couldn't be attached to, and why."""
    rows = [[d.tool, d.case.name, d.why_not.replace("\n", " ")[:160]] for d in diagnoses if d.why_not]
    return table(["not applicable", "case", "why"], sorted(rows))


def main() -> int:
    """Run every case with every tool and print figures in Markdown."""
    asked = _arguments()
    assert all(code in CAUSES for names in ACCEPTS.values() for codes in names.values() for code in codes.split())
    facts, start = machine(), time.monotonic()
    wanted = [case for folder in asked.dir for case in cases(folder.resolve(), names=asked.cases)]
    random.Random(0).shuffle(wanted)  # so that what is done when time is up is a fair sample
    diagnoses: list[Diagnosis] = []
    with tempfile.TemporaryDirectory() as scratch:
        runs = (asked.runs or Path(scratch)).resolve()
        data = (asked.data or asked.dir[0].parent / "data").resolve()
        for case in wanted:
            late = time.monotonic() - start > 60 * asked.minutes
            if late and not all(_kept(runs, case, asked.seed, tool).exists() for tool in asked.tools):
                continue
            for tool in asked.tools:
                told = diagnose(tool, case, seed=asked.seed, runs=runs, data=data, limit=asked.limit)
                diagnoses.append(told)
                says = told.why_not or ", ".join(told.loud) or "nothing"
                print(f"{case.name} ({case.truth})  {tool}: {says}", file=sys.stderr, flush=True)
    done = {(d.case.healthy, d.case.name) for d in diagnoses}
    well = sum(healthy for healthy, _ in done)
    print(f"{machine_line(facts)}\n\n{len(done) - well} faulty and {well} healthy programs of {len(wanted)}\n")
    print(f"{figures(diagnoses, asked.tools)}\n\n{programs(diagnoses, asked.tools)}\n\n{not_applicable(diagnoses)}")
    rows = [{**asdict(d), "case": d.case.name, "causes": d.case.causes} for d in diagnoses]
    write_json(asked.json, {"machine": facts, "diagnoses": rows})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, nargs="+", required=True, help="folders of cases")
    parser.add_argument("--cases", default="*", help="pattern of names (default: all)")
    parser.add_argument("--tools", type=lambda text: text.split(","), default=list(ACCEPTS), help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="given to the programs (default: 0)")
    parser.add_argument("--runs", type=Path, help="keep what was said here, and don't run again what is here")
    parser.add_argument("--data", type=Path, help="given to the programs as DATA (default: first DIR/../data)")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds a program may take (default: 240)")
    parser.add_argument("--minutes", type=float, default=1e9, help="then begin no case (0: take what is in RUNS)")
    parser.add_argument("--json", type=Path, help="write every diagnosis to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
