"""Training in training mode, evaluation in evaluation mode."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._network import evaluations, name_at
from unstuck.source import Edit, EditError, Loop, Source
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """What the script doesn't set: the mode for evaluation where it was seen to be evaluated in training mode, else that for training."""
    found = [f for f in verdict.findings if f.cause == "mode-mismatch"]
    evaluated = any(e.signal == "in_train_mode" for f in found for e in f.evidence)
    return [{"of": "evaluation" if evaluated else "training"}]


def mode(script: Script, *, of: str = "training") -> list[Edit]:
    """`model.train()` at the start of every pass, where dropout and batch norm are to do their work; `model.eval()` before evaluation.

    In a script that evaluates in the midst of a pass training mode is set at the start of every step.

    Args:
        script: The script.
        of: training; or evaluation: where it has no mode of its own it is given that, and training its own back.

    Returns:
        The edits.

    Raises:
        EditError: Backward is called in no loop, the network's name isn't known, or it isn't known where it is evaluated.
    """
    if of == "training":
        return _of_training(script)
    edits = _of_evaluation(script)
    if not edits:
        raise EditError("the network is put into evaluation mode already")
    source, loops = script.loops()
    again = any(
        source.loops(source.statement(int(e.data["line"])))
        for e in script.sites("train")
        if _is_in(source, e.data["file"])
    )
    within = any(source.loops(s) and s.lineno <= (loops[-1].end_lineno or 0) for s in evaluations(script).statements)
    return edits + (_of_training(script) if within and not again else [])


def _of_evaluation(script: Script) -> list[Edit]:
    """`model.eval()` in functions that evaluate, and before what is evaluated in place, unless it stands there already."""
    found = evaluations(script)
    source = found.source
    edits: dict[Edit, None] = {}
    for function, name in found.functions:
        if f"{name}.eval()" not in source.of(function):
            first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
            edits[source.before(first, [f"{name}.eval()"])] = None
    line = f"{script.model}.eval()"
    before: ast.stmt | None = None
    for statement in found.direct:
        block = next(b for _, b in ast.iter_fields(source.parents[statement]) if isinstance(b, list) and statement in b)
        if before in block and not _sets_training(source, before, statement):
            continue
        before = statement
        if not any(source.of(s) == line for s in block[: block.index(statement) + 1]):
            edits[source.before(statement, [line])] = None
    return list(edits)


def _sets_training(source: Source, first: ast.stmt | None, last: ast.stmt) -> bool:
    start = source.span(first)[1] if first is not None else 0
    return ".train()" in source.text[start : source.span(last)[0]]


def _is_in(source: Source, file: str) -> bool:
    return os.path.realpath(file) == os.path.realpath(source.file)


def _of_training(script: Script) -> list[Edit]:
    source, loops = script.loops()
    inner, *outer = loops
    if not outer or _is_evaluated_in(script, source, inner):
        return [source.before(inner.body[0], [f"{script.model}.train()"])]
    if source.function(outer[0]) is source.function(inner):
        return [source.before(outer[0].body[0], [f"{script.model}.train()"])]
    return [source.before(inner, [f"{name_at(script, source, inner)}.train()"])]


def _is_evaluated_in(script: Script, source: Source, loop: Loop) -> bool:
    """Whether the mode for evaluation is set within a loop."""
    modes = [e.data for e in script.sites("eval") if _is_in(source, e.data["file"])]
    return any(loop in source.loops(source.statement(int(mode["line"]))) for mode in modes)


def _of_passes(script: Script, source: Source, inner: Loop, outer: Loop) -> bool:
    """Whether the outer of two loops is beside the inner, and no mode is changed within that."""
    modes = [e.data for e in script.sites("eval") if os.path.realpath(e.data["file"]) == os.path.realpath(source.file)]
    within = any(inner in source.loops(source.statement(int(mode["line"]))) for mode in modes)
    return not within and source.function(outer) is source.function(inner)


def treat(training: Training, record: Record, *, of: str = "training") -> None:
    """The model is trained in training mode.

    Raises:
        EditError: It is already; or evaluation is meant, for which a training has a mode of its own.
    """
    if of == "evaluation":
        raise EditError("the model is evaluated in evaluation mode already")
    if all(module.training for module in training.model.modules()):
        raise EditError("the model is in training mode already")
    training.model.train()
