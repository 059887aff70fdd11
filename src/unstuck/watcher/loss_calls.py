"""What the trace shows of a loss: the calls that it was made from, its outputs and targets, and where one written by hand takes them.

A loss is either a call of one of torch's loss functions among what the backward's root was made from, or it is written by
hand. Then the operations between root and the last layers with parameters are read backwards, and the place where data meet
activations tells output and target: an index (`logp[range(n), y]`, `gather`) tells classes, a difference tells a regression target,
a product with rows that sum to one tells one-hot classes, one with -1 and 1 tells a hinge. Data that the script computed from the outputs
themselves (sampled actions, pseudo-labels) are no targets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from unstuck.signals.score import kind_by_values
from unstuck.watcher.trace import Call, LossSeen

_BY_CLASS = ("cross_entropy", "nll_loss", "multi_margin_loss", "linear_cross_entropy")  # one number a row
_BY_NUMBER = (
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "gaussian_nll_loss", "poisson_nll_loss", "soft_margin_loss",
)  # fmt: skip
_LONGEST_CHAIN = 32


# ---------------------------------------------------------------------- the graph of calls


def ancestors(start: Call | None) -> dict[Call, None]:
    """The call that backward starts from, and all that it was made from."""
    found: dict[Call, None] = {}
    todo = [start] if start is not None else []
    while todo:
        call = todo.pop()
        if call not in found:
            found[call] = None
            todo.extend(call.inputs)
    return found


def tail(start: Call) -> list[Call]:
    """The calls between the root and the last layers with parameters, those layers left out, in the order they were made."""
    found: dict[Call, None] = {}
    todo = [start]
    while todo:
        call = todo.pop()
        if call in found or (call.layer is not None and call.layer.parameters):
            continue
        found[call] = None
        todo.extend(call.inputs)
    return sorted(found, key=lambda call: call.order)


def chain(call: Call) -> tuple[str, ...]:
    """Ops from the last layer with parameters to this call."""
    found: list[str] = []
    for _ in range(_LONGEST_CHAIN):
        if call.layer is None:
            break
        found.append(call.layer.op)
        if call.layer.parameters or not call.inputs:
            break
        call = call.inputs[0]
    return tuple(reversed(found))


# ---------------------------------------------------------------------- losses written by hand


class Meeting(NamedTuple):
    """Where data meet activations in a loss that is written by hand.

    Attributes:
        call: The operation.
        source: The call that made the output.
        output: The output; of `y * log(p)` it is p.
        target: The target.
        kind: Of the target, as in `LossCall`.
    """

    call: Call
    source: Call
    output: Tensor
    target: Tensor
    kind: str

    @property
    def takes_log(self) -> bool:
        """Whether the loss takes the logarithm of the output itself."""
        return self.source is not self.call.inputs[0]


def meeting(calls: Iterable[Call]) -> Meeting | None:
    """The first of these calls where data meet activations."""
    return next((found for call in calls if (found := _meets(call)) is not None), None)


def _meets(call: Call) -> Meeting | None:
    if call.layer is None or call.output is None or not call.data or not call.inputs:
        return None
    op, output, source = call.layer.op, call.output, call.inputs[0]
    for target in reversed(call.data) if op == "gather" else call.data:  # logp[range(n), y]: the classes come last
        if not target.dim() or not output.dim():
            continue
        if op == "gather" and not target.is_floating_point() and output.dim() > 1:
            rows = target.reshape(-1)
            if rows.numel() == output.shape[0] and rows.dtype != torch.bool:
                return Meeting(call, source, output, rows, "class index")
        if target.shape[0] != output.shape[0] and target.numel() != output.numel():
            continue
        if op == "add" and call.subtracts:
            return Meeting(call, source, output, target, kind_by_values(output.shape, target))
        if op == "mul" and target.shape == output.shape and target.is_floating_point():
            kind = kind_by_values(output.shape, target)
            if kind in ("one-hot", "binary", "multi-label", "probability"):
                output, source = _before_log(output, source)
                return Meeting(call, source, output, target, kind)
    return None


def _before_log(output: Tensor, source: Call) -> tuple[Tensor, Call]:
    """`y * log(p)`: the output is p, not its logarithm."""
    if source.layer is not None and source.layer.op == "log" and source.inputs:
        return output.exp(), source.inputs[0]
    return output, source


# ---------------------------------------------------------------------- calls of loss functions


def kind_of(name: str, output: Tensor, target: Tensor) -> tuple[str, int]:
    """Kind of target that a loss function takes, and number of classes. **Waits for the device**: for once a loss."""
    if name in _BY_CLASS:
        classes = int(output.shape[class_axis(output)])
        if not target.is_floating_point():
            return "class index", classes
        return ("one-hot" if kind_by_values(output.shape, target) == "one-hot" else "probability"), classes
    if name.startswith("binary_cross_entropy"):
        kind = kind_by_values(output.shape, target)
        return ("binary" if kind == "real" else kind), int(target.shape[1]) if kind in ("one-hot", "multi-label") else 2
    if name in ("multilabel_margin_loss", "multilabel_soft_margin_loss"):
        return "multi-label", int(output.shape[-1])
    if name in _BY_NUMBER:
        if target.shape == output.shape or target.numel() == output.numel():
            kind = kind_by_values(output.shape, target)
            return kind, int(target.shape[1]) if kind == "one-hot" else 2 if kind == "binary" else 0
        return "real", 0
    if name == "kl_div":
        return "probability", int(output.shape[-1]) if output.dim() else 0
    return "none", 0


def class_axis(tensor: Tensor) -> int:
    """The axis along which classes lie."""
    return 1 if tensor.dim() > 1 else 0


def num_terms(seen: LossSeen) -> Tensor | int:
    """How many numbers a loss function adds up; on the device where some don't count."""
    target = seen.target
    if target is not None and not target.is_floating_point() and seen.name in _BY_CLASS:
        return (target != int(seen.settings.get("ignore_index", -100))).sum()
    return seen.output.numel() // (seen.output.shape[class_axis(seen.output)] if seen.name in _BY_CLASS else 1)


def mean_value(seen: LossSeen) -> Tensor:
    """The value of a loss, of a sum its mean over the targets that count."""
    target = seen.target
    if seen.settings.get("reduction") != "sum" or target is None or not target.dim():
        return seen.value
    if target.is_floating_point():
        return seen.value / max(1, target.shape[0])
    return seen.value / (target != int(seen.settings.get("ignore_index", -100))).sum().clamp_(min=1)


# ---------------------------------------------------------------------- calls in loops


def turns_of(found: list[LossSeen], seen: LossSeen) -> list[LossSeen]:
    """The calls of a loss function that a loop makes, as at each time step: at one place, on outputs of one layer, each its own.

    Several losses of one and the same output are no loop, nor are those of several heads.
    """
    if seen.call is None or seen.call.layer is None:
        return [seen]
    turns: list[LossSeen] = []
    for other in found:
        if (other.name, other.site) == (seen.name, seen.site) and _goes_with(other, seen):
            if any(other.call is known.call for known in turns):
                return [seen]
            turns.append(other)
    return turns


def _goes_with(other: LossSeen, seen: LossSeen) -> bool:
    if other.call is None or seen.call is None or other.call.layer is not seen.call.layer:
        return False
    pairs = [(other.output, seen.output)]
    if seen.target is not None and other.target is not None:
        pairs.append((other.target, seen.target))
    elif other.target is not seen.target:
        return False
    return all(a.shape[1:] == b.shape[1:] and a.dim() == b.dim() and a.dtype == b.dtype for a, b in pairs)


def joined(turns: list[LossSeen]) -> tuple[Tensor, Tensor | None]:
    """Outputs and targets of all calls, as of one."""
    if len(turns) == 1:
        return turns[0].output, turns[0].target
    outputs = torch.cat([torch.atleast_1d(seen.output) for seen in turns])
    targets = [torch.atleast_1d(seen.target) for seen in turns if seen.target is not None]
    return outputs, torch.cat(targets) if targets else None


def average(values: list[Tensor]) -> Tensor:
    """Mean of the values of several calls."""
    return values[0].float() if len(values) == 1 else torch.stack([v.float().reshape(()) for v in values]).mean()
