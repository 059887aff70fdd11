"""Data to evaluate on, scaled as those to train on."""

from __future__ import annotations

import re
from typing import Any

from unstuck.program import Script
from unstuck.remedies._scaling import Scaling, scalings
from unstuck.source import Edit, EditError
from unstuck.verdict import Verdict

_TRAIN = re.compile(r"(?<![A-Za-z])(train(ing)?|Train(ing)?|TRAIN|tr)(?=_|$|s$|[A-Z0-9])|(?<=[a-z0-9])Train")
_OTHERS = ("test", "val", "valid", "validation", "dev", "eval", "te", "testing")


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def evaluation_scale(script: Script) -> list[Edit]:
    """What the script does to its training inputs (`x_train = x_train / 255`) is done to those it evaluates on (`x_test`), too.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: No input is scaled by a number under a name that tells what it is for, or the others are scaled as well.
    """
    source = script.main
    found = scalings(source)
    scaled = {each.name for each in found}
    edits: list[Edit] = []
    for each in found:
        if not each.of_target:
            edits += [
                source.after(each.statement, [each.of_other(name)]) for name in _siblings(each) if name not in scaled
            ]
    if not edits:
        raise EditError("no input is scaled for training alone where it could be told")
    return edits


def _siblings(found: Scaling) -> list[str]:
    """Variables that have a value by then, and the same name but for what it is for."""
    match = _TRAIN.search(found.name)
    if match is None:
        return []
    word = match.group()
    cased = str.upper if word.isupper() else str.capitalize if word[0].isupper() else str.lower
    names = [found.name[: match.start()] + cased(other) + found.name[match.end() :] for other in _OTHERS]
    return [name for name in names if any(s.lineno <= found.statement.lineno for s in found.source.binds(name))]
