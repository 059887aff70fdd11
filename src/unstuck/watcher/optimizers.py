"""What is known of optimizers: torch's, other people's, and updates written by hand."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unstuck.evidence import Optimizer
from unstuck.watcher.patches import Patches, like
from unstuck.watcher.registry import Registry
from unstuck.watcher.transparent import transparent

_PROBE = 64  # numbers of a parameter that are compared to see whether it changed


class OptimizerState:
    """One optimizer while it is watched."""

    def __init__(self, index: int, optimizer: Any) -> None:
        self.index = index
        self.ref = weakref.ref(optimizer)
        self.kind, self.module = type(optimizer).__name__, type(optimizer).__module__
        self.settings = {
            k: v for k, v in optimizer.defaults.items() if isinstance(v, (int, float, bool, str, tuple, list))
        }
        self.settings.update({k: v for k, v in optimizer.param_groups[0].items() if k in self.settings})
        self.groups = len(optimizer.param_groups)
        self.steps = 0
        self.closure = False
        self.schedule = ""
        self.clipping = ""
        self.backwards: list[int] = []
        self.first_rate = self.rate()
        self.identity = tuple(id(p) for p in self.tensors())  # compared while both live, or lived
        self.num_parameters = sum(p.numel() for group in optimizer.param_groups for p in group["params"])

    def rate(self, group: int = 0) -> float:
        """The learning rate of a group now; NaN when it has none or lies on an accelerator."""
        optimizer = self.ref()
        if optimizer is None or group >= len(optimizer.param_groups):
            return math.nan
        rate = optimizer.param_groups[group].get("lr", math.nan)
        if isinstance(rate, Tensor):
            return float(rate) if rate.device.type == "cpu" else math.nan
        return float(rate)

    def holds_what(self, other: OptimizerState) -> bool:
        """Whether it holds the very parameters of another one."""
        return bool(self.identity) and self.identity == other.identity

    def tensors(self) -> list[Tensor]:
        """All parameters it holds."""
        optimizer = self.ref()
        return [] if optimizer is None else [p for group in optimizer.param_groups for p in group["params"]]


class OptimizerBook:
    """Keeps what is learned of optimizers, which one leads, and finds updates made by hand."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.states: list[OptimizerState] = []
        self.lead: OptimizerState | None = None
        self.by_hand = self._by_value = False
        self.hand_rate = math.nan
        self.hand_steps = 0
        self.hand_backwards: list[int] = []
        self.cleared = False  # gradients were seen to be cleared between steps
        self.looked = False  # it was looked for
        self.scaler: Any = None
        self._scaled: tuple[weakref.ref[Tensor], Tensor] | None = None
        self._steps_since_lead: dict[int, int] = {}
        self.beside_lead = 0  # updates by other optimizers than the lead
        self.clipped_norm: Tensor | None = None
        self._clipping = ""
        self._before: list[tuple[weakref.ref[Tensor], int, Tensor | None]] = []
        self._features: dict[str, None] = {}

    @property
    def lead_known(self) -> bool:
        """Whether an optimizer was seen to step."""
        return self.lead is not None

    def attach(self, patches: Patches, guard: Callable[..., None], features: dict[str, None]) -> None:
        """Watches clipping, loss scaling and schedules."""
        self._features = features
        from torch.nn import utils
        from torch.nn.utils import clip_grad
        from torch.optim import lr_scheduler

        clip_norm, clip_value = clip_grad.clip_grad_norm_, clip_grad.clip_grad_value_
        scale = torch.amp.GradScaler.scale
        book = self

        def clip_grad_norm_(*args: Any, **kwargs: Any) -> Any:
            norm = clip_norm(*args, **kwargs)
            guard("clip", book._clipped, norm, kwargs.get("max_norm", args[1] if len(args) > 1 else None))
            return norm

        def clip_grad_value_(*args: Any, **kwargs: Any) -> Any:
            limit = kwargs.get("clip_value", args[1] if len(args) > 1 else None)
            guard("clip", book._clip_noted, f"value {limit}")
            return clip_value(*args, **kwargs)

        def scaled(self: Any, outputs: Any) -> Any:
            result = scale(self, outputs)
            guard("scaler", book._note_scale, self, outputs, result)
            return result

        new_norm, new_value = (
            transparent(like(clip_grad_norm_, clip_norm)),
            transparent(like(clip_grad_value_, clip_value)),
        )
        for owner in (utils, clip_grad):
            patches.replace(owner, "clip_grad_norm_", new_norm)
            patches.replace(owner, "clip_grad_value_", new_value)
        patches.replace(torch.amp.GradScaler, "scale", transparent(like(scaled, scale)))
        for name in ("LRScheduler", "ReduceLROnPlateau"):
            self._watch_schedule(getattr(lr_scheduler, name), patches, guard)

    def _watch_schedule(self, kind: Any, patches: Patches, guard: Callable[..., None]) -> None:
        init, book = kind.__init__, self

        def scheduled(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            init(self, optimizer, *args, **kwargs)
            guard("schedule", book._scheduled, optimizer, type(self).__name__)

        if "__init__" in kind.__dict__:
            patches.replace(kind, "__init__", transparent(like(scheduled, init)))

    def know_schedule(self, schedule: Any) -> None:
        """Learns of a schedule that was made before anybody looked."""
        self._scheduled(schedule.optimizer, type(schedule).__name__)

    def _scheduled(self, optimizer: Any, name: str) -> None:
        self.state(optimizer).schedule = name

    def _clipped(self, norm: Any, limit: Any) -> None:
        if not isinstance(limit, float) or math.isfinite(limit):  # with no limit it only asks for the norm
            self._clip_noted(f"norm {limit}")
        self.clipped_norm = norm.detach() if isinstance(norm, Tensor) and norm.layout == torch.strided else None

    def _clip_noted(self, words: str) -> None:
        self._clipping = words

    def _note_scale(self, scaler: Any, outputs: Any, result: Any) -> None:
        if scaler.is_enabled() and isinstance(result, Tensor) and isinstance(outputs, Tensor):
            self._scaled = (weakref.ref(result), outputs.detach())
            self._features.setdefault("GradScaler")

    @property
    def scales(self) -> bool:
        """Whether the script scales its loss."""
        return self._scaled is not None

    def unscaled(self, root: Tensor) -> Tensor:
        """The loss itself, where the script scales it for mixed precision."""
        return self._scaled[1] if self._scaled is not None and self._scaled[0]() is root else root

    # --- torch's optimizers

    def state(self, optimizer: Any) -> OptimizerState:
        """What is known of an optimizer; begins to know it."""
        for state in self.states:
            if state.ref() is optimizer:
                return state
        state = OptimizerState(len(self.states), optimizer)
        gone = next((s for s in self.states if s.ref() is None and s.steps == 0), None)
        if gone is not None:
            state.index = gone.index
            self.states[gone.index] = state
        else:
            self.states.append(state)
        return state

    def stepped(self, state: OptimizerState, backwards: int) -> bool:
        """Notes an update; True when another optimizer took the lead."""
        state.steps += 1
        if len(state.backwards) < 1000:
            state.backwards.append(backwards)
        if self._clipping:
            state.clipping, self._clipping = self._clipping, ""
        self.clipped_norm = None
        if state is self.lead:
            self._steps_since_lead.clear()
            return False
        self.beside_lead += self.lead is not None
        since = self._steps_since_lead.get(state.index, 0) + 1
        self._steps_since_lead[state.index] = since
        if self.lead is None or since >= 2:
            self.lead = state
            self._steps_since_lead.clear()
            return True
        return False

    def rate(self) -> float:
        """The learning rate of the lead's first group, or of updates made by hand."""
        return self.lead.rate() if self.lead is not None else self.hand_rate

    def other_rates(self) -> dict[str, float]:
        """Rates by "optimizer.group", where there is more than the main one."""
        if len(self.states) < 2 and (self.lead is None or self.lead.groups < 2):
            return {}
        return {f"{s.index}.{g}": s.rate(g) for s in self.states for g in range(min(s.groups, 8))}

    # --- by hand

    def remember(self, leaves: list[Tensor], *, probe: bool) -> None:
        """Keeps what tells later whether these parameters changed: their versions, and a few of their numbers."""
        probe = probe or self._by_value
        self._before = [
            (weakref.ref(p), p._version, _few(p) if probe and i < 4 else None) for i, p in enumerate(leaves)
        ]

    def changed_by_hand(self) -> bool:
        """Whether a remembered parameter changed, or was replaced by a new tensor; all were, where none is left to remember."""
        if not self._before:
            return self.by_hand
        for ref, version, few in self._before:
            parameter = ref()
            if parameter is None or parameter._version != version:
                return True
            if few is not None and parameter.device.type == "cpu" and not torch.equal(few, _few(parameter)):
                self._by_value = True  # through `.data`, which leaves the version as it was
                return True
        return False

    def updated_by_hand(self, backwards: int) -> None:
        """Notes an update made by hand."""
        self.by_hand = True
        self.hand_steps += 1
        if len(self.hand_backwards) < 1000:
            self.hand_backwards.append(backwards)
        if self._clipping:
            self.hand_clipping, self._clipping = self._clipping, ""
        self.clipped_norm = None

    hand_clipping = ""

    # --- facts

    def facts(self) -> list[Optimizer]:
        """All optimizers, the lead first."""
        found = [self._fact(s) for s in self._listed()]
        if self.by_hand and not any(s.steps for s in self.states):
            settings = {} if math.isnan(self.hand_rate) else {"lr": self.hand_rate}
            found.insert(0, Optimizer(
                "hand-written", "", settings, self.hand_steps, 1,
                sum(math.prod(s.shape) for s in self.registry.parameters if s.used),
                backwards_per_step=_median(self.hand_backwards), cleared=self.cleared or not self.looked, clipping=self.hand_clipping,
            ))  # fmt: skip
        return found

    def order(self) -> dict[int, int]:
        """Where each state stands in `facts`."""
        return {s.index: i for i, s in enumerate(self._listed())}

    def _listed(self) -> list[OptimizerState]:
        """The states to tell of, the lead first; not those that only wrap another one, as Accelerate's and Fabric's do."""
        stepped = sorted((s for s in self.states if s.steps), key=lambda s: s is not self.lead)
        return stepped + [s for s in self.states if not s.steps and not any(s.holds_what(other) for other in stepped)]

    def _fact(self, state: OptimizerState) -> Optimizer:
        rate = state.rate()
        wrappers = (
            s.schedule for s in self.states if s is not state and s.schedule and not s.steps and s.holds_what(state)
        )
        schedule = (
            state.schedule
            or next(wrappers, "")
            or ("by hand" if not math.isnan(rate) and rate != state.first_rate else "")
        )
        return Optimizer(
            state.kind, state.module, {k: list(v) if isinstance(v, tuple) else v for k, v in state.settings.items()}, state.steps,
            state.groups, state.num_parameters, state.closure, _median(state.backwards), schedule,
            self.cleared or not self.looked, state.clipping,
        )  # fmt: skip


def _few(parameter: Tensor) -> Tensor:
    local = getattr(parameter, "_local_tensor", parameter).detach()
    if local.untyped_storage().size() == 0:  # FSDP has freed it
        return local.new_zeros(0)
    flat = local.reshape(-1)
    return flat[:: max(1, flat.numel() // _PROBE)][:_PROBE].clone()


def _median(values: list[int]) -> float:
    return float(sorted(values)[len(values) // 2]) if values else 1.0
