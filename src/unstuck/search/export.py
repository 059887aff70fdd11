"""What was found, ready for use: source, weights and a recipe; of a script the change, as `unstuck run --with` takes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from unstuck._json import plain
from unstuck._language import say
from unstuck.errors import MisuseError
from unstuck.report.output import write_text
from unstuck.search.answer import ALPHA, Answer, Finalist, ranked
from unstuck.search.health import verdict
from unstuck.search.hyperparameters import Variant
from unstuck.search.importance import importance
from unstuck.search.problems import Problem, ScriptProblem

DRAWN = 4  # of the best


def described(answer: Answer, problem: Problem) -> dict[str, Any]:
    """All that reports tell of a search, as JSON.

    Args:
        answer: What came of it.
        problem: What was searched.
    """
    children = [c for several in answer.arms.values() for c in several]
    best = ranked(children)[:DRAWN]
    shown = {
        c.number: c for c in [*(f.child for f in (answer.winner, answer.best, answer.control) if f is not None), *best]
    }
    drawings = {str(number): drawing for number, child in shown.items() if (drawing := drawn(child.point.chosen))}
    told = [asdict(i) for i in importance(children)]
    changes = _changes(answer.winner, problem)
    return plain({
        **answer.to_json(), "importance": told, "drawings": drawings, "verdicts": _verdicts(answer), "diff": changes.get("diff", "")
    })  # fmt: skip


def _verdicts(answer: Answer) -> list[str]:
    """What is to be said of how the search went."""
    told = [verdict(answer.health).sentence] if any("entropy" in h for h in answer.health) else []
    p = answer.better_than_random
    return told if p is None or p < ALPHA else [*told, f"the search is no better than random so far (p = {p:.2g})"]


def drawn(chosen: Any) -> str:
    """The drawing of an architecture, as SVG; "" of what has none."""
    for part in parts_of(chosen):
        if hasattr(part, "source"):
            from unstuck.search.drawing import svg

            return svg(part)
    return ""


def parts_of(chosen: Any) -> list[Any]:
    """What a space chose, and what is in it, where it is a collection."""
    if isinstance(chosen, dict):
        return [chosen, *chosen.values()]
    return [chosen, *chosen] if isinstance(chosen, list | tuple) else [chosen]


def exported(answer: Answer, problem: Problem, folder: Path) -> Sequence[Path]:
    """Writes what was found.

    Args:
        answer: What came of the search.
        problem: What was searched.
        folder: Where to; it is made.

    Returns:
        The files: `recipe.json`; of a script `change.diff` and `prescription.json`, which `unstuck run --with` takes, and the changed
        script; of an architecture of ours its source as a plain module, `net.py`; of a training `weights.pt`, a state dict.

    Raises:
        MisuseError: Nothing was found, or the folder can't be made.
    """
    winner = answer.winner
    if winner is None:
        raise MisuseError(say("nothing was found that could be written"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisuseError(say("{folder!r} can't be made: {error}", folder=str(folder), error=str(error))) from None
    child = winner.child
    recipe = {
        "schema": 1, "values": child.point.values, "chosen": str(child.point.chosen), "score": answer.score,
        "scores": winner.values, "arm": child.arm,
        "problem": answer.problem, "text": answer.text,
    }  # fmt: skip
    texts = {
        "recipe.json": json.dumps(plain(recipe), indent=1),
        **_source(child.point.chosen),
        **_texts(winner, problem),
    }
    paths = [folder / name for name in texts]
    for path in paths:
        write_text(path, texts[path.name])
    return [*paths, *_weights(winner, folder)]


def _source(chosen: Any) -> dict[str, str]:
    """Modules' source, by name of the file."""
    sources = [part.source() for part in parts_of(chosen) if hasattr(part, "source")]
    return {f"net{i or ''}.py": source for i, source in enumerate(sources)}


def _changes(best: Finalist | None, problem: Problem) -> dict[str, Any]:
    """What changes in a script, with the arguments that it is to be called with."""
    if best is None or not isinstance(problem, ScriptProblem):
        return {}
    variant: Variant = best.child.point.chosen
    written = problem.patient.written(variant.treatment)
    return {
        "edits": [astuple(e) for e in written.edits], "digests": written.digests, "diff": written.diff, "texts": written.texts,
        "treatment": [asdict(d) for d in variant.treatment], "arguments": [*problem.command[1:], *variant.arguments],
    }  # fmt: skip


def _texts(best: Finalist, problem: Problem) -> dict[str, str]:
    changes = _changes(best, problem)
    if not changes:
        return {}
    texts = {Path(name).name: text for name, text in changes.pop("texts").items()}
    return {"prescription.json": json.dumps(plain(changes), indent=1), "change.diff": changes["diff"], **texts}


def _weights(best: Finalist, folder: Path) -> list[Path]:
    """The weights of the best's best seed, where they were saved."""
    record = best.records.get(best.best_seed, "") if best.records else next(iter(best.child.records), "")
    runs = Path(record).parent.parent if record else folder
    seed = f"-{best.best_seed}" if best.records else ""
    saved = runs / "saved" / f"{best.child.number}-0{seed}-end.pt"
    if not saved.exists():
        return []
    import torch

    path = folder / "weights.pt"
    torch.save(torch.load(saved, map_location="cpu", weights_only=False)["model"], path)
    return [path]
