"""Where a network is wrong, as text for a terminal, and as one HTML page: its worst samples, what it takes for what, bias or variance.

Takes what `unstuck.data.error_analysis.analyze` and `unstuck.data.generalization.generalization` return, or their `to_json()`, so that
a saved analysis can be shown where there is no torch. The page is self-contained, as that of a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from unstuck._json import plain
from unstuck._language import _, tell
from unstuck.report import _words as words
from unstuck.report._error_plots import by_size, reliability
from unstuck.report._samples import drawn
from unstuck.report.html import _asset, _policy, _template
from unstuck.report.output import write_text

if TYPE_CHECKING:
    from unstuck.data.error_analysis import ErrorAnalysis
    from unstuck.data.generalization import Generalization
    from unstuck.data.wrong_labels import Suspect

_MOST_WORST = 48
_MOST_PICTURES = 8  # of a pair
_MOST_MATRIX = 30  # classes of which a matrix can be read
_MOST_ROWS = 100
_MOST_SUSPECTS = 60
_LEVELS = 10  # of colour
Told = Mapping[str, Any]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def text(
    analysis: ErrorAnalysis | Told,
    *,
    generalization: Generalization | Told | None = None,
    suspects: Iterable[Suspect | Told] = (),
    most: int = 8,
) -> str:
    """The same in a few lines for the terminal.

    Args:
        analysis: Of the errors.
        generalization: Bias or variance, where that was asked.
        suspects: Samples whose labels may be wrong.
        most: Lines of each list.

    Returns:
        Lines of plain text; what comes from the user's data holds no control characters.
    """
    told, general, doubted = _plain(analysis), _plain(generalization), [_plain(s) for s in suspects]
    lines = [_headline(told)]
    if general:
        lines += [words.clean(general["says"]), *(f"  - {words.clean(line)}" for line in general["advice"])]
    if told["pairs"]:
        lines += ["", _("Most often taken for something else:")]
        lines += [
            "  " + tell("{pair}, samples {numbers}", pair=_pair(pair), numbers=_numbers(pair["samples"]))
            for pair in told["pairs"][:most]
        ]
    if told["worst"]:
        lines += ["", _("Worst samples:")]
        lines += [f"  {sample['number']}: {_caption(sample, told)}" for sample in told["worst"][:most]]
    worse = [part for part in told["slices"] if part["worse"]]
    if worse:
        lines += ["", _("Groups that do worse than the rest:"), *(f"  {_slice(part)}" for part in worse[:most])]
    if doubted:
        lines += [
            "",
            tell(
                "{labels} may be wrong (a suspicion; look before you change one):",
                labels=words.plural(len(doubted), "label"),
            ),
        ]
        lines += [f"  {s['number']}: {words.clean(s['says'])}" for s in doubted[:most]]
    return "\n".join(lines)


@np.errstate(all="ignore")
def render(
    analysis: ErrorAnalysis | Told,
    *,
    generalization: Generalization | Told | None = None,
    suspects: Iterable[Suspect | Told] = (),
    title: str = "",
) -> str:
    """The whole page.

    Args:
        analysis: Of the errors.
        generalization: Bias or variance, where that was asked.
        suspects: Samples whose labels may be wrong.
        title: What was judged, such as the network's name.

    Returns:
        An HTML document that needs nothing but itself, and holds no script.
    """
    told, general, doubted = _plain(analysis), _plain(generalization), [_plain(s) for s in suspects]
    pictures = {int(number): sketch for number, sketch in told["examples"].items()}
    pictures |= {sample["number"]: sample["input"] for sample in told["worst"] if sample["input"] is not None}
    return _template("errors.html").render(
        told=told, general=general, title=words.clean(title) or "errors", headline=_headline(told),
        kind=_kind(general), stats=_stats(told, general),
        gaps=_gaps(general), curve=by_size(general.get("law") if general else None),
        worst=[_card(sample, told) for sample in told["worst"][:_MOST_WORST]],
        pairs=[_pair_card(pair, pictures) for pair in told["pairs"]],
        matrix=_matrix(told), classes=_classes(told), slices=_slices(told),
        calibration=reliability(told["calibration"]), suspects=[_suspect(s) for s in doubted[:_MOST_SUSPECTS]],
        num_suspects=len(doubted), policy=_policy([]),
        styles=[Markup(_asset(name)) for name in ("page.css", "search.css", "samples.css", "errors.css")],
    )  # fmt: skip


def write(
    analysis: ErrorAnalysis | Told,
    path: str | Path,
    *,
    generalization: Generalization | Told | None = None,
    suspects: Iterable[Suspect | Told] = (),
    title: str = "",
) -> None:
    """Write the page to a file.

    Args:
        analysis: Of the errors.
        path: The file; what was there is replaced.
        generalization: Bias or variance, where that was asked.
        suspects: Samples whose labels may be wrong.
        title: What was judged.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses to write there.
    """  # noqa: DOC502
    write_text(path, render(analysis, generalization=generalization, suspects=suspects, title=title))


# ---------------------------------------------------------------------- words


def _plain(found: Any) -> dict[str, Any]:
    """As JSON has it; empty for None."""
    if found is None:
        return {}
    if hasattr(found, "to_json"):
        return found.to_json()
    return plain(asdict(found) if is_dataclass(found) and not isinstance(found, type) else found)


def _headline(told: Told) -> str:
    if told["kind"] == "regression":
        return tell(
            "Mean squared error {loss} over {samples}.",
            loss=words.number(told["loss"]),
            samples=words.plural(told["num_samples"], "sample"),
        )
    error, samples = told["error"], words.plural(told["num_samples"], "sample")
    if not error["count"]:
        return tell("No answers that count in {samples}.", samples=samples)
    return tell(
        "{share} of answers are wrong ({interval}), in {wrong} of {samples}.",
        share=words.percent(error["share"]),
        interval=_interval(error),
        wrong=told["num_wrong"],
        samples=samples,
    )


def _interval(rate: Told) -> str:
    return tell("{low} to {high}", low=words.percent(rate["low"]), high=words.percent(rate["high"]))


def _pair(pair: Told) -> str:
    often = tell(
        "{count} times, {share} ({interval})",
        count=pair["count"],
        share=words.percent(pair["share"]),
        interval=_interval(pair),
    )
    return tell(
        "{target} for {prediction}: {often}",
        target=words.clean(pair["target"]),
        prediction=words.clean(pair["prediction"]),
        often=often,
    )


def _numbers(samples: Sequence[int]) -> str:
    return ", ".join(map(str, samples)) or "–"


def _caption(sample: Told, told: Told) -> str:
    """What a sample is, what was answered, and the loss."""
    loss = tell("loss {loss}", loss=words.number(sample["loss"]))
    if told["kind"] == "multi-label" or sample["target"] in ("", None):
        return tell("{error} of its answers wrong, {loss}", error=words.percent(sample["error"]), loss=loss)
    if told["kind"] == "regression":
        answer = tell(
            "{target}, answered {prediction}",
            target=words.number(sample["target"]),
            prediction=words.number(sample["prediction"]),
        )
        return tell("{answer}, squared error {loss}", answer=answer, loss=words.number(sample["loss"]))
    sure = (
        tell(" ({confidence} sure)", confidence=words.percent(sample["confidence"]))
        if sample["confidence"] is not None
        else ""
    )
    return tell(
        "{target}, taken for {prediction}{sure}, {loss}",
        target=words.clean(sample["target"]),
        prediction=words.clean(sample["prediction"]),
        sure=sure,
        loss=loss,
    )


def _slice(part: Told) -> str:
    much = tell("{error} against {rest} elsewhere", error=words.number(part["error"]), rest=words.number(part["rest"]))
    return tell(
        "{group}: {much}, {samples}, p = {p:.2g}",
        group=words.clean(part["name"]),
        much=much,
        samples=words.plural(part["count"], "sample"),
        p=part["corrected"],
    )


# ---------------------------------------------------------------------- parts of the page


def _kind(general: Told) -> str:
    """The verdict's colour, a class of the page's style."""
    return {"fine": "healthy", "too few to tell": "unknown"}.get(general["kind"], "sick") if general else "plain"


def _stats(told: Told, general: Told) -> list[tuple[str, str, str]]:
    made = [(_("samples"), str(told["num_samples"]), ""), (_("mean loss"), words.number(told["loss"]), "")]
    if told["error"] is not None and told["error"]["count"]:
        made.insert(
            0,
            (
                _("wrong answers"),
                words.percent(told["error"]["share"]),
                tell("95% interval {interval}", interval=_interval(told["error"])),
            ),
        )
    if told["calibration"] is not None:
        made.append(
            (_("calibration error"), words.percent(told["calibration"]["error"]), _("confidence against accuracy"))
        )
    for gap in general.get("gaps") or ():
        if gap["called"]:
            made.append((gap["name"], words.number(gap["size"]), _span(gap)))
    return made


def _span(gap: Told) -> str:
    bounds = _bounds(gap)
    return (
        tell("95% interval {interval}", interval=bounds)
        if gap["low"] is not None and gap["high"] is not None
        else bounds
    )


def _bounds(gap: Told) -> str:
    if gap["low"] is None or gap["high"] is None:
        return _("how sure isn't known")
    return tell("{low} to {high}", low=words.number(gap["low"]), high=words.number(gap["high"]))


def _gaps(general: Told) -> Table | None:
    if not general:
        return None
    rows = [
        (gap["name"], words.number(gap["size"]), _bounds(gap), words.number(gap["matters"]),
         _("yes") if gap["called"] else _("no"))
        for gap in general["gaps"]
    ]  # fmt: skip
    return (_("gap"), _("size"), _("95% interval"), _("matters from"), _("called")), rows


def _card(sample: Told, told: Told) -> dict[str, Any]:
    caption = _caption(sample, told)
    return {
        "number": sample["number"], "caption": caption,
        "picture": drawn(sample["input"], caption) if sample["input"] is not None else "",
        "target": "" if told["kind"] == "multi-label" else _label(sample["target"]),
        "prediction": "" if told["kind"] == "multi-label" else _label(sample["prediction"]),
        "sure": words.percent(sample["confidence"]) if sample["confidence"] is not None else "",
        "loss": words.number(sample["loss"]), "error": words.percent(sample["error"]) if told["kind"] != "regression" else "",
    }  # fmt: skip


def _label(value: Any) -> str:
    return words.number(value) if isinstance(value, float) else words.clean("" if value is None else value)


def _pair_card(pair: Told, pictures: Mapping[int, Any]) -> dict[str, Any]:
    shown = [n for n in pair["samples"] if n in pictures][:_MOST_PICTURES]
    return {
        "says": _pair(pair), "numbers": _numbers(pair["samples"]), "width": 100 * (pair["share"] or 0.0),
        "pictures": [(n, drawn(pictures[n], tell("sample {number}: {target}", number=n, target=pair["target"]))) for n in shown],
    }  # fmt: skip


def _matrix(told: Told) -> dict[str, Any] | None:
    """Rows of cells with their level of colour: by the share of the row, so that small classes are seen as well."""
    matrix = told["matrix"]
    if not matrix or len(matrix) > _MOST_MATRIX:
        return None
    rows = []
    for i, counts in enumerate(matrix):
        whole = sum(counts)
        cells = [(count, _level(count, whole), i == j) for j, count in enumerate(counts)]
        rows.append((words.place(told["names"][i], 16), cells, whole))
    return {"names": [words.place(name, 12) for name in told["names"]], "rows": rows}


def _level(count: int, whole: int) -> int:
    """From 0 to 9, by the root of the share: rare mistakes are what one looks for."""
    return math.ceil((_LEVELS - 1) * math.sqrt(count / whole)) if whole else 0


def _classes(told: Told) -> Table | None:
    rows = [
        (words.clean(c["name"]), str(c["recall"]["count"]), *_rate(c["recall"]), *_rate(c["precision"]))
        for c in told["classes"][:_MOST_ROWS]
    ]
    header = (_("class"), _("samples"), _("recall"), _("95% interval"), _("precision"), _("95% interval"))
    return (header, rows) if rows else None


def _rate(rate: Told) -> tuple[str, str]:
    return (words.percent(rate["share"]), _interval(rate)) if rate["count"] else ("–", "–")


def _slices(told: Told) -> Table | None:
    number = words.number if told["kind"] == "regression" else words.percent
    rows = [
        (words.clean(s["name"]), str(s["count"]), number(s["error"]), number(s["rest"]), f"{s['corrected']:.2g}",
         _("worse than the rest") if s["worse"] else "")
        for s in told["slices"][:_MOST_ROWS]
    ]  # fmt: skip
    return ((_("group"), _("samples"), _("error"), _("of the rest"), _("p, corrected"), ""), rows) if rows else None


def _suspect(suspect: Told) -> dict[str, Any]:
    picture = suspect.get("input")
    return {
        "number": suspect["number"], "says": words.clean(suspect["says"]),
        "picture": drawn(picture, tell("sample {number}", number=suspect["number"])) if picture is not None else "",
    }  # fmt: skip
