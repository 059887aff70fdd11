"""What cannot wait for the next sample: a number that jumps, and the first value that isn't finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from unstuck.watcher.cadence import Cadence, Sentinel
from unstuck.watcher.nonfinite import Origin, find_origin, nodes_of
from unstuck.watcher.parameters import ParameterBook
from unstuck.watcher.registry import Registry

_STEEP = frozenset({"sqrt", "log", "pow", "norm", "div"})  # ops with unbounded slope


class Alarms:
    """Watches loss and gradient norm every step, starts bursts, and finds where the first bad value came from.

    Args:
        registry: Knows layers and parameters.
        parameters: Knows gradients.
        cadence: Grants bursts.
        tell: Takes events, without their step.
    """

    def __init__(
        self,
        registry: Registry,
        parameters: ParameterBook,
        cadence: Cadence,
        tell: Callable[[str, str, dict[str, Any]], None],
    ) -> None:
        self.registry, self.parameters, self.cadence, self.tell = registry, parameters, cadence, tell
        self.losses, self._norm = Sentinel(), Sentinel()
        self.found = False  # the first bad value was found
        self._expected = False  # a loss that came late was bad: look at the next graph
        self._node_names: list[str] = []
        self._node_layers: list[Any] = []

    def loss(self, value: float, root: Tensor | None) -> None:
        """Looks at a loss; `root` is its tensor before the backward, None when it comes too late for that."""
        if self.losses.jumps(value):
            self._burst("loss", value)
        if not math.isfinite(value):
            self._expected = True
        if root is not None:
            self.graph(root)

    def graph(self, root: Tensor) -> None:
        """Looks for the first bad value in a loss's graph, once it is known that there is one."""
        if not self._expected or self.found or root.grad_fn is None:
            return
        self.found = True
        origin = find_origin(root.grad_fn) or Origin("loss", root.grad_fn.name(), -1)
        self._tell_origin(origin, [n.name() for n in nodes_of(root.grad_fn)])

    def norm(self, value: float) -> None:
        """Looks at the gradient's norm, while the gradients are still there."""
        jumps = self._norm.jumps(value)
        if not math.isfinite(value) and not self.found:
            self._bad_gradient()
        elif jumps:
            self._burst("gradient norm", value)

    def learn(self, root: Tensor, producers: dict[Any, Any]) -> None:
        """Learns which autograd nodes belong to which layers, from a sampled step."""
        if root.grad_fn is None:
            return
        ordered = nodes_of(root.grad_fn)
        self._node_names = [n.name() for n in ordered]
        calls = [producers.get(node) for node in ordered]
        self._node_layers = [call.layer if call is not None else None for call in calls]

    def _burst(self, what: str, value: float) -> None:
        if self.cadence.burst():
            self.tell("burst", "", {"why": f"{what} jumped to {value:.4g}"})

    def _tell_origin(self, origin: Origin, names: list[str]) -> None:
        place, op, what = "", origin.node.rstrip("0123456789").removesuffix("Backward").lower(), origin.what
        layer = self._node_layers[origin.position] if origin.position >= 0 and names == self._node_names else None
        if layer is not None:
            place, op = layer.name, layer.op if layer.op not in ("loss", "other") else op
            what = "loss" if layer.role == "loss" and what == "activation" else what
        how = f"the result of {origin.node}"
        if origin.parameter is not None:
            state = next((s for s, t in self.registry.live_parameters() if t is origin.parameter), None)
            place, how = (state.name if state is not None else place), "the update of the step before"
        data = {"what": what, "op": op, "before": origin.before, "how": how}
        self.tell("non-finite", place, data | ({"empty": True} if origin.empty else {}))

    def _bad_gradient(self) -> None:
        place = self.parameters.worst_gradient()
        if place is None:
            return
        self.found = True
        steep = [layer.op for layer in self.registry.ordered if layer.op in _STEEP]
        before = self.parameters.rms_before(place)
        how = "the backward pass, while the loss was finite"
        self.tell(
            "non-finite", place, {"what": "gradient", "op": steep[-1] if steep else "", "before": before, "how": how}
        )
