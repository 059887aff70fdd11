"""Data to evaluate on, scaled as those to train on."""

from __future__ import annotations

import ast
import re
from typing import Any

from unstuck.program import Script
from unstuck.remedies._scaling import Scaling, is_target, scalings
from unstuck.remedies._standardizing import Standardizing, standardizings
from unstuck.source import Edit, EditError, Source, called
from unstuck.verdict import Verdict

_TRAIN = re.compile(r"(?<![A-Za-z])(train(ing)?|Train(ing)?|TRAIN|tr)(?=_|$|s$|[A-Z0-9])|(?<=[a-z0-9])Train")
_OTHERS = ("test", "val", "valid", "validation", "dev", "eval", "te", "testing")


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def evaluation_scale(script: Script) -> list[Edit]:
    """What the script does to its training inputs, and not to those that it evaluates on, is done to them, too; or the other way round.

    A number that they are divided by (`x_train = x_train / 255`), mean and deviation found by hand, or a scaler of scikit-learn. It is
    always the numbers found in the training data that both are scaled by.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: No input is scaled under a name that tells what it is for, or the others are scaled as well.
    """
    source = script.main
    numbers = [each for each in scalings(source) if not each.of_target]
    fitted = [each for each in standardizings(source) if not is_target(each.name)]
    scaled = {each.name for each in numbers} | {each.name for each in fitted}
    fitted = [each for each in fitted if each.whole]
    edits: list[Edit] = []
    for each in numbers:
        for name in _others(source, each.name, each.statement, by_data=False):
            if name not in scaled:
                edits.append(source.after(each.statement, [each.of_other(name)]))
    for each in fitted:
        for name in _others(source, each.name, each.statement, by_data=True):
            if name not in scaled:
                edits.append(_of_evaluation(each, name))
    for each in [*numbers, *fitted]:
        for name in _trained(source, each.name, each.statement, by_data=isinstance(each, Standardizing)):
            if name not in scaled:
                edits += _of_training(each, name)
    if not edits:
        raise EditError("no input is scaled for training alone, or for evaluation alone, where it could be told")
    return list(dict.fromkeys(edits))


def _of_evaluation(each: Standardizing, name: str) -> Edit:
    """Evaluation's inputs are standardised as training's: before these change where the numbers are taken from them then."""
    source, line = each.source, each.of_other(name)
    if source.loops(each.statement):
        return source.after(_known(each, name), [line])
    if each.by_itself and each.rebinds:
        return source.before(each.statement, [line])
    return source.after(each.statement, [line])


def _of_training(each: Scaling | Standardizing, name: str) -> list[Edit]:
    """Training's inputs are scaled as evaluation's, as soon as the numbers are known.

    Raises:
        EditError: The numbers are those of evaluation.
    """
    source = each.source
    if isinstance(each, Scaling):
        return [source.after(_known(each, name), [each.of_other(name)])]
    if each.by_itself:
        raise EditError(f"{each.name} is standardised by its own numbers, which {name} is not to be")
    line, edits = each.of_other(name), []
    if each.fits and isinstance(each.expression, ast.Call) and isinstance(each.expression.func, ast.Attribute):
        line = line.replace(".transform(", ".fit_transform(", 1)
        of = each.expression.func
        edits = [source.replace(of, f"{source.of(of.value)}.transform")]
    return [source.after(_known(each, name), [line]), *edits]


def _known(each: Scaling | Standardizing, data: str) -> ast.stmt:
    """The statement after which there are the data, all that is cut out of them to be scaled by itself, and the numbers to scale by.

    It is the first such, since data become tensors later that a scaler takes none of.

    Raises:
        EditError: It is in a loop, or in another function.
    """
    source, before = each.source, each.statement
    given = each.given if isinstance(each, Standardizing) else set()
    needed = [*source.binds(data)[:1], *(s for name in given for s in source.binds(name))]
    needed += [s for s in source.binds(each.name) if any(isinstance(n, ast.Name) and n.id == data for n in ast.walk(s))]
    for call in source.nodes(ast.Call):
        owner, _, method = called(call).rpartition(".")
        if owner in given and method in ("fit", "fit_transform", "partial_fit"):
            needed.append(source.statement_of(call))
    here = [s for s in needed if s.lineno < before.lineno and source.function(s) is source.function(before)]
    last = max(here, key=lambda s: s.lineno, default=None)
    if last is None or source.loops(last):
        raise EditError(f"it can't be told where {data} is to be scaled")
    return last


def _others(source: Source, name: str, statement: ast.stmt, *, by_data: bool) -> list[str]:
    """Variables that have a value by then, and the same name but for what it is for, or were split off from the same data.

    What is scaled by numbers of the data it was, and not by 255, may also go by a plain name: x_test is evaluation's share of x.
    """
    pairs = _pairs(source)
    names = [other for one, other in pairs if one == name]
    if by_data and not names:
        plain = [each for other in _OTHERS for each in (f"{name}_{other}", f"{other}_{name}")]
        names = [each for each in plain if each not in {other for _, other in pairs}]
    return [n for n in dict.fromkeys(names) if _is_bound(source, n, statement)]


def _pairs(source: Source) -> list[tuple[str, str]]:
    """Names of training's share and of evaluation's, told by the words in them, or by how they were split."""
    stored = dict.fromkeys(n.id for n in source.nodes(ast.Name) if isinstance(n.ctx, ast.Store))
    return [*((name, other) for name in stored for other in _renamed(name)), *_split(source)]


def _trained(source: Source, name: str, statement: ast.stmt, *, by_data: bool) -> list[str]:
    """Variables that hold training's share of what a variable holds evaluation's of."""
    stored = dict.fromkeys(n.id for n in source.nodes(ast.Name) if isinstance(n.ctx, ast.Store))
    return [
        n
        for n in stored
        if n != name and _is_bound(source, n, statement) and name in _others(source, n, statement, by_data=by_data)
    ]


def _is_bound(source: Source, name: str, by: ast.stmt) -> bool:
    return any(s.lineno <= by.lineno and source.function(s) is source.function(by) for s in source.binds(name))


def _renamed(name: str) -> list[str]:
    """What evaluation's share may be called of data that are called so: x_test of x_train."""
    match = _TRAIN.search(name)
    if match is None:
        return []
    word = match.group()
    cased = str.upper if word.isupper() else str.capitalize if word[0].isupper() else str.lower
    return [name[: match.start()] + cased(other) + name[match.end() :] for other in _OTHERS]


def _split(source: Source) -> list[tuple[str, str]]:
    """Names of what scikit-learn's `train_test_split` gives: training's share, evaluation's share."""
    pairs: list[tuple[str, str]] = []
    for node in source.nodes(ast.Assign):
        given = node.targets[0]
        if isinstance(node.value, ast.Call) and called(node.value).endswith("train_test_split"):
            names = [getattr(e, "id", "") for e in given.elts] if isinstance(given, ast.Tuple) else []
            pairs += [p for p in zip(names[::2], names[1::2], strict=False) if all(p)]
    return pairs
