"""How the reports speak: numbers, confidence, places and the headline, the same in the terminal and on the page."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

import numpy as np

from unstuck._language import Said, _, joined, many, marked, plural_of, say, spoken, stored, tell, translated
from unstuck.evidence import Event, Model, Optimizer, Record
from unstuck.verdict import CAUSES, Evidence, Finding, Verdict

Scale = Literal["log", "linear", "share"]
VERDICT_MARKS = {"sick": "✗", "healthy": "✓", "unknown": "?"}
SEVERITY_MARKS = {"error": "✗", "warning": "!", "note": "·"}
VERDICT_WORDS = {"sick": say("sick"), "healthy": say("healthy"), "unknown": say("unknown")}
SEVERITY_WORDS = {"error": say("error"), "warning": say("warning"), "note": say("note")}
SCORE_WORDS = {
    "accuracy": say("accuracy"), "r2": "R2", "bit_accuracy": say("bit accuracy"), "perplexity": say("perplexity"), "score": say("score"),
}  # fmt: skip
_CONFIDENCE = (
    (0.95, say("almost certain")),
    (0.85, say("very likely")),
    (0.65, say("likely")),
    (0.4, say("possible")),
    (0.0, say("uncertain")),
)


class Signal(NamedTuple):
    """How a signal is called and drawn."""

    words: str
    scale: Scale


SIGNALS = {
    "loss": Signal(say("loss"), "linear"),
    "score": Signal(say("score"), "linear"),
    "eval_loss": Signal(say("evaluation loss"), "linear"),
    "eval_score": Signal(say("evaluation score"), "linear"),
    "lr": Signal(say("learning rate"), "linear"),
    "grad_norm": Signal(say("gradient norm"), "log"),
    "batch_size": Signal(say("batch size"), "linear"),
    "step_seconds": Signal(say("seconds a step"), "linear"),
    "act_mean": Signal(say("activation mean"), "linear"),
    "act_std": Signal(say("activation deviation"), "log"),
    "act_max": Signal(say("largest activation"), "log"),
    "act_zero": Signal(say("share of zero outputs"), "share"),
    "act_nonfinite": Signal(say("share of NaN or Inf outputs"), "share"),
    "act_saturated": Signal(say("share of saturated outputs"), "share"),
    "act_negative": Signal(say("share of negative outputs"), "share"),
    "act_between": Signal(say("deviation between samples"), "share"),
    "dead_share": Signal(say("share of dead units"), "share"),
    "back_rms": Signal(say("gradient"), "log"),
    "back_max": Signal(say("largest gradient"), "log"),
    "back_zero": Signal(say("share of zero gradients"), "share"),
    "back_nonfinite": Signal(say("share of NaN or Inf gradients"), "share"),
    "grad_rms": Signal(say("gradient"), "log"),
    "grad_max": Signal(say("largest gradient"), "log"),
    "grad_zero": Signal(say("share of zero gradients"), "share"),
    "grad_nonfinite": Signal(say("share of NaN or Inf gradients"), "share"),
    "weight_rms": Signal(say("weight rms"), "log"),
    "weight_max": Signal(say("largest weight"), "log"),
    "weight_nonfinite": Signal(say("share of NaN or Inf weights"), "share"),
    "update_ratio": Signal(say("update / weight"), "log"),
    "stale_rms": Signal(say("gradient left from the step before"), "linear"),
    "lag_grad": Signal(say("gradient by time lag"), "log"),
    "input_mean": Signal(say("input mean"), "linear"),
    "input_std": Signal(say("input deviation"), "log"),
    "hessian_top": Signal(say("largest eigenvalue"), "log"),
    "hessian_bottom": Signal(say("smallest eigenvalue"), "linear"),
    "sharpness": Signal(say("sharpness as the optimizer feels it"), "log"),
    "stable_rate": Signal(say("stable learning rate"), "log"),
    "layer_top": Signal(say("largest eigenvalue"), "log"),
    "edge": Signal(say("rate / stable rate"), "log"),
    "condition": Signal(say("condition"), "linear"),
    "critical_rate": Signal(say("critical rate"), "linear"),
    "distinct_labels": Signal(say("distinct labels"), "linear"),
    "dropout": Signal(say("dropout"), "linear"),
    "eval_input_size": Signal(say("input size in evaluation"), "linear"),
    "features_apart": Signal(say("features apart"), "linear"),
    "gain": Signal(say("gain"), "linear"),
    "in_train_mode": Signal(say("in train mode"), "linear"),
    "input_size": Signal(say("input size"), "linear"),
    "label_share": Signal(say("label share"), "linear"),
    "linear_pairs": Signal(say("linear pairs"), "linear"),
    "loss_part": Signal(say("loss part"), "linear"),
    "mode_gap": Signal(say("mode gap"), "linear"),
    "noise_scale": Signal(say("noise scale"), "linear"),
    "older_nodes": Signal(say("older nodes"), "linear"),
    "output_size": Signal(say("output size"), "linear"),
    "overfit_score": Signal(say("overfit score"), "linear"),
    "pairs": Signal(say("pairs"), "linear"),
    "prediction_share": Signal(say("prediction share"), "linear"),
    "quality_adam": Signal(say("share of the way, by Adam"), "linear"),
    "quality_best_rate": Signal(say("share of the way, at its best rate"), "linear"),
    "reference_score": Signal(say("reference score"), "linear"),
    "share_not_trained": Signal(say("share not trained"), "linear"),
    "steps_in_evaluation_mode": Signal(say("steps in evaluation mode"), "linear"),
    "target_mean": Signal(say("target mean"), "linear"),
    "target_std": Signal(say("target deviation"), "linear"),
    "target_min": Signal(say("target min"), "linear"),
    "target_max": Signal(say("target max"), "linear"),
    "unseen_labels": Signal(say("unseen labels"), "linear"),
    "weight_left": Signal(say("weight left"), "linear"),
    "weight_std": Signal(say("weight deviation"), "linear"),
    "output_min": Signal(say("output min"), "linear"),
    "output_max": Signal(say("output max"), "linear"),
    "output_sums_to_one": Signal(say("output sums to one"), "linear"),
    "output_log_sums_to_one": Signal(say("output log sums to one"), "linear"),
}


def signal(name: str) -> Signal:
    """How a signal is called and drawn; one that is not known is called by its name."""
    return SIGNALS.get(name, Signal(name.replace("_", " "), "linear"))


def clean(text: object) -> str:
    """Text on one line, without control characters that would act on a terminal or a page; ours in the language that is spoken."""
    spaced = " ".join((translated(text) if isinstance(text, Said) else str(text)).split())
    if spaced.isprintable():
        return spaced
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


def signed(value: float) -> str:
    """A difference, with its sign and three digits that count at most: "+0.5", "+0.00332", "-7.2e-5"."""
    if not math.isfinite(value):
        return number(value)
    text = f"{value:+.3g}"
    return _short_exponent(text) if "e" in text else text


def score_name(name: object) -> str:
    """What a score is called, in the language that is spoken."""
    known = SCORE_WORDS.get(str(name))
    return clean(known or stored(clean(name).replace("_", " ")))


def exact(value: Any) -> str:
    """A value somebody chose, or counted, as they would write it: "0.1", "3e-4", "(0.9, 0.95)", "yes"."""
    if isinstance(value, (bool, np.bool_)):
        return _("yes") if value else _("no")
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


_UNITS = (
    (86400, marked("{number} d"), 3600, marked("{number} h")),
    (3600, marked("{number} h"), 60, marked("{number} min")),
    (60, marked("{number} min"), 1, marked("{number} s")),
)


def plural(num: int, noun: str) -> str:
    """A count with its noun: "1 layer", "10 layers", "3 batches". The noun is a literal, so that it can be collected."""
    return many(f"{{number}} {noun}", f"{{number}} {plural_of(noun)}", num)


def duration(seconds: float | None) -> str:
    """A time span in its two largest units: "12.1 s", "1 min 15 s", "2 h 5 min"."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return tell("{seconds:.1f} s", seconds=seconds)
    whole = round(seconds)
    for unit, name, lower, lower_name in _UNITS:
        if whole >= unit:
            rest = whole % unit // lower
            first = tell(name, number=whole // unit)
            return f"{first} {tell(lower_name, number=rest)}" if rest else first
    return tell("{number} s", number=whole)


def confidence(share: float) -> str:
    """A probability in words and as a number: "very likely (0.93)"."""
    word = next((word for limit, word in _CONFIDENCE if share >= limit), _CONFIDENCE[-1][1])
    return f"{_(word)} ({share:.2f})"


def place(name: str, width: int = 28) -> str:
    """A layer's or parameter's name; of a long one the end, which tells more than the path to it."""
    name = clean(name)
    return name if len(name) <= width else "…" + name[1 - width :]


def places(names: Sequence[str], record: Record) -> str:
    """Where a finding sits, short: "net.0 … net.18 (10 layers)"; "the whole program" when it has no place."""
    if not names:
        return _("the whole program")
    if len(names) <= 3:
        return ", ".join(place(name) for name in names)
    are_parameters = all(name in record.parameters and name not in record.layers for name in names)
    told = plural(len(names), "parameter") if are_parameters else plural(len(names), "layer")
    return f"{place(names[0], 24)} … {place(names[-1], 24)} ({told})"


def evidence(items: Iterable[Evidence], most: int = 4) -> list[str]:
    """The numbers a finding rests on, those of one signal and step together, `most` numbers in all."""
    groups: dict[tuple[str, int], list[Evidence]] = {}
    for item in list(items)[:most]:
        groups.setdefault((item.signal, item.step), []).append(item)
    lines = []
    for (name, step), group in groups.items():
        values = ", ".join(f"{place(e.layer)} {measured(name, e.value)}".strip() for e in group)
        called = signal(name).words
        lines.append(
            tell("{signal} of {values} (step {step})", signal=called, values=values, step=step)
            if group[0].layer
            else tell("{signal} {values} (step {step})", signal=called, values=values, step=step)
        )
    return lines


def remedies(finding: Finding) -> str:
    """What to change, most apt first."""
    return ", ".join(clean(name) for name in finding.treated_by)


def headline(verdict: Verdict, record: Record) -> str:
    """The verdict as one plain sentence."""
    if verdict.verdict == "unknown":
        return sentence(verdict.why_unknown or say("too little was seen to judge"))
    name = program(record)
    if verdict.verdict == "healthy":
        return many(
            "Nothing found that keeps {program} from training, in {number} step.",
            "Nothing found that keeps {program} from training, in {number} steps.",
            record.steps,
            program=name,
        )
    if not verdict.findings:
        return tell("Something keeps {program} from training, but no rule names it.", program=name)
    worst = verdict.findings[0]
    told = {"program": _capital(name), "cause": CAUSES[worst.cause]}
    if worst.severity == "error":
        return tell("{program} can't train: {cause}.", **told)
    return tell("{program} trains worse than it could: {cause}.", **told)


def sentence(text: object) -> str:
    """Text from anywhere as one sentence, with a capital and a full stop."""
    plain = clean(text)
    if spoken() == "en":  # elsewhere a Latin letter begins a name
        plain = plain[:1].upper() + plain[1:] if plain.partition(" ")[0].isalpha() else plain
    return plain if plain.endswith((".", "!", "?", "…", "。", "！", "？")) else tell("{sentence}.", sentence=plain)


def program(record: Record) -> str:
    """What was watched, by the name its owner would use."""
    script = record.meta.get("script")
    if script:
        return clean(PurePath(str(script)).name or script)
    return clean(record.program.models[0].name) if record.program.models else _("the network")


def ending(record: Record) -> str:
    """How the run ended where it did not simply finish, "" where it did."""
    status = str(record.meta.get("status") or "finished")
    if status == "finished":
        return ""
    if status == "running":
        return _("still running")
    told = _STATUS.get(status, status)
    exception = next(iter(record.happened("exception")), None)
    if exception is not None:
        kind, message = exception.data.get("type", _("an exception")), exception.data.get("message", "")
        if not message:
            return clean(say("{status} with {type}", status=told, type=kind))
        return clean(say("{status} with {type}: {message}", status=told, type=kind, message=message))
    code = record.meta.get("exit_code")
    return clean(say("{status}, exit code {code}", status=told, code=code) if code is not None else told)


def model(item: Model, record: Record) -> str:
    """A model in a few words."""
    layers = sum(layer.model == item.name and layer.role != "loss" for layer in record.program.layers)
    wraps = tell(" in {wrappers}", wrappers=", ".join(map(clean, item.wrapped_by))) if item.wrapped_by else ""
    parameters = tell("{count} parameters", count=count(item.num_parameters))
    size = [parameters, *([plural(layers, "layer")] if layers else [])]
    return f"{clean(item.name)} ({clean(item.kind)}{wraps}), {', '.join(size)}"


def run(record: Record, *, curvature: bool = True) -> str:
    """How long the run was, what watching it cost (and measuring curvature), and how it ended."""
    seconds = record.meta.get("seconds")
    steps = plural(record.steps, "step")
    parts = [tell("{steps} in {time}", steps=steps, time=duration(seconds)) if seconds is not None else steps]
    if record.meta.get("overhead") is not None:
        parts.append(watching(float(record.meta["overhead"])))
    if record.meta.get("probe_seconds"):
        parts.append(tell("experiments {time} more", time=duration(record.meta["probe_seconds"])))
    if curvature and record.meta.get("curvature_seconds"):
        parts.append(tell("curvature {time} more", time=duration(record.meta["curvature_seconds"])))
    return _(joined(filter(None, (*parts, ending(record))), say(", ")))


def watching(overhead: float) -> str:
    """What watching cost, beside the time of the run: of a few steps, most of it can be the watcher's."""
    if overhead >= 1:
        return tell("watching took {times} times as long as the steps themselves", times=number(overhead, 2))
    return tell("watching took {share} of it", share=percent(overhead))


def moment(told: object) -> str:
    """A time of day as people write it: "2026-11-22 16:49 UTC"; what is none stays as it is."""
    try:
        when = datetime.fromisoformat(str(told))
    except ValueError:
        return clean(told)
    zone = when.strftime("%z")
    return f"{when:%Y-%m-%d %H:%M}" + (
        f" UTC{'' if not zone.strip('+-0') else f'{zone[:3]}:{zone[3:5]}'}" if zone else ""
    )


def reason(text: object) -> str:
    """Why something could not be measured, as the watcher wrote it into a record."""
    if not text:
        return ""
    return clean(text if isinstance(text, Said) else stored(str(text), *_REASONS))


def not_found(record: Record) -> list[str]:
    """What the watcher could not see, sentence by sentence."""
    return [clean(stored(told)) for told in record.program.not_found]


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
    extras += [tell("schedule {name}", name=clean(item.schedule))] if item.schedule else []
    extras += [tell("clipped by {name}", name=clean(item.clipping))] if item.clipping else []
    return ", ".join(filter(None, (clean(item.kind), *extras)))


_REASONS = (
    marked("the network is wrapped by {wrappers}"),
    marked("a snapshot takes {size} MiB, and all may take {most}: there are {number} along the run"),
    marked("a snapshot takes {size} MiB, and all may take {most}: there is none between start and end"),
)
_STATUS = {
    "failed": say("failed"),
    "killed": say("killed"),
    "interrupted": say("interrupted"),
    "stopped": say("stopped"),
}
_TOLD = ("lr", "momentum", "betas", "weight_decay", "nesterov")


def event(item: Event) -> str:
    """What an event tells, its data in reading order."""
    return ", ".join(f"{clean(key)} {exact(value)}" for key, value in item.data.items() if value is not None)


def _short_exponent(text: str) -> str:
    mantissa, exponent = text.split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def _capital(text: str) -> str:
    return _("The network") if text == _("the network") else text
