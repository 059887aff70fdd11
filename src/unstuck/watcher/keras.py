"""Keras on torch: its layers are torch's modules, but hold each other in their own way, and its optimizers are none of torch's.

Nothing here imports Keras: what it does is found once a script has imported it.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from unstuck.watcher.patches import like
from unstuck.watcher.transparent import transparent

_SETTINGS = {
    "momentum": "momentum", "nesterov": "nesterov", "beta_1": "beta1", "beta_2": "beta2", "epsilon": "eps", "rho": "rho",
    "amsgrad": "amsgrad", "centered": "centered", "weight_decay": "weight_decay",
}  # fmt: skip


def is_keras(module: nn.Module) -> bool:
    """Whether a module is a layer or model of Keras, or a class made of one."""
    return any(c.__module__.startswith("keras.") for c in type(module).__mro__)


def is_sketch(args: tuple[Any, ...]) -> bool:
    """Whether a layer is called to learn the shape of its output, with no numbers in it."""
    first = args[0] if args else None
    if isinstance(first, (list, tuple)) and first:
        first = first[0]
    return first.is_meta if isinstance(first, Tensor) else type(first).__name__ == "KerasTensor"


def named_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A module and all in it by their paths: of a Keras model its layers by the names its summary shows."""
    if not is_keras(module):
        yield from module.named_modules()
        return
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", module)]
    while todo:
        path, layer = todo.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            yield path, layer
            inside = reversed(getattr(layer, "_layers", ()))
            todo += [(f"{path}.{inner.name}".lstrip("."), inner) for inner in inside]


def named_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A module's parameters by their paths: of a Keras model "dense.kernel", where the layer is "dense"."""
    if not is_keras(module):
        yield from module.named_parameters()
        return
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for path, layer in named_modules(module):
        for variable in getattr(layer, "_trainable_variables", ()):
            found[id(variable.value)] = f"{path}.{variable.name}".lstrip("."), variable.value
    yield from found.values()


def owns(module: nn.Module, tensor: Tensor) -> bool:
    """Whether a Keras layer has this parameter itself."""
    return any(variable.value is tensor for variable in getattr(module, "_trainable_variables", ()))


class KerasOptimizer:
    """An optimizer of Keras, as torch's look.

    Attributes:
        defaults: Its settings, by the names torch's optimizers have for them.
        schedule: Class of its schedule, "" for none.
        clipping: "norm" or "value" with its limit, "" for none.
    """

    def __init__(self, optimizer: Any, variables: list[Any]) -> None:
        self._of, self._variables = weakref.ref(optimizer), variables
        rate = optimizer._learning_rate
        self.schedule = (
            type(rate).__name__ if any(c.__name__ == "LearningRateSchedule" for c in type(rate).__mro__) else ""
        )
        found = {ours: getattr(optimizer, theirs, None) for theirs, ours in _SETTINGS.items()}
        self.defaults: Mapping[str, Any] = {name: value for name, value in found.items() if value is not None}
        if not self.schedule:
            self.defaults = {"lr": self.param_groups[0]["lr"], **self.defaults}
        norm = optimizer.clipnorm or optimizer.global_clipnorm
        self.clipping = f"norm {norm}" if norm else f"value {optimizer.clipvalue}" if optimizer.clipvalue else ""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """One group with all its parameters and its rate now."""
        optimizer = self._of()
        if optimizer is None:
            return [{"params": []}]
        rate = getattr(optimizer.learning_rate, "value", optimizer.learning_rate)
        known = (
            rate if isinstance(rate, Tensor) and rate.device.type != "cpu" else float(f"{float(rate):.6g}")
        )  # in single precision
        return [{"params": [v.value for v in self._variables], "lr": known}]


def meet(session: Any) -> bool:
    """Watches the updates of Keras' optimizers; false as long as the script has not imported Keras on torch."""
    base = sys.modules.get("keras.src.optimizers.base_optimizer")
    if base is None or "keras.src.backend.torch" not in sys.modules:
        return False
    apply = base.BaseOptimizer.apply
    known: dict[int, tuple[Any, KerasOptimizer]] = {}

    def watched(self: Any, grads: Any, trainable_variables: Any = None) -> Any:
        if session.closed:
            return apply(self, grads, trainable_variables)
        variables = None if trainable_variables is None else list(trainable_variables)
        seen = known.get(id(self))
        if seen is None or seen[0]() is not self:
            session.guard("optimizer of Keras", learn, self, variables)
        made = known[id(self)][1] if id(self) in known else None
        if made is not None:
            session._before_step(made, (), {})
        result = apply(self, grads, variables)
        if made is not None:
            session._after_step(made, (), {})
        return result

    def learn(optimizer: Any, variables: list[Any] | None) -> None:
        known.pop(id(optimizer), None)
        known[id(optimizer)] = (
            weakref.ref(optimizer),
            _as_torchs(session, optimizer, variables or optimizer._trainable_variables),
        )

    session.patches.replace(base.BaseOptimizer, "apply", transparent(like(watched, apply)))
    return True


def _as_torchs(session: Any, optimizer: Any, variables: list[Any]) -> KerasOptimizer:
    """The optimizer under its own name, known to the session."""
    kind = type(type(optimizer).__name__, (KerasOptimizer,), {"__module__": "keras.optimizers"})
    made = kind(optimizer, variables)
    state = session.optimizers.state(made)
    state.clipping, state.schedule = made.clipping, made.schedule
    return made
