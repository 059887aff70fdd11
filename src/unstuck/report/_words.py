"""How the reports speak: numbers, confidence, places and the headline, the same in the terminal and on the page."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

import numpy as np

from unstuck.evidence import Event, Model, Optimizer, Record
from unstuck.verdict import CAUSES, Evidence, Finding, Verdict

Scale = Literal["log", "linear", "share"]
VERDICT_MARKS = {"sick": "✗", "healthy": "✓", "unknown": "?"}
SEVERITY_MARKS = {"error": "✗", "warning": "!", "note": "·"}
_CONFIDENCE = ((0.95, "almost certain"), (0.85, "very likely"), (0.65, "likely"), (0.4, "possible"), (0.0, "uncertain"))


class Signal(NamedTuple):
    """How a signal is called and drawn."""

    words: str
    scale: Scale


SIGNALS = {
    "loss": Signal("loss", "linear"),
    "score": Signal("score", "linear"),
    "eval_loss": Signal("evaluation loss", "linear"),
    "eval_score": Signal("evaluation score", "linear"),
    "lr": Signal("learning rate", "linear"),
    "grad_norm": Signal("gradient norm", "log"),
    "batch_size": Signal("batch size", "linear"),
    "step_seconds": Signal("seconds a step", "linear"),
    "act_mean": Signal("activation mean", "linear"),
    "act_std": Signal("activation deviation", "log"),
    "act_max": Signal("largest activation", "log"),
    "act_zero": Signal("share of zero outputs", "share"),
    "act_nonfinite": Signal("share of NaN or Inf outputs", "share"),
    "act_saturated": Signal("share of saturated outputs", "share"),
    "act_negative": Signal("share of negative outputs", "share"),
    "act_between": Signal("deviation between samples", "share"),
    "dead_share": Signal("share of dead units", "share"),
    "back_rms": Signal("gradient", "log"),
    "back_max": Signal("largest gradient", "log"),
    "back_zero": Signal("share of zero gradients", "share"),
    "back_nonfinite": Signal("share of NaN or Inf gradients", "share"),
    "grad_rms": Signal("gradient", "log"),
    "grad_max": Signal("largest gradient", "log"),
    "grad_zero": Signal("share of zero gradients", "share"),
    "grad_nonfinite": Signal("share of NaN or Inf gradients", "share"),
    "weight_rms": Signal("weight rms", "log"),
    "weight_max": Signal("largest weight", "log"),
    "weight_nonfinite": Signal("share of NaN or Inf weights", "share"),
    "update_ratio": Signal("update / weight", "log"),
    "stale_rms": Signal("gradient left from the step before", "linear"),
    "lag_grad": Signal("gradient by time lag", "log"),
    "input_mean": Signal("input mean", "linear"),
    "input_std": Signal("input deviation", "log"),
    "hessian_top": Signal("largest eigenvalue", "log"),
    "hessian_bottom": Signal("smallest eigenvalue", "linear"),
    "sharpness": Signal("sharpness as the optimizer feels it", "log"),
    "stable_rate": Signal("stable learning rate", "log"),
    "layer_top": Signal("largest eigenvalue", "log"),
    "edge": Signal("rate / stable rate", "log"),
}


def signal(name: str) -> Signal:
    """How a signal is called and drawn; one that is not known is called by its name."""
    return SIGNALS.get(name, Signal(name.replace("_", " "), "linear"))


def clean(text: object) -> str:
    """Text from the user's program on one line, without control characters that would act on a terminal or a page."""
    spaced = " ".join(str(text).split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in {"Cc", "Cf", "Cs"} else c for c in spaced)


def number(value: float | None, digits: int = 3) -> str:
    """A measured number with so many digits that count: "2.30", "8.1e-17", "NaN"; an en dash when there is none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}".rstrip(".")
    return _short_exponent(f"{value:.{digits - 1}e}")


def exact(value: Any) -> str:
    """A value somebody chose, or counted, as they would write it: "0.1", "3e-4", "(0.9, 0.95)", "yes"."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        plain = f"{value:.6g}".replace("nan", "NaN").replace("inf", "Inf").replace("e+", "e")
        return _short_exponent(f"{value:.4e}") if math.isfinite(value) and 0 < abs(value) < 1e-3 else plain
    if isinstance(value, (list, tuple)):
        return f"({', '.join(exact(item) for item in value)})"
    return clean(value)


def measured(name: str, value: float) -> str:
    """A value of a signal: shares as percentages, everything else as `number`."""
    return percent(value) if signal(name).scale == "share" else number(value)


def percent(share: float | None) -> str:
    """A share from 0 to 1 as a percentage with two digits that count."""
    if share is None or not math.isfinite(share):
        return "–"
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{100 * share:.0f}%" if share >= 0.0995 or share == 0 else f"{100 * share:.1f}%"


def count(value: int) -> str:
    """How many, short: "938", "128.8k", "85M"."""
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if value >= unit * (10 if letter == "k" else 1):
            return f"{value / unit:.1f}".removesuffix(".0") + letter
    return str(value)


def plural(num: int, noun: str) -> str:
    """A count with its noun: "1 layer", "10 layers"."""
    return f"{num} {noun}" if num == 1 else f"{num} {noun}s"


def duration(seconds: float | None) -> str:
    """A time span in its two largest units: "12.1 s", "1 min 15 s", "2 h 5 min"."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, lower, lower_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // lower
            return f"{whole // unit} {name}" + (f" {rest} {lower_name}" if rest else "")
    return f"{whole} s"


def confidence(share: float) -> str:
    """A probability in words and as a number: "very likely (0.93)"."""
    word = next((word for limit, word in _CONFIDENCE if share >= limit), "uncertain")
    return f"{word} ({share:.2f})"


def place(name: str, width: int = 28) -> str:
    """A layer's or parameter's name; of a long one the end, which tells more than the path to it."""
    name = clean(name)
    return name if len(name) <= width else "…" + name[1 - width :]


def places(names: Sequence[str], record: Record) -> str:
    """Where a finding sits, short: "net.0 … net.18 (10 layers)"; "the whole program" when it has no place."""
    if not names:
        return "the whole program"
    if len(names) <= 3:
        return ", ".join(place(name) for name in names)
    noun = "parameter" if all(name in record.parameters and name not in record.layers for name in names) else "layer"
    return f"{place(names[0])} … {place(names[-1])} ({plural(len(names), noun)})"


def evidence(items: Iterable[Evidence], most: int = 4) -> list[str]:
    """The numbers a finding rests on, those of one signal and step together, `most` numbers in all."""
    groups: dict[tuple[str, int], list[Evidence]] = {}
    for item in list(items)[:most]:
        groups.setdefault((item.signal, item.step), []).append(item)
    lines = []
    for (name, step), group in groups.items():
        values = ", ".join(f"{place(e.layer)} {measured(name, e.value)}".strip() for e in group)
        lines.append(f"{signal(name).words} {'of ' if group[0].layer else ''}{values} (step {step})")
    return lines


def remedies(finding: Finding) -> str:
    """What to change, most apt first."""
    return ", ".join(clean(name) for name in finding.treated_by)


def headline(verdict: Verdict, record: Record) -> str:
    """The verdict as one plain sentence."""
    if verdict.verdict == "unknown":
        return sentence(verdict.why_unknown or "too little was seen to judge")
    if verdict.verdict == "healthy":
        return f"Nothing found that keeps {program(record)} from training, in {plural(record.steps, 'step')}."
    if not verdict.findings:
        return f"Something keeps {program(record)} from training, but no rule names it."
    worst = verdict.findings[0]
    judgement = "can't train" if worst.severity == "error" else "trains worse than it could"
    return f"{_capital(program(record))} {judgement}: {CAUSES[worst.cause]}."


def sentence(text: object) -> str:
    """Text from anywhere as one sentence, with a capital and a full stop."""
    plain = clean(text)
    plain = plain[:1].upper() + plain[1:] if plain.partition(" ")[0].isalpha() else plain
    return plain if plain.endswith((".", "!", "?", "…")) else f"{plain}."


def program(record: Record) -> str:
    """What was watched, by the name its owner would use."""
    script = record.meta.get("script")
    if script:
        return clean(PurePath(str(script)).name or script)
    return clean(record.program.models[0].name) if record.program.models else "the network"


def ending(record: Record) -> str:
    """How the run ended where it did not simply finish, "" where it did."""
    status = str(record.meta.get("status") or "finished")
    if status == "finished":
        return ""
    if status == "running":
        return "still running"
    exception = next(iter(record.happened("exception")), None)
    if exception is not None:
        return clean(f"{status} with {exception.data.get('type', 'an exception')}: {exception.data.get('message', '')}")
    code = record.meta.get("exit_code")
    return clean(f"{status}, exit code {code}" if code is not None else status)


def model(item: Model, record: Record) -> str:
    """A model in a few words."""
    layers = sum(layer.model == item.name and layer.role != "loss" for layer in record.program.layers)
    wraps = f" in {', '.join(map(clean, item.wrapped_by))}" if item.wrapped_by else ""
    size = [f"{count(item.num_parameters)} parameters", *([plural(layers, "layer")] if layers else [])]
    return f"{clean(item.name)} ({clean(item.kind)}{wraps}), {', '.join(size)}"


def run(record: Record, *, curvature: bool = True) -> str:
    """How long the run was, what watching it cost (and measuring curvature), and how it ended."""
    seconds = record.meta.get("seconds")
    parts = [plural(record.steps, "step") + (f" in {duration(seconds)}" if seconds is not None else "")]
    if record.meta.get("overhead") is not None:
        parts.append(f"watching took {percent(record.meta['overhead'])} of it")
    if record.meta.get("probe_seconds"):
        parts.append(f"experiments {duration(record.meta['probe_seconds'])} more")
    if curvature and record.meta.get("curvature_seconds"):
        parts.append(f"curvature {duration(record.meta['curvature_seconds'])} more")
    return ", ".join(filter(None, (*parts, ending(record))))


def settings(items: Mapping[str, Any]) -> str:
    """Settings of an optimizer or layer: "lr 0.1, momentum 0.9", those that are off left out."""
    shown = []
    for key, value in items.items():
        if value is None or value is False or (isinstance(value, (int, float)) and value == 0):
            continue
        shown.append(clean(key) if value is True else f"{clean(key)} {exact(value)}")
    return ", ".join(shown)


def optimizer(item: Optimizer) -> str:
    """An optimizer in a few words."""
    extras = [settings({key: v for key, v in item.settings.items() if key in _TOLD})]
    extras += [f"schedule {clean(item.schedule)}"] if item.schedule else []
    extras += [f"clipped by {clean(item.clipping)}"] if item.clipping else []
    return ", ".join(filter(None, (clean(item.kind), *extras)))


_TOLD = ("lr", "momentum", "betas", "weight_decay", "nesterov")


def event(item: Event) -> str:
    """What an event tells, its data in reading order."""
    return ", ".join(f"{clean(key)} {exact(value)}" for key, value in item.data.items() if value is not None)


def _short_exponent(text: str) -> str:
    mantissa, exponent = text.split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def _capital(text: str) -> str:
    return "The network" if text == "the network" else text
