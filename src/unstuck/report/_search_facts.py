"""What is to be said of a search, the same in the terminal and on the page: who won and how surely, what was chosen, what failed, the time.

All of it comes from one dict, as `unstuck search --json` writes it; numbers that aren't finite are None there.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unstuck._language import _, many, say, tell
from unstuck._student import half_width
from unstuck.report import _words as words
from unstuck.verdict import CAUSES

Told = Mapping[str, Any]
SEARCH, CONTROL, OWN = "search", "control", "own"
NAMES = {SEARCH: say("search"), CONTROL: say("random"), OWN: say("as it is")}
_LONGEST = 120  # characters of what a child complained of
_LARGEST = 1e150  # of a score that is reckoned with
_SURE = 0.05  # chance, below which children are said to be better than random ones
_INDEX = re.compile(r"^(.*)\[([^\[\]]*)\]$")


@dataclass(frozen=True)
class Judgement:
    """What came of a search.

    Attributes:
        kind: As the pages' styles know it: "healthy" where the search has won, "sick" where it has lost or nothing came to an end,
            else "unknown".
        badge: In two words.
        headline: In a sentence.
        sentences: What else is to be known of how sure that is.
    """

    kind: Literal["healthy", "sick", "unknown"]
    badge: str
    headline: str
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why some children were not let on.

    Attributes:
        cause: Its name, or what they complained of.
        means: What that is, "" where it isn't known.
        count: How many children.
        arms: How many of each arm.
        seconds: They took together.
    """

    cause: str
    means: str
    count: int
    arms: Mapping[str, int]
    seconds: float


# ---------------------------------------------------------------------- who won


def judged(told: Told) -> Judgement:
    """Who won, and how sure that is: over a script as it stands, where there is one, and over random search."""
    if told.get("best") is None:
        return Judgement(
            "sick", _("nothing found"), _("Nothing came to an end: no point of the space could be trained.")
        )
    beside = _beside(told)
    own, gain = told.get("own"), _known(told.get("gain"))
    if own is None or gain is None:
        return beside
    has, had = words.number(final(winner(told), told)), words.number(final(own, told))
    changes = tell("{score} {has} in place of {had} as it stands", score=score(told), has=has, had=had)
    said = (_effect(**gain), f"{beside.headline} {beside.sentences[0]}", *beside.sentences[1:])
    if gain["low"] > 0:
        return Judgement("healthy", _("better"), tell("Better than as it stands: {changes}.", changes=changes), said)
    if gain["high"] < 0:
        return Judgement("sick", _("worse"), tell("Leave it as it is: {changes}.", changes=changes), said)
    return Judgement(
        "unknown", _("no better"), tell("No better than as it stands beyond noise: {changes}.", changes=changes), said
    )


def winner(told: Told) -> Told:
    """The best of both arms."""
    return told.get("winner") or told["best"]


def _known(effect: Told | None) -> Told | None:
    """An effect of which it is known how sure it is."""
    return effect if effect is not None and effect.get("low") is not None and effect.get("high") is not None else None


def _beside(told: Told) -> Judgement:
    """Who won, the search or what was drawn at random."""
    best, control, effect = told["best"], told.get("control"), _known(told.get("effect"))
    has = f"{score(told)} {words.number(final(best, told))}"
    if control is None:
        why = _("There was no random search beside it: what the searching itself has gained isn't known.")
        return Judgement(
            "unknown",
            _("found"),
            tell("The best that was found has {has}.", has=has),
            (*_flattered(told), why, *_chance(told)),
        )
    against = tell("{has} against {final}", has=has, final=words.number(final(control, told)))
    if effect is None:
        why = _("How sure the difference is can't be told: that takes two fresh seeds of either, or more.")
        return Judgement(
            "unknown",
            _("unproven"),
            tell("The best has {against} of random search.", against=against),
            (*_flattered(told), why, *_chance(told)),
        )
    said = (_effect(**effect), *_flattered(told), *_chance(told))
    if effect["low"] > 0:
        return Judgement(
            "healthy", _("better than random"), tell("The search beat random search: {against}.", against=against), said
        )
    if effect["high"] < 0:
        return Judgement(
            "sick", _("worse than random"), tell("Random search did better: {against}.", against=against), said
        )
    return Judgement(
        "unknown",
        _("no better than random"),
        tell("No better than random search beyond noise: {against}.", against=against),
        said,
    )


def _effect(mean: float, low: float, high: float) -> str:
    """How large a difference is, and how sure."""
    if low > 0:
        return tell(
            "Better by {mean}, 95% interval {low} to {high}.",
            mean=words.number(mean),
            low=words.number(low),
            high=words.number(high),
        )
    if high < 0:
        return tell(
            "Worse by {mean}, 95% interval {low} to {high}.",
            mean=words.number(-mean),
            low=words.number(-high),
            high=words.number(-low),
        )
    return tell(
        "The difference is {mean}, 95% interval {low} to {high}: it may well be none.",
        mean=words.signed(mean),
        low=words.signed(low),
        high=words.signed(high),
    )


def _flattered(told: Told) -> tuple[str, ...]:
    """In which way the scores look better than they are."""
    seeds = len(told["best"]["scores"])
    if not seeds:
        return (
            _(
                "These are the scores by which they were chosen, without fresh seeds: the best of many looks better than it is."
            ),
        )
    rivals = sum(f["arm"] == told["best"]["arm"] for f in told["finalists"])
    if rivals < 2:
        return ()
    values = {"rivals": rivals, "seeds": words.plural(seeds, "seed")}
    if told.get("control") is not None:
        return (tell("Either is the best of {rivals} by these same {seeds}, which flatters it a little.", **values),)
    return (tell("It is the best of {rivals} by these same {seeds}, which flatters it a little.", **values),)


def _chance(told: Told) -> tuple[str, ...]:
    chance = told.get("better_than_random")
    if chance is None or (chance >= _SURE and told.get("verdicts")):  # these say so then
        return ()
    if chance < _SURE:
        return (
            tell(
                "The later half of what the search tried is better than what was drawn at random (Mann-Whitney, p = {chance:.2g}).",
                chance=chance,
            ),
        )
    return (
        tell(
            "The later half of what the search tried is not told apart from what was drawn at random (Mann-Whitney, "
            "p = {chance:.2g}).",
            chance=chance,
        ),
    )


def score(told: Told) -> str:
    """Name of the score."""
    return words.score_name(told.get("score") or "score")


def better(told: Told) -> str:
    """Which way is up."""
    return _("lower is better") if told.get("lower_is_better") else _("higher is better")


def final(found: Told, told: Told) -> float | None:
    """The score of one of the best: over fresh seeds, where there are some, else that of its own."""
    if found["scores"]:
        return found["mean"]
    return next((c["score"] for c in told["children"] if c["number"] == found["number"]), None)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and Student's 95% interval; the interval is infinite of fewer than two.

    Args:
        values: Scores.
    """
    values = [bounded(v) for v in values]
    mean, half = statistics.fmean(values), half_width(values)
    return mean, mean - half, mean + half


def bounded(score: float) -> float:
    """A score, with which one can still reckon."""
    return min(_LARGEST, max(-_LARGEST, score))


def who(child: Told) -> str:
    """The name of a child."""
    if child["arm"] == OWN:
        return _("as it is")
    return tell("{arm} {number}", arm=NAMES.get(child["arm"], words.clean(child["arm"])), number=child["number"])


# ---------------------------------------------------------------------- children


def children(count: int) -> str:
    """How many, with the noun."""
    return many("{number} child", "{number} children", count)


def ranked(told: Told) -> list[Told]:
    """Children with a score, those that came furthest first, and of these the best."""
    sign = 1 if told.get("lower_is_better") else -1
    return sorted(
        (c for c in told["children"] if is_sound(c)), key=lambda c: (-c["stage"], sign * c["score"], c["number"])
    )


def is_sound(child: Told) -> bool:
    """Whether a child came to a score that counts."""
    return child["score"] is not None and child["status"] in ("finished", "stopped")


def is_over(child: Told) -> bool:
    """Whether a child has ended, in one way or another."""
    return bool(child["status"])


def trained(child: Told) -> str:
    """For how many epochs a child was trained: "9", "27 (all)"."""
    if not child["epochs"]:
        return ""
    return tell("{epochs} (all)", epochs=child["epochs"]) if child["whole"] else str(child["epochs"])


def failures(told: Told) -> list[Failure]:
    """Why children were not let on, the most frequent first."""
    several: dict[str, list[Told]] = {}
    for child in told["children"]:
        if is_over(child) and (child["cause"] or not is_sound(child)):
            several.setdefault(shortened(child["cause"] or child["status"]), []).append(child)
    return [
        Failure(
            cause, CAUSES.get(cause, ""), len(group), Counter(c["arm"] for c in group), sum(c["seconds"] or 0.0 for c in group)
        )
        for cause, group in sorted(several.items(), key=lambda item: (-len(item[1]), item[0]))
    ]  # fmt: skip


def shortened(text: object, longest: int = _LONGEST) -> str:
    """Text of any length in at most so many characters."""
    text = words.clean(text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def times(told: Told) -> list[tuple[str, float]]:
    """Where the time of the trainings went, in seconds."""
    made: dict[str, float] = {}
    for child in told["children"]:
        lost = child["cause"] or (is_over(child) and not is_sound(child))
        what = (
            _("children that failed or were broken off")
            if lost
            else tell("sound children of the {arm} arm", arm=NAMES.get(child["arm"], words.clean(child["arm"])))
        )
        made[what] = made.get(what, 0.0) + (child["seconds"] or 0.0)
    return sorted(((what, seconds) for what, seconds in made.items() if seconds > 0), key=lambda item: -item[1])


def important(told: Told) -> list[tuple[str, float]]:
    """Decisions that explain something beyond chance, and how much of the variation."""
    return [(i["name"], i["share"]) for i in told.get("importance") or () if i["share"]]


# ---------------------------------------------------------------------- values


def value(of: Any) -> str:
    """A value as one would write it; of links those that there are: "from 0, 2"."""
    if isinstance(of, list | tuple):
        there = [str(i) for i, v in enumerate(of) if v]
        return tell("from {there}", there=", ".join(there)) if there else _("from none")
    if of is None:
        return _("none")
    return words.number(of, 4) if isinstance(of, float) and not of.is_integer() else words.exact(of)


def chosen(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Decisions and their values; what was chosen for several parts stands together: "width[0..2]", "64, 32, 16"."""
    roles: dict[str, list[tuple[str, str]]] = {}
    for name, of in values.items():
        found = _INDEX.match(name)
        role, index = (found[1], found[2]) if found else (name, "")
        roles.setdefault(role, []).append((index, value(of)))
    return [(_several(role, [i for i, _ in each]), _listed([v for _, v in each])) for role, each in roles.items()]


def _several(role: str, indexes: list[str]) -> str:
    if indexes == [""]:
        return words.clean(role)
    first, last = words.clean(indexes[0]), words.clean(indexes[-1])
    return f"{words.clean(role)}[{first if len(indexes) == 1 else f'{first}..{last}'}]"


def _listed(values: list[str]) -> str:
    """Values one after the other; by commas, where there are none in them."""
    return ("; " if any("," in v for v in values) else ", ").join(values)
