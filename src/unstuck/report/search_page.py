"""What came of a search as one HTML page: self-contained, offline, for desktop, phone and paper, in light and dark.

As with the page of a run, everything is in the one file, and a content security policy forbids it any request and any script but its own.
Pictures are drawn here, as SVG, and are there without script; that only says whose the point under the pointer is. Drawings
of architectures stand in images, in which nothing can run or be asked for. All text from the user's program is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from unstuck._language import _, tell
from unstuck.report import _search_facts as facts
from unstuck.report import _words as words
from unstuck.report._search_charts import fresh, progress
from unstuck.report._search_facts import Told
from unstuck.report._search_sampler import health
from unstuck.report._search_values import costs, decisions
from unstuck.report._tables import without_empty
from unstuck.report.html import _asset, _embedded, _policy, _template
from unstuck.report.output import write_text
from unstuck.report.search import mattered, spent

_MOST_CHILDREN = 200
_MOST_COLUMNS = 12  # decisions in the table of children
_MOST_SAID = 6  # decisions that are said of the child under the pointer
_LONGEST_CELL = 60
_LONGEST_SAID = 240
_LARGEST_DRAWING = 150_000  # letters
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


@np.errstate(all="ignore")
def render(told: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        told: What came of the search, as `unstuck search --json` writes it.

    Returns:
        An HTML document that needs nothing but itself.
    """
    script = _asset("search.js")
    return _template("search.html").render(
        told=told,
        found=facts.judged(told),
        name=_name(told),
        facts=facts,
        stats=_stats(told),
        chosen=facts.chosen(facts.winner(told)["values"]) if told["best"] is not None else [],
        drawings=_drawings(told),
        diff=_diff(told.get("diff") or ""),
        course=[plot for plot in (progress(told), fresh(told)) if plot is not None],
        mattered=mattered(told),
        bars=facts.important(told),
        decisions=decisions(told),
        costs=costs(told),
        health=health(told),
        failures=_failures(told),
        children=_children(told),
        about=_about(told),
        policy=_policy([script]),
        script=Markup(script),
        styles=[Markup(_asset("page.css")), Markup(_asset("search.css"))],
        data=Markup(_embedded(_said(told))),
    )


def write(told: Mapping[str, Any], path: str | Path) -> None:
    """Write the page to a file.

    Args:
        told: What came of the search, as `unstuck search --json` writes it.
        path: The file; what was there is replaced.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses to write there.
    """  # noqa: DOC502
    write_text(path, render(told))


def _name(told: Told) -> str:
    """What was searched, by the name its owner would use."""
    problem = told["problem"]
    command = problem.get("command") or [problem.get("file") or problem.get("function") or "a search"]
    return words.clean(" ".join([Path(command[0]).name, *map(str, command[1:])]))


def _stats(told: Told) -> list[tuple[str, str, str]]:
    """The numbers at the top: what, how much, and what more is to be said of it."""
    made = []
    for label, one in (
        (tell("best {score}", score=facts.score(told)), told["best"]),
        (_("best at random"), told["control"]),
        (_("as it stands"), told.get("own")),
    ):
        if one is not None:
            seeds = [v for v in one["scores"].values() if v is not None]
            by = (
                tell("{who}, mean of {seeds}", who=facts.who(one), seeds=words.plural(len(seeds), "fresh seed"))
                if seeds
                else tell("{who}, without fresh seeds", who=facts.who(one))
            )
            made.append((label, words.number(facts.final(one, told)), by))
    effect, chance = told.get("effect"), told.get("better_than_random")
    if effect is not None and effect["low"] is not None and effect["high"] is not None:
        made.append(
            (
                _("difference"),
                words.signed(effect["mean"]),
                tell(
                    "95% interval {low} to {high}", low=words.signed(effect["low"]), high=words.signed(effect["high"])
                ),
            )
        )
    if chance is not None:
        made.append((_("p value"), f"{chance:.2g}", _("of the later half, against random")))
    over = [c for c in told["children"] if facts.is_over(c)]
    lost = sum(f.count for f in facts.failures(told))
    made.append((_("children"), str(len(over)), tell("{lost} failed or broken off", lost=lost)))
    made.append((_("time"), words.duration(told["seconds"]), ""))
    return made


def _drawings(told: Told) -> list[tuple[str, str, str]]:
    """Drawings of architectures, the best first: whose, what it is, and the picture as an address that holds it all."""
    children = {str(c["number"]): c for c in told["children"]}
    first = [str(f["number"]) for f in (told.get("winner"), told["best"], told["control"]) if f is not None]
    drawn = told.get("drawings") or {}
    numbers = [n for n in dict.fromkeys([*first, *drawn]) if n in drawn and n in children]
    return [
        (facts.who(children[n]), facts.shortened(children[n]["chosen"], _LONGEST_SAID), address)
        for n in numbers if (address := _address(drawn[n]))
    ]  # fmt: skip


def _address(svg: str) -> str:
    """A drawing as an address; "" where it is none, or has declarations, which no drawing of ours has."""
    if not svg.lstrip().startswith("<svg") or "<!" in svg or len(svg) > _LARGEST_DRAWING:
        return ""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _diff(diff: str) -> Markup:
    """A change, its lines coloured."""
    kinds = {"+": "added", "-": "gone"}
    lines = [
        Markup('<span class="{}">{}</span>\n').format(kinds.get(line[:1], "same"), line) for line in diff.splitlines()
    ]
    return Markup("").join(lines)


def _failures(told: Told) -> Table | None:
    """Why children were not let on, as a table."""
    found = facts.failures(told)
    arms = [arm for arm in facts.NAMES if any(c["arm"] == arm for c in told["children"])]
    rows = [
        (f.cause, str(f.count), *(str(f.arms.get(arm, 0)) for arm in arms), words.duration(f.seconds), f.means)
        for f in found
    ]  # fmt: skip
    header = (_("cause"), _("children"), *(_(facts.NAMES[arm]) for arm in arms), _("time"), _("what that means"))
    return without_empty(header, rows) if rows else None


def _children(told: Told) -> dict[str, Any]:
    """The table of children, the best first, then those that came to nothing; beyond so many a sentence."""
    best = facts.ranked(told)
    others = [c for c in told["children"] if not facts.is_sound(c)]
    shown = (*best, *others)[:_MOST_CHILDREN]
    names = _columns(told)
    header = (
        _("child"),
        _("origin"),
        facts.score(told),
        _("epochs"),
        _("parameters"),
        _("time"),
        _("ended"),
        *map(words.clean, names),
    )
    rows = [_child(c, names) for c in shown]
    left = len(best) + len(others) - len(shown)
    every = {name for c in told["children"] for name in c["values"]}
    notes = [
        tell("{number} more, all worse than these or without a score, are not listed.", number=left) if left > 0 else ""
    ]
    notes += [
        tell("{number} decisions are left out; the journal has them all.", number=len(every) - len(names))
        if len(every) > len(names)
        else ""
    ]
    return {
        "table": without_empty(header, rows),
        "count": len(best) + len(others), "note": " ".join(filter(None, notes)),
    }  # fmt: skip


def _columns(told: Told) -> list[str]:
    """Decisions, those that mattered first."""
    some = [name for name, _ in facts.important(told)]
    return list(dict.fromkeys([*some, *(name for c in told["children"] for name in c["values"])]))[:_MOST_COLUMNS]


def _child(child: Told, names: Sequence[str]) -> tuple[str, ...]:
    return (
        facts.who(child), words.clean(child["origin"]), words.number(child["score"]) if child["score"] is not None else "",
        facts.trained(child), words.count(child["parameters"]) if child["parameters"] else "", _took(child), _ended(child),
        *(facts.shortened(facts.value(child["values"][n]), _LONGEST_CELL) if n in child["values"] else "" for n in names),
    )  # fmt: skip


def _took(child: Told) -> str:
    return words.duration(child["seconds"]) if child["seconds"] and child["seconds"] >= 0.05 else ""


def _ended(child: Told) -> str:
    """How a child ended, where that is worth a word."""
    if not child["status"]:
        return _("under way")
    if child["cause"]:
        return facts.shortened(child["cause"], _LONGEST_CELL)
    return "" if facts.is_sound(child) else words.clean(child["status"])


def _said(told: Told) -> dict[str, str]:
    """What is said of the child under the pointer, by number."""
    names = _columns(told)[:_MOST_SAID]
    return {str(c["number"]): _sentence(c, names, told) for c in told["children"] if facts.is_over(c)}


def _sentence(child: Told, names: Sequence[str], told: Told) -> str:
    has = f"{facts.score(told)} {words.number(child['score'])}" if child["score"] is not None else ""
    epochs = words.plural(child["epochs"], "epoch") + (_(", all") if child["whole"] else "") if child["epochs"] else ""
    values = ", ".join(
        f"{n} {facts.shortened(facts.value(child['values'][n]), 24)}" for n in names if n in child["values"]
    )
    parts = (has, _ended(child), epochs, _took(child), words.clean(values))
    return facts.shortened(f"{facts.who(child)} ({child['origin']}): {', '.join(filter(None, parts))}", _LONGEST_SAID)


def _listed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _about(told: Told) -> Table:
    """How the search was made."""
    plan = told["plan"]
    settings = words.settings(plan.get("settings") or {})
    rows = [
        (
            _("searched"),
            words.clean(
                ", ".join(
                    f"{key} {_listed(value)}" for key, value in told["problem"].items() if key != "digest" and value
                )
            ),
        ),
        (_("sampler"), ", ".join(filter(None, (words.clean(plan.get("sampler")), settings)))),
        (_("why this one"), words.clean(told["says"])),
        (
            _("evaluations"),
            tell("{evaluations} of each arm", evaluations=plan["evaluations"])
            if plan.get("evaluations")
            else _("as many as time allowed"),
        ),
        (_("time allowed"), words.duration(plan["seconds"]) if plan.get("seconds") else ""),
        (
            _("trained stage by stage"),
            (_("yes") if plan.get("halving") else _("no")) if any(c["epochs"] for c in told["children"]) else "",
        ),
        (
            _("fresh seeds"),
            tell("{seeds} for the best {top} of each arm", seeds=plan.get("seeds"), top=plan.get("top"))
            if plan.get("seeds")
            else _("none"),
        ),
        (_("seed of the samplers"), str(plan.get("seed"))),
        (_("took"), spent(told)),
    ]
    return (_("what"), _("value")), [row for row in rows if row[1]]
