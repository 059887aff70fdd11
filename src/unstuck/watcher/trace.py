"""What one sampled forward pass showed: its calls, joined into a graph, and what the layers measured meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from unstuck.probes.tape import Recording
from unstuck.signals.units import UnitWindow

DENSE_CALLS = 8  # calls of one layer in a step that are all measured
MOST_CALLS = 64  # calls of one layer in a step that are measured at most

Reach = Callable[[], Tensor | None]
"""How far a recurrent layer reaches back: the gradient by time lag, None if it can't be told."""


class LayerState:
    """One layer while it is watched: what is known of it, and the step's measurements still on the device."""

    __slots__ = (
        "acts", "acts_done", "backs", "calls", "index", "inputs", "key", "model", "module", "most_calls", "name", "near", "op",
        "out_shape", "parameters", "path", "role", "settings", "site", "window",
    )  # fmt: skip

    def __init__(self, index: int, key: tuple[Any, ...], op: str) -> None:
        self.index, self.key, self.op = index, key, op
        self.name = ""
        self.path = self.site = self.module = self.model = ""
        self.role = "hidden"
        self.inputs: dict[int, None] = {}
        self.parameters: list[int] = []
        self.near: frozenset[int] = frozenset()
        self.out_shape: tuple[int, ...] = ()
        self.settings: dict[str, Any] = {}
        self.calls = self.most_calls = 0
        self.acts: list[Tensor] = []  # this step's measurements, one row a measured call
        self.acts_done = 0  # how many of them a backward followed
        self.backs: list[tuple[int, Tensor]] = []  # gradients at the output: (call, measurement)
        self.window: UnitWindow | None = None

    def samples(self, call: int) -> bool:
        """Whether this call of the step (counted from 0) is measured: the first few, then at most `MOST_CALLS` in all."""
        stride = max(1, -(-self.most_calls // (MOST_CALLS - DENSE_CALLS)))
        return call < DENSE_CALLS or call % stride == 0

    def backward_over(self) -> None:
        """The forward pass up to here counts, and the calls of the next begin at 0."""
        self.most_calls, self.calls = max(self.most_calls, self.calls), 0
        self.acts_done = len(self.acts)

    def forget_step(self) -> None:
        """Lets go of the step's measurements."""
        self.acts, self.backs = [], []
        self.calls = self.acts_done = 0


class Call:
    """One call in the step's graph: its layer, and the calls whose results it took."""

    __slots__ = ("data", "inputs", "layer", "order", "output", "subtracts")

    def __init__(self, layer: LayerState | None, inputs: list[Call], order: int) -> None:
        self.layer, self.inputs, self.order = layer, inputs, order
        self.data: list[Tensor] = []  # tensors from outside that took part: inputs, targets, masks
        self.output: Tensor | None = None  # the activations they met, where that could be a loss
        self.subtracts = False


@dataclass
class LossSeen:
    """One call of a loss function as it came in."""

    name: str
    call: Call | None  # what produced its input
    result: Call | None
    output: Tensor
    target: Tensor | None
    settings: dict[str, Any]
    site: str
    value: Tensor
    own_target: bool = False  # the target came out of a network, with a graph of its own


@dataclass
class Trace:
    """What one sampled forward pass showed."""

    producers: dict[Any, Call] = field(default_factory=dict)  # by autograd node
    losses: list[LossSeen] = field(default_factory=list)
    compared: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)  # a == b gave
    used: set[int] = field(default_factory=set)  # indices of parameters
    computed: dict[int, Tensor] = field(default_factory=dict)  # without gradient, of what has one: samples, guesses
    recurrent: list[tuple[LayerState, Reach]] = field(default_factory=list)
    recording: Recording | None = None  # to compute the loss again
    root_outputs: list[Any] = field(default_factory=list)  # of evaluated models
    subtracted: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # such outputs, and what they are apart from
    order: int = 0
    inputs: list[tuple[str, Tensor]] = field(
        default_factory=list
    )  # what met parameters first: (layer name or "", data)
    entered: list[tuple[nn.Module, Tensor]] = field(default_factory=list)  # first with parameters, and what they got
