"""The space of an unmodified script: what remedies can set in it, and arguments of its own."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unstuck._discover import find, get
from unstuck._language import say
from unstuck.errors import MisuseError
from unstuck.evidence import Record
from unstuck.patients import ScriptPatient
from unstuck.search.space import Draw
from unstuck.source import EditError
from unstuck.trials.visit import Dose, Treatment
from unstuck.verdict import Verdict

USUAL = ("optimizer", "learning-rate", "momentum", "batch-size", "weight-decay")
RATES = {"SGD": (1e-4, 3.0), "RMSprop": (1e-5, 0.1), "Adam": (1e-5, 0.1), "AdamW": (1e-5, 0.1)}
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Variant:
    """A script's arguments and changes.

    Attributes:
        treatment: Doses of remedies.
        arguments: Behind its own.
    """

    treatment: Treatment = ()
    arguments: tuple[str, ...] = ()

    def canonical(self) -> Any:
        """What tells it from others."""
        return [[[d.remedy, d.settings] for d in self.treatment], list(self.arguments)]

    def __str__(self) -> str:
        return (
            " + ".join([*map(str, self.treatment), *([" ".join(self.arguments)] if self.arguments else [])]) or AS_IT_IS
        )


@dataclass(frozen=True)
class Varied:
    """An argument of the script's own that is varied: "--hidden=16..512:log", "--depth=1..4", "act=relu,tanh".

    Attributes:
        name: As it stands in front: "--hidden".
        options: Texts of which one is taken; () for a range.
        low, high: The range.
        log: Ratios are alike.
        whole: Whole numbers.
    """

    name: str
    options: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @classmethod
    def of(cls, text: str) -> Varied:
        """What a text says.

        Raises:
            MisuseError: It isn't understood.
        """
        name, equals, values = text.partition("=")
        found = re.fullmatch(r"([-+.\deE]+)\.\.([-+.\deE]+?)(:log)?", values)
        try:
            if found and name:
                low, high = float(found[1]), float(found[2])
                whole = not re.search(r"[.eE]", found[1] + found[2])
                if low < high and (low > 0 or not found[3]):
                    return cls(name, (), low, high, bool(found[3]), whole)
            elif name and equals and all(values.split(",")):
                return cls(name, tuple(values.split(",")))
        except ValueError:
            pass
        raise MisuseError(
            say(
                "--vary is {text!r}, but must be an argument and its values, such as --hidden=16..512:log, "
                "--depth=1..4 or --act=relu,tanh",
                text=text,
            )
        )

    def drawn(self, draw: Draw) -> tuple[str, ...]:
        """The argument with a value: in two words where it begins with a dash, as NAME=VALUE where it doesn't."""
        name = self.name.lstrip("-")
        if self.options:
            value = draw.choice(name, self.options)
        elif self.whole:
            value = str(draw.integer(name, int(self.low), int(self.high), log=self.log))
        else:
            value = f"{draw.number(name, self.low, self.high, log=self.log):g}"
        return (self.name, value) if self.name.startswith("-") else (f"{self.name}={value}",)


class ScriptSpace:
    """Draws variants of a script.

    Args:
        parts: Draw doses, by the names of their remedies.
        vary: Arguments.
        decay: The script's own weight decay.
    """

    def __init__(
        self, parts: dict[str, Callable[[Draw], Dose | None]], vary: Sequence[Varied], *, decay: float = 0.0
    ) -> None:
        self.parts, self.vary, self.decay = parts, tuple(vary), decay

    @property
    def names(self) -> list[str]:
        """Of all that is searched."""
        return [*self.parts, *(v.name for v in self.vary)]

    def __call__(self, draw: Draw) -> Variant:
        """Draws one."""
        doses = [dose for part in self.parts.values() if (dose := part(draw)) is not None]
        return Variant(_merged(doses, self.decay), tuple(word for varied in self.vary for word in varied.drawn(draw)))


def _merged(doses: Sequence[Dose], own: float) -> Treatment:
    """Doses that can be given together: a weight decay is set where the optimizer is, whose own may be another than the script's."""
    decay = next((d.settings["value"] for d in doses if d.remedy == "weight-decay"), None)
    if decay is None:
        return tuple(doses)
    if all(d.remedy != "optimizer" for d in doses):
        return tuple(d for d in doses if d.remedy != "weight-decay" or decay != own)
    return tuple(
        Dose(d.remedy, {**d.settings, "weight_decay": decay}) if d.remedy == "optimizer" else d
        for d in doses
        if d.remedy != "weight-decay"
    )


def _own_decay(record: Record) -> float:
    made = record.program.optimizers
    return float(made[0].settings.get("weight_decay") or 0.0) if made else 0.0


def space_of(
    patient: ScriptPatient, record: Record, verdict: Verdict, over: Sequence[str] | None, vary: Sequence[Varied]
) -> tuple[ScriptSpace, dict[str, str]]:
    """The space of a script.

    Args:
        patient: The script, surveyed.
        record: Of its run.
        verdict: Over that.
        over: Remedies by name; None for those that are usual, where they can be given.
        vary: Arguments of its own.

    Returns:
        The space, and why remedies that are usual are left out, by name.

    Raises:
        MisuseError: A remedy that was asked for can't be given, or nothing is left.
    """
    parts: dict[str, Callable[[Draw], Dose | None]] = {}
    left_out: dict[str, str] = {}
    for name in USUAL if over is None else over:
        try:
            parts[name] = _part(name, patient, record, verdict)
        except EditError as error:
            if over is not None:
                raise MisuseError(
                    say(
                        "{name} can't be searched in {file}: {error}",
                        name=name,
                        file=patient.command[0],
                        error=str(error),
                    )
                ) from None
            left_out[name] = str(error)
    for brought in ("learning-rate", "momentum") if "optimizer" in parts else ():
        parts.pop(brought, None)
    if not parts and not vary:
        raise MisuseError(
            say(
                "there is nothing to search in {file}: {reasons}. Say by --vary what its arguments may be",
                file=patient.command[0],
                reasons="; ".join(left_out.values()),
            )
        )
    return ScriptSpace(parts, vary, decay=_own_decay(record)), left_out


def _part(name: str, patient: ScriptPatient, record: Record, verdict: Verdict) -> Callable[[Draw], Dose | None]:
    """What draws doses of a remedy.

    Raises:
        EditError: The remedy can't be given.
        NotFoundError: There is none of that name.
    """  # noqa: DOC502
    get("remedies", name)
    special = _SPECIAL.get(name)
    if special is not None:
        return special(patient, record)
    return _proposals(name, patient, record, verdict)


def _optimizer(patient: ScriptPatient, record: Record) -> Callable[[Draw], Dose | None]:
    """Optimizers with rates of their own; the script's own optimizer is one of them, with its rate searched as well."""
    given = []
    for kind in RATES:
        with_rate = Dose("optimizer", {"to": kind, "rate": RATES[kind][1]})
        if _can(patient, with_rate):
            given.append(kind)
    if not given:
        patient.check((Dose("optimizer", {"to": "Adam", "rate": 1e-3}),))  # says why

    def draw_dose(draw: Draw) -> Dose:
        kind = draw.choice("optimizer", given)
        rate = draw.number("rate", *RATES[kind], log=True, of=kind)
        settings = {"to": kind, "rate": rate}
        if kind == "SGD":
            settings["momentum"] = draw.choice("momentum", [0.0, 0.5, 0.9, 0.95, 0.99], ordered=True)
        return Dose("optimizer", settings)

    return draw_dose


def _learning_rate(patient: ScriptPatient, record: Record) -> Callable[[Draw], Dose | None]:
    own = record.series("lr").median()
    if not own > 0:
        raise EditError("its rate isn't known")
    patient.check((Dose("learning-rate", {"rate": own / 2}),))
    return lambda draw: Dose("learning-rate", {"rate": draw.number("rate", own / 300, own * 300, log=True)})


def _momentum(patient: ScriptPatient, record: Record) -> Callable[[Draw], Dose | None]:
    patient.check((Dose("momentum", {"momentum": 0.9}),))
    options = [0.0, 0.5, 0.9, 0.95, 0.99]
    return lambda draw: Dose("momentum", {"momentum": draw.choice("momentum", options, ordered=True)})


def _batch_size(patient: ScriptPatient, record: Record) -> Callable[[Draw], Dose | None]:
    median = record.series("batch_size").median()
    own = int(median) if median >= 1 else 0
    if not own:
        raise EditError("its batch size isn't known")
    patient.check((Dose("batch-size", {"size": 2 * own}),))
    sizes = sorted({max(1, round(own * 2.0**i)) for i in range(-3, 4)})
    return lambda draw: _unless(draw.choice("batch size", sizes, ordered=True), own, "batch-size", "size")


def _weight_decay(patient: ScriptPatient, record: Record) -> Callable[[Draw], Dose | None]:
    patient.check((Dose("weight-decay", {"value": 1e-3}),))
    values = sorted({0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, _own_decay(record)})
    return lambda draw: Dose("weight-decay", {"value": draw.choice("weight decay", values, ordered=True)})


def _unless(value: Any, own: Any, remedy: str, setting: str) -> Dose | None:
    return None if value == own else Dose(remedy, {setting: value})


_SPECIAL: dict[str, Callable[[ScriptPatient, Record], Callable[[Draw], Dose | None]]] = {
    "optimizer": _optimizer, "learning-rate": _learning_rate, "momentum": _momentum, "batch-size": _batch_size,
    "weight-decay": _weight_decay,
}  # fmt: skip


def _proposals(name: str, patient: ScriptPatient, record: Record, verdict: Verdict) -> Callable[[Draw], Dose | None]:
    """Another remedy: not given, or with one of the settings that it proposes for this script."""
    propose = getattr(sys.modules[find("remedies")[name].__module__], "propose", None)
    proposed = (
        [Dose(name, settings) for settings in propose(patient.proposing(record), verdict)]
        if propose is not None
        else []
    )
    doses = {str(dose): dose for dose in proposed or [Dose(name)] if _can(patient, dose)}
    if not doses:
        patient.check(((proposed or [Dose(name)])[0],))
    return lambda draw: draw.choice(name.replace("-", " "), {AS_IT_IS: None, **doses})


def _can(patient: ScriptPatient, dose: Dose) -> bool:
    try:
        patient.check((dose,))
    except EditError:
        return False
    return True
