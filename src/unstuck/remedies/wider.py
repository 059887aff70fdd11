"""More units in the hidden layers."""

from __future__ import annotations

import inspect
import itertools
from typing import TYPE_CHECKING, Any

from unstuck.program import Made, Script
from unstuck.source import Edit, EditError, argument, number_in
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_NORMS = {"BatchNorm1d": "num_features", "BatchNorm2d": "num_features", "LayerNorm": "normalized_shape"}
_ENDS = {
    "Linear": ("in_features", "out_features"), "Embedding": ("num_embeddings", "embedding_dim"),
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), ("in_channels", "out_channels")),
    **dict.fromkeys(("RNN", "LSTM", "GRU"), ("input_size", "hidden_size")),
}  # fmt: skip
"""What layers call the sizes of what they are given and what they give, their first two arguments."""


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """Four times as many; half as many where it overfits."""
    return [{"times": 0.5}] if any(f.cause == "overfitting" for f in verdict.findings) else [{"times": 4}]


def wider(script: Script, *, times: float = 4) -> list[Edit]:
    """Hidden layers of several times the size: dense, convolutional and recurrent ones.

    Args:
        script: The script.
        times: How many times as many units.

    Returns:
        The edits.

    Raises:
        EditError: The sizes aren't plain numbers that one layer's output and the next one's input have in common.
    """
    made = script.modules(*_ENDS, *_NORMS)
    edits: dict[Edit, None] = {}
    between: list[Made] = []
    before: Made | None = None
    for one in made:
        if one.event["name"] in _NORMS:
            between.append(one)
            continue
        if before is not None and argument(one.call, "groups") is None:
            edits.update(dict.fromkeys(_joined(before, between, one, times)))
        before, between = one, []
    if not edits:
        raise EditError("the sizes of the hidden layers aren't plain numbers")
    return list(edits)


def _joined(before: Made, between: list[Made], after: Made, times: float) -> list[Edit]:
    """Another size of what one layer gives, norms keep, and the next takes."""
    ends = [
        (before, _ENDS[before.event["name"]][1], 1),
        *((norm, _NORMS[norm.event["name"]], 0) for norm in between),
        (after, _ENDS[after.event["name"]][0], 0),
    ]
    edits, sizes = [], set()
    for one, name, position in ends:
        given = argument(one.call, name, position)
        number = one.source.constant(given) if given is not None else None
        if number is None:
            return []
        size = number_in(number) or 1
        sizes.add(size)
        edits.append(one.source.replace(number, str(max(1, round(times * size)))))
    return edits if len(sizes) == 1 else []


def treat(training: Training, record: Record, *, times: float = 4) -> None:
    """Hidden layers of several times the size, which are drawn anew.

    Raises:
        EditError: No layer's output is the next one's input.
    """
    from unstuck.remedies._training import parameters_kept, replace

    sizes: dict[int, dict[str, int]] = {}  # of modules, by their ids
    made: list[Any] = [m for m in training.model.modules() if type(m).__name__ in (*_ENDS, *_NORMS)]
    for start, end in itertools.pairwise(i for i, m in enumerate(made) if type(m).__name__ in _ENDS):
        before, after = made[start], made[end]
        norms = [(m, _NORMS[type(m).__name__]) for m in made[start + 1 : end]]
        ends = [(before, _ENDS[type(before).__name__][1]), *norms, (after, _ENDS[type(after).__name__][0])]
        held = {_size(getattr(m, name)) for m, name in ends}
        if len(held) == 1 and getattr(after, "groups", 1) == getattr(before, "groups", 1) == 1:
            size = max(1, round(times * held.pop()))
            for m, name in ends:
                sizes.setdefault(id(m), {})[name] = size
    if not sizes:
        raise EditError("no hidden layer's output is the next one's input")
    with parameters_kept(training):
        for m in made:
            if id(m) in sizes:
                replace(training, m, _another(m, sizes[id(m)]))


def _size(held: int | tuple[int, ...]) -> int:
    return held if isinstance(held, int) else held[-1]


def _another(module: Any, sizes: dict[str, int]) -> Any:
    """A module of the same kind, of other sizes."""
    from torch import nn

    from unstuck.recurrent.layers import Recurrent

    base = next((kind for kind in (nn.RNNBase, Recurrent) if isinstance(module, kind)), type(module))
    takes = [name for name in inspect.signature(base).parameters if name not in ("mode", "cell", "settings")]
    own = {name: getattr(module, name) for name in takes if hasattr(module, name)}
    own |= module.settings if isinstance(module, Recurrent) else {}
    if not own.get("proj_size"):  # LSTM alone takes it
        own.pop("proj_size", None)
    if "bias" in own and not isinstance(module.bias, bool):
        own["bias"] = module.bias is not None
    if type(module) is nn.RNN:
        own["nonlinearity"] = module.nonlinearity
    return type(module)(**{**own, **sizes})
