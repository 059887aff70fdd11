"""What a record says of batch sizes, gathered from its events, and put into words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unstuck._language import _, say, tell
from unstuck.evidence import Record
from unstuck.report._words import count, number, percent, place, plural, program, reason

_NONE: Mapping[str, Any] = {}
_FEW = 10  # updates a pass, below which a caveat is told
_MUCH = 0.25  # of a step, which is told where it isn't the update's
_CAVEAT_NAMES = 3


@dataclass(frozen=True)
class Batch:
    """What was measured of batch sizes; parts that weren't are empty.

    Attributes:
        own: The training as it is.
        noise: One a point of the run, in the order of steps.
        rate: How many times the script's rate is stable.
        memory: The largest batch that fits.
        sizes: One a batch size, ascending.
        choice: Which is recommended.
        proof: What came of training with it, where that was asked for.
        why: Why nothing could be told, "" where something was.
        notes: What fell short, in sentences.
    """

    own: Mapping[str, Any] = field(default_factory=dict)
    noise: tuple[Mapping[str, Any], ...] = ()
    rate: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[Mapping[str, Any], ...] = ()
    choice: Mapping[str, Any] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """What is advised: "change", "keep" or, where nothing could be told, "unknown"."""
        if not self.choice or self.choice["why"] == "busy":
            return "unknown"
        return "keep" if self.is_own(self.chosen or {"size": self.choice["recommended"]}) else "change"

    @property
    def chosen(self) -> Mapping[str, Any]:
        """The recommended size with its numbers; empty where there is none."""
        return next((size for size in self.sizes if self.is_recommended(size)), _NONE)

    @property
    def adds_up(self) -> bool:
        """Whether several batches go into an update of the script."""
        return num_batches(self.own) > 1

    def is_own(self, size: Mapping[str, Any]) -> bool:
        """Whether updates of the script are made so."""
        return size["size"] == self.choice.get("own") and num_batches(size) == num_batches(self.own)

    def is_recommended(self, size: Mapping[str, Any]) -> bool:
        """Whether that is how updates should be made."""
        return size["size"] == self.choice.get("recommended") and num_batches(size) == num_batches(self.choice)

    @property
    def new_rate(self) -> float:
        """The learning rate that goes with it; NaN where the script's isn't known."""
        rate = self.own.get("rate")
        return rate * self.chosen["rate"] if rate and self.chosen else math.nan

    @property
    def new_updates(self) -> int:
        """Updates with it, to where the run got."""
        return round(self.own["updates"] * self.chosen["updates"]) if self.chosen else 0


def num_batches(part: Mapping[str, Any]) -> int:
    """Batches that go into an update; one in records that were made when no others were measured."""
    return int(part.get("num_batches") or 1)


def gathered(record: Record) -> Batch:
    """What a record says of batch sizes."""
    parts = [event.data for event in record.happened("batch")]

    def one(name: str) -> Mapping[str, Any]:
        return next((p for p in parts if p.get("part") == name), _NONE)

    def many(name: str, by: str) -> tuple[Mapping[str, Any], ...]:
        return tuple(sorted((p for p in parts if p.get("part") == name), key=lambda p: p[by]))

    choice = one("choice")
    why = _busy(choice, one("own")) if choice else reason(one("none").get("why")) or _why(record, parts)
    notes = tuple(reason(p["note"]) for p in parts if p.get("note"))
    return Batch(
        one("own"),
        many("noise", "step"),
        one("rate"),
        one("memory"),
        many("size", "size"),
        choice,
        one("proof"),
        why,
        notes,
    )


def _busy(choice: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Why times can't be relied on; "" where they can."""
    if choice["why"] != "busy":
        return ""
    return tell(
        "for {waited} of the time other programs had the processor, and torch's {threads} wait for "
        "one another then. Run it again when the machine is idle, or with OMP_NUM_THREADS=1",
        waited=percent(choice["waited"]),
        threads=plural(own["threads"], "thread"),
    )


def _why(record: Record, parts: Sequence[Mapping[str, Any]]) -> str:
    from unstuck.report._words import ending

    if not record.steps:
        return _("no training was seen")
    failed = next((e.data.get("error") for e in record.happened("watcher-error") if e.data.get("where") == "batch"), "")
    ended = ending(record)
    told = tell("the script {ended}", ended=ended) if ended else _("the script ended before anything could be measured")
    return str(failed) if failed else (_("there was too little data to compare gradients") if parts else told)


# ---------------------------------------------------------------------- in words


def headline(found: Batch, record: Record) -> str:
    """The verdict as one sentence."""
    name, own = program(record), amount(found.own, found) if found.choice else ""
    if found.verdict == "unknown":
        return tell("{name}: it can't be told which batch size is best: {why}.", name=name, why=found.why)
    if found.verdict == "keep":
        alike = [s for s in found.sizes if s["size"] == found.choice["fastest"]]
        fastest = min(alike, key=lambda s: s["time"])
        if found.choice["why"] == "fastest":
            return tell(
                "{name} is best left with batches of {own}: no other size would get it there faster.",
                name=name,
                own=own,
            )
        return tell(
            "{name} is best left with batches of {own}: those of {size} would take {time} of the time, "
            "but by what is known it may be {low} to {high}.",
            name=name,
            own=own,
            size=amount(fastest, found),
            time=percent(fastest["time"]),
            low=percent(fastest["low"]),
            high=percent(fastest["high"]),
        )
    chosen = found.chosen
    return tell(
        "With batches of {size} instead of {own}, {name} would get where it got in {time} of the "
        "time ({low} to {high}).",
        size=amount(chosen, found),
        own=own,
        name=name,
        time=percent(chosen["time"]),
        low=percent(chosen["low"]),
        high=percent(chosen["high"]),
    )


def amount(size: Mapping[str, Any], found: Batch) -> str:
    """Samples in an update, with the batches they come in where a script adds up batches: "32 (4 × 8)"."""
    if not found.adds_up:
        return str(size["size"])
    count = num_batches(size)
    return f"{size['size']} ({_('in one go') if count == 1 else _product(size)})"


def _product(size: Mapping[str, Any]) -> str:
    return f"{num_batches(size)} × {size['size'] // num_batches(size)}"


def advice(found: Batch) -> str:
    """What to change, as one sentence; "" where nothing is."""
    if found.verdict != "change":
        return ""
    chosen, rate = found.chosen, found.own.get("rate")
    told = tell("learning rate times {rate}", rate=number(chosen["rate"], 2))
    told += (
        tell(" ({rate} becomes {new_rate})", rate=number(rate, 2), new_rate=number(found.new_rate, 2)) if rate else ""
    )
    if found.adds_up:
        told = f"{_quicker(found)}{_('; ')}{told if chosen['rate'] != 1 else _('learning rate as it is')}"
        if chosen["size"] == found.own["size"]:
            return told
    rule = _("the square root of what the updates save") if found.own.get("adaptive") else _("by what the updates save")
    passes = tell("{samples} times the passes over the data", samples=number(chosen["samples"], 2))
    if found.adds_up:
        return tell(
            "{told}, {rule}; and {passes}, so {new_updates} updates in place of {updates}: a schedule must be stretched to that",
            told=told,
            rule=rule,
            passes=passes,
            new_updates=found.new_updates,
            updates=found.own["updates"],
        )
    return tell(
        "Batch size {size}, {told}, {rule}; and {passes}, so {new_updates} updates in place of "
        "{updates}: a schedule must be stretched to that",
        size=chosen["size"],
        told=told,
        rule=rule,
        passes=passes,
        new_updates=found.new_updates,
        updates=found.own["updates"],
    )


def _quicker(found: Batch) -> str:
    """In which batches updates are to be made, and what that brings: "32 in one go instead of 4 × 8: 2.1 times as fast; memory …"."""
    chosen = found.chosen
    told = tell(
        "{split} instead of {own}: {speed} times as fast",
        split=tell("{size} in one go", size=chosen["size"]) if num_batches(chosen) == 1 else _product(chosen),
        own=_product(found.own),
        speed=number(1 / chosen["time"], 2),
    )
    if chosen.get("bytes") and found.memory.get("limit"):
        told += tell(
            "; memory {memory} of {room}", memory=size_of(chosen["bytes"]), room=size_of(found.memory["limit"])
        )
    return told


def facts(found: Batch) -> Iterator[tuple[str, str]]:
    """What was found, line by line: a label, and a sentence without a full stop."""
    for label, told in (
        (say("noise"), _noise(found)),
        (say("critical"), _critical(found)),
        (say("time"), _time(found)),
        (say("memory"), _memory(found)),
        (say("rate"), _rate(found)),
        (say("proof"), _proof(found)),
    ):
        if told:
            yield label, told


def _noise(found: Batch) -> str:
    if not found.noise:
        return ""
    first, last = found.noise[0], found.noise[-1]
    told = tell(
        "noise equals gradient in a batch of {scale} samples at step {step}", scale=scale(first), step=first["step"]
    )
    return (
        tell("{told}, of {scale} at step {step}", told=told, scale=scale(last), step=last["step"])
        if len(found.noise) > 1
        else told
    )


def scale(point: Mapping[str, Any]) -> str:
    """A noise scale with its interval; a lower bound where the gradient can't be told from noise."""
    if not point["known"]:
        return tell("at least {low}", low=number(point["low"], 2))
    return tell(
        "{scale} ({low} to {high})",
        scale=number(point["scale"], 2),
        low=number(point["low"], 2),
        high=number(point["high"], 2),
    )


def _critical(found: Batch) -> str:
    if not found.choice:
        return ""
    critical = found.choice.get("critical")
    if critical is None:
        return _("no gradient is to be told from noise anywhere in the run: twice the batch takes half the updates")
    return tell(
        "batch size {critical} over the run: there updates, and samples, are twice what they must be at least",
        critical=number(critical, 2),
    )


def _time(found: Batch) -> str:
    lines = found.choice.get("lines")
    if not lines:
        return ""
    parts = [
        tell(
            "{update} an update, and {sample} a sample",
            update=time_of(line["fixed"]),
            sample=time_of(line["each"]),
        )
        + (tell(" up to {upto}", upto=number(line["upto"], 2)) if line["upto"] is not None else "")
        for line in lines
    ]
    device, threads = found.own.get("device"), found.own.get("threads")
    where = f"{plural(int(threads), 'thread')}" if device == "cpu" and threads else str(device)
    return f"{_('; beyond, ').join(parts)} ({where})"


def _memory(found: Batch) -> str:
    memory = found.memory
    if not memory:
        return ""
    told = tell(
        "{size} samples fit into the {room} that are free",
        size=count(int(memory["size"])),
        room=size_of(memory["limit"]),
    )
    if memory.get("each") is None:
        return told
    return tell(
        "{fixed}, and {each} a sample: {told}",
        fixed=size_of(memory["fixed"]),
        each=size_of(memory["each"]),
        told=told,
    )


def _rate(found: Batch) -> str:
    critical = found.rate.get("start_critical") or found.rate.get("critical")
    if not found.rate:
        return ""
    if critical is None:
        return _("along the script's own step the loss rises at no rate that was tried")
    return tell(
        "along the script's own first step the loss is higher than before it from {critical} times the rate on",
        critical=number(critical, 2),
    )


def _proof(found: Batch) -> str:
    proof = found.proof
    if not proof:
        return ""
    if proof.get("why"):
        return tell("none: {why}", why=reason(proof["why"]))
    time, loss = proof["seconds"], proof["loss"]
    told = tell(
        "{pairs} of runs: {time} of the time ({low} to {high}), to {loss} times the loss ({loss_low} to {loss_high})",
        pairs=plural(int(proof["pairs"]), "pair"),
        time=percent(time["ratio"]),
        low=percent(time["low"]),
        high=percent(time["high"]),
        loss=number(loss["ratio"], 2),
        loss_low=number(loss["low"], 2),
        loss_high=number(loss["high"], 2),
    )
    if proof.get("score_with") is not None and proof.get("score_without") is not None:
        told += tell(
            "; score {without} as it is, {treated} with it",
            without=number(proof["score_without"]),
            treated=number(proof["score_with"]),
        )
    judged = {True: _("it holds"), False: _("it does not hold"), None: _("too few pairs to tell")}[proof["holds"]]
    return f"{told}: {judged}"


def caveats(found: Batch) -> Iterator[str]:
    """What must be kept in mind, sentence by sentence."""
    own, chosen = found.own, found.chosen
    if not found.choice:
        return
    norms = own.get("batch_norms") or ()
    if norms:
        names = ", ".join(place(str(n)) for n in norms[:_CAVEAT_NAMES]) + (
            _(" and others") if len(norms) > _CAVEAT_NAMES else ""
        )
        yield (
            tell(
                "batch norm ({names}) normalises by the batch: gradients of single samples mean nothing, so "
                "whole batches of {size} were compared, and another size trains another network",
                names=names,
                size=own["size"] // num_batches(own),
            )
        )
    unknown = sum(not point["known"] for point in found.noise)
    if unknown:
        yield (
            tell(
                "at {unknown} of {points} of the run no gradient is to be told from noise in {samples} "
                "samples: the noise scale may be larger there",
                unknown=unknown,
                points=plural(len(found.noise), "point"),
                samples=found.noise[0]["samples"],
            )
        )
    total = own.get("num_samples")
    if total and total / chosen["size"] < _FEW and found.verdict == "change":
        yield (
            tell(
                "{updates} make a pass: after as many passes as now the network would have learned less",
                updates=plural(math.ceil(total / chosen["size"]), "update"),
            )
        )
    most = found.choice.get("most")
    if most and found.sizes[-1]["size"] > most:
        yield tell(
            "batches of more than {most:.0f}, a quarter of the data, aren't recommended whatever they promise",
            most=most,
        )
    if chosen.get("is_capped"):
        yield _(
            "the rate that would go with the batch isn't stable, so it is held where it is, which takes more updates"
        )
    if found.choice.get("beyond"):
        yield (
            tell(
                "batches of {beyond} would be faster still, but don't fit into memory; "
                "unstuck.Training(accumulate={times}) makes their updates of smaller ones, though not their "
                "speed",
                beyond=found.choice["beyond"],
                times=max(2, found.choice["beyond"] // chosen["size"]),
            )
        )
    step = own.get("step_seconds")
    if step and found.choice["besides"] > _MUCH * step:
        yield (
            tell(
                "{share} of a step is none of the update (loading data, printing); it is taken to grow "
                "with larger batches, and not to shrink with smaller ones",
                share=percent(found.choice["besides"] / step),
            )
        )
    if found.adds_up:
        yield from _divisors(found)
    if own.get("reduction") == "sum" and not own.get("adaptive"):
        yield _("the loss is a sum over the batch, so its gradient grows with it: the rate is the smaller for that")
    if own.get("clipping"):
        yield tell(
            "gradients are clipped ({clipping}); the noise is that of gradients before it", clipping=own["clipping"]
        )
    if any(size.get("repeated") for size in found.sizes):
        yield tell("batches of more than {samples} samples were timed with samples repeated", samples=own["samples"])


def _divisors(found: Batch) -> Iterator[str]:
    """What becomes of the number that losses are divided by."""
    before, after = num_batches(found.own), num_batches(found.chosen)
    if found.own.get("adds"):
        yield tell(
            "losses aren't divided by {batches}, the batches of an update, so that its gradient is their sum, not their mean",
            batches=before,
        ) + ("" if found.own.get("adaptive") or before == after else _("; the rate has that in it"))
    elif after == 1 and found.verdict == "change":
        yield tell("losses are divided by {batches}, the batches of an update: leave that out then", batches=before)
    elif after != before and found.verdict == "change":
        yield tell(
            "losses are divided by {batches}, the batches of an update: then by {new}", batches=before, new=after
        )


def time_of(seconds: float | None) -> str:
    """A short time: "0.41 ms", "3.2 s"."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit:
            return f"{number(seconds / unit, 2 if seconds < 100 * unit else 3)} {name}"
    return f"{number(seconds / 1e-6, 2)} µs" if seconds else "0 s"


def size_of(num_bytes: float | None) -> str:
    """Memory, short: "1.2 MiB"."""
    if num_bytes is None or not math.isfinite(num_bytes):
        return "–"
    for power, name in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if num_bytes >= 2**power:
            return f"{number(num_bytes / 2**power, 2 if num_bytes < 100 * 2**power else 3)} {name}"
    return f"{num_bytes:.0f} B"


HEADER = (
    say("batch size"),
    say("an update"),
    say("a pass"),
    say("memory"),
    say("rate"),
    say("updates"),
    say("time"),
    say("interval"),
)


def row(size: Mapping[str, Any]) -> tuple[str, ...]:
    """A batch size as cells under `HEADER`."""
    return (
        _product(size) if num_batches(size) > 1 else str(size["size"]),
        time_of(size["update_seconds"]),
        time_of(size["epoch_seconds"]),
        size_of(size["bytes"]),
        f"× {number(size['rate'], 2)}",
        f"× {number(size['updates'], 2)}",
        f"× {number(size['time'], 2)}",
        ""
        if size["low"] == size["high"]
        else tell("{low} to {high}", low=number(size["low"], 2), high=number(size["high"], 2)),
    )


def mark(size: Mapping[str, Any], found: Batch) -> str:
    """What is to be said of a size: that it is the script's own, or recommended."""
    recommended = found.is_recommended(size)
    if found.is_own(size):
        return say("kept") if recommended and found.verdict == "keep" else say("as it is")
    return say("recommended") if recommended else "" if size["fits"] else say("doesn't fit")


def to_json(found: Batch, record: Record) -> dict[str, Any]:
    """All of it as plain dicts and lists; documented in docs/batch.md."""
    chosen = found.chosen
    return {
        "schema": 1,
        "script": record.meta.get("script"),
        "record": str(record.path) if record.path else None,
        "steps": record.steps,
        "verdict": found.verdict,
        "says": headline(found, record),
        "why_unknown": found.why or None if found.verdict == "unknown" else None,
        "recommended": {
            "size": chosen["size"], "num_batches": num_batches(chosen),
            "rate": found.new_rate, "rate_factor": chosen["rate"], "updates": found.new_updates,
            "passes_factor": chosen["samples"], "time": chosen["time"], "low": chosen["low"], "high": chosen["high"],
        } if chosen and found.verdict != "unknown" else None,
        **{name: _without_part(getattr(found, name)) for name in ("own", "choice", "memory", "rate", "proof")},
        "sizes": [_without_part(size) for size in found.sizes],
        "noise": [_without_part(point) for point in found.noise],
        "caveats": list(caveats(found)),
        "notes": list(found.notes),
    }  # fmt: skip


def _without_part(part: Mapping[str, Any]) -> dict[str, Any] | None:
    return {k: v for k, v in part.items() if k != "part"} or None
