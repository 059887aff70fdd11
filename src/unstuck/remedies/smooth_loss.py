"""A loss with a slope everywhere beside one that is flat where masks are empty."""

from __future__ import annotations

import ast
import inspect
import re
from typing import TYPE_CHECKING, Any

from unstuck.program import Script, loss_of
from unstuck.remedies._text import in_torch, reshaped
from unstuck.source import Edit, EditError, Source, called
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import LossCall, Record
    from unstuck.training import Training

_OVERLAP = re.compile(r"dice|iou|jaccard|tversky|overlap|intersection|(^|_)inter($|_)", re.I)


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """Where the loss is the script's own."""
    return [{}] if script.loss.name == "hand-written" else []


def smooth_loss(script: Script) -> list[Edit]:
    """Binary cross-entropy is added to a loss of overlap (Dice, IoU, Tversky), as nnU-Net does (Isensee et al. 2021).

    Overlap has next to no slope where a mask is empty, or where prediction and mask don't meet. Cross-entropy has one at every pixel.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: The loss isn't known as one of overlap, or has cross-entropy beside it already.
    """
    _check_name(script.loss)
    source, whole, output, target = script.loss_by_hand()
    if isinstance(whole, ast.Call) and isinstance(source.parents[whole], ast.BinOp):
        raise EditError("something is added to the loss already")
    text = _text(source, whole)
    names = {n.id for n in ast.walk(whole) if isinstance(n, ast.Name)} | {
        called(c) for c in ast.walk(whole) if isinstance(c, ast.Call)
    }
    kind = _beside(script.loss, "\n".join([*names, text]))
    name, imports = in_torch(source, f"torch.nn.functional.{kind}")
    given, truth = source.of(output), source.of(target)
    own, lines = source.of(whole), []
    if not isinstance(output, (ast.Name, ast.Attribute)):  # so that it isn't computed twice
        (start, _), (first, last) = source.span(whole), source.span(output)
        given = source.free("out", "output")
        lines = [f"{given} = {source.of(output)}"]
        own = f"{own[: first - start]}{given}{own[last - start :]}"
    loss = script.loss
    if loss.output_shape != loss.target_shape:
        truth = reshaped(truth, given, loss.output_shape)
    adds = isinstance(whole, ast.BinOp) and isinstance(whole.op, (ast.Add, ast.Sub))
    plain = adds or isinstance(whole, (ast.Call, ast.Name, ast.UnaryOp))
    added = f"{own if plain else f'({own})'} + {name}({given}, {truth}.float())"
    put = [source.before(source.statement_of(whole), lines)] if lines else []
    return [*imports, *put, source.replace(whole, added)]


def _check_name(loss: LossCall) -> None:
    """Sees to it that a loss is hand-written.

    Raises:
        EditError: It is one of torch's.
    """
    if loss.name != "hand-written":
        raise EditError(f"{loss.name} is no loss of overlap")


def _beside(loss: LossCall, text: str) -> str:
    """The cross-entropy that goes with a loss of that text.

    Raises:
        EditError: The loss isn't known as one of overlap, or has cross-entropy beside it already.
    """
    if not any(_OVERLAP.search(line) for line in text.splitlines()):
        raise EditError("the loss isn't known as one of overlap")
    if re.search(r"cross_entropy|BCE", text):
        raise EditError("the loss has cross-entropy beside overlap already")
    return "binary_cross_entropy" if _are_probabilities(loss, text) else "binary_cross_entropy_with_logits"


def _text(source: Source, whole: ast.expr) -> str:
    """A loss's own text, with that of the function or criterion that computes it, and of the names in it that were given just before."""
    parts = [source.of(whole)]
    for call in (n for n in ast.walk(whole) if isinstance(n, ast.Call)):
        name = called(call).rpartition(".")[2]
        kinds = {called(a.value) for a in source.assigned(name) if isinstance(a.value, ast.Call)}
        parts += [source.of(n) for n in source.nodes(ast.FunctionDef) if n.name == name]
        parts += [source.of(n) for n in source.nodes(ast.ClassDef) if n.name in {name, *kinds}]
    return "\n".join(parts)


def _are_probabilities(loss: LossCall, text: str) -> bool:
    """Whether the loss is given probabilities; where it makes them itself it is given logits."""
    if "sigmoid" in text:
        return False
    lowest, highest = (loss.output.get(key) for key in ("min", "max"))
    if lowest is not None and highest is not None:
        return lowest >= 0 and highest <= 1
    return loss.chain[-1:] == ("sigmoid",)


def treat(training: Training, record: Record) -> None:
    """Binary cross-entropy is added to a loss of overlap where it is trained, not where it is evaluated.

    Raises:
        EditError: The loss isn't known as one of overlap, or has cross-entropy beside it already.
    """  # noqa: DOC502
    call, loss = loss_of(record), training.loss
    _check_name(call)
    function = loss if inspect.isroutine(loss) else type(loss)
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt
        text = ""
    training.loss = _WithCrossEntropy(loss, _beside(call, f"{function.__name__}\n{text}"))


class _WithCrossEntropy:
    """A loss beside which cross-entropy is trained.

    Args:
        loss: The loss.
        kind: Of cross-entropy, a function in `torch.nn.functional`.
    """

    def __init__(self, loss: Any, kind: str) -> None:
        self.loss, self.kind = loss, kind

    def __call__(self, outputs: Any, targets: Any) -> Any:
        import torch
        from torch.nn import functional

        own = self.loss(outputs, targets)
        if not torch.is_grad_enabled():
            return own
        return own + getattr(functional, self.kind)(outputs, targets.reshape(outputs.shape).float())
