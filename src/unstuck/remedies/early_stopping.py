"""The weights of the best evaluation, instead of the last."""

from __future__ import annotations

import ast
import copy
import math
import re
import textwrap
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._network import Evaluations, evaluations, outermost_loop
from unstuck.source import Edit, EditError, Source
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Epoch, Training

_LOWER = re.compile(r"loss|err|mse|mae|rmse|nll|ppl|perplexity|bce", re.I)
_HIGHER = re.compile(r"acc|score|r2|f1|auc|iou|dice|correct|hits|right", re.I)
_HELD_OUT = re.compile(r"val|test|dev|eval|hold", re.I)
_TRAINING = re.compile(r"(^|_)(tr|train|training)(_|$)|^best", re.I)
_REPEATED = 6  # lines of an evaluation that may be written a second time


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def early_stopping(script: Script) -> list[Edit]:
    """The weights with the best evaluation are kept, and are the network's when training is over (Prechelt 1998).

    It is early stopping that looks back: no patience has to be chosen, as training goes on to its end. Where nothing is evaluated
    after training the last evaluation is made again. What the weights are chosen by is no longer a fair test of them: where the same
    data are evaluated, the score comes out a little too good.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: No evaluation within the training gives a number of which it is known whether it should be low or high.
    """  # noqa: DOC502
    found = evaluations(script)
    source = found.source
    name, last, loop, within = _number(script, found)
    lower = _LOWER.search(name) is not None
    best = source.free("best", f"best_{name}")
    state = source.free("best_state", "best_weights")
    copied = f"copy.deepcopy({script.model}.state_dict())"
    restored = [f"{script.model}.load_state_dict({state})"]
    if not any(s.lineno > (loop.end_lineno or 0) for s in found.statements):
        restored += _again(source, within)
    lines = [f"if {name} {'<' if lower else '>'} {best}:", f"    {best}, {state} = {name}, {copied}"]
    return [
        *source.imports("copy", "import copy"),
        source.before(loop, [f'{best}, {state} = float("{"" if lower else "-"}inf"), {copied}'], rank=2),
        source.after(last, lines), source.after(loop, restored),
    ]  # fmt: skip


def _number(script: Script, found: Evaluations) -> tuple[str, ast.stmt, ast.stmt, list[ast.stmt]]:
    """The variable that an evaluation gives, the last statement that gives it its value, the training's loop, and the evaluation.

    Raises:
        EditError: There is none.
    """
    for statement in found.statements:
        loop = outermost_loop(script, found.source, statement)
        block = _block(found.source, statement)
        if loop is None or not block:
            continue
        rest = block[block.index(statement) :]
        while isinstance(rest[0], ast.If) and not rest[0].orelse:  # it is evaluated now and then
            rest = rest[0].body
        given = _by_evaluation(found, rest)
        name = _best_known(list(dict.fromkeys(name for names in given.values() for name in names)))
        if name:
            last = [s for s, names in given.items() if name in names][-1]
            return name, last, loop, rest[: rest.index(last) + 1]
    raise EditError("no evaluation within the training gives a number that is known by its name")


def _by_evaluation(found: Evaluations, statements: list[ast.stmt]) -> dict[ast.stmt, list[str]]:
    """Names that each statement gives a number that comes of an evaluation, in the same statement or in one before."""
    uses, known, given = set(found.uses), set(), {}
    calls = {call for function, _ in found.functions for call in found.source.calls(function)}
    for statement in statements:
        inside = set(ast.walk(statement))
        reads = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        added = {n.target.id for n in inside if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)}
        if inside & (uses | calls) or (reads | added) & known:
            known |= {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            given[statement] = _given(found.source, statement)
    return given


def _best_known(names: list[str]) -> str:
    """The name of a loss, else of a score; that of held-out data where there are several, "" where there is none."""
    names = [name for name in names if not _TRAINING.search(name)]
    for held_out in (True, False):
        for pattern in (_LOWER, _HIGHER):
            for name in names:
                if (
                    pattern.search(name)
                    and (pattern is _LOWER or not _LOWER.search(name))
                    and (not held_out or _HELD_OUT.search(name))
                ):
                    return name
    return ""


def _block(source: Source, statement: ast.stmt) -> list[ast.stmt]:
    fields = (block for _, block in ast.iter_fields(source.parents[statement]))
    return next((block for block in fields if isinstance(block, list) and statement in block), [])


def _given(source: Source, statement: ast.stmt) -> list[str]:
    """Names that a statement, or one within it, gives a number: within a loop of its own only those that count up there."""
    stored = [n for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    plain = [n for n in stored if isinstance(source.statement_of(n), (ast.Assign, ast.AnnAssign, ast.AugAssign))]
    inside = set(ast.walk(statement))
    loops = {n: any(isinstance(a, (ast.For, ast.While)) and a in inside for a in source.around(n)) for n in plain}
    return [n.id for n in plain if not loops[n] or isinstance(source.statement_of(n), ast.AugAssign)]


def _again(source: Source, statements: list[ast.stmt]) -> list[str]:
    """An evaluation's own text.

    Raises:
        EditError: It is too long to be written twice, or goes on from what was before.
    """
    stored = [n for s in statements for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    begun = {n.id for n in stored if isinstance(source.statement_of(n), ast.Assign)}
    added = [n for s in statements for n in ast.walk(s) if isinstance(n, ast.AugAssign)]
    lines: list[str] = []
    for statement in statements:
        start, end = source.span(statement)
        first = source.text.rfind("\n", 0, start) + 1
        lines += textwrap.dedent(source.text[first:end]).splitlines()
    if len(lines) > _REPEATED or any(source.of(n.target) not in begun for n in added):
        raise EditError("nothing is evaluated after training, and the evaluation is too long to be written twice")
    return lines


def treat(training: Training, record: Record) -> None:
    """The weights with the lowest loss in evaluation are put back when training is over, and evaluated again.

    Raises:
        EditError: Nothing is evaluated.
    """
    if training.evaluation is None:
        raise EditError("the training evaluates nothing")
    best = _Best()
    training.on_epoch.append(best.look)
    training.on_end.append(best.put_back)


class _Best:
    """What the model held at its best evaluation."""

    def __init__(self) -> None:
        self.loss = math.inf
        self.state: dict[str, Any] = {}

    def look(self, training: Training, epoch: Epoch) -> None:
        """Keeps it where an epoch's evaluation was better than all before."""
        if epoch.evaluation < self.loss:
            with training.as_evaluated():
                self.loss, self.state = epoch.evaluation, copy.deepcopy(training.model.state_dict())

    def put_back(self, training: Training) -> None:
        """Gives it back to the model; what is trained after that begins anew."""
        if self.state:
            training.model.load_state_dict(self.state)
            training.evaluate()
        self.loss, self.state = math.inf, {}
