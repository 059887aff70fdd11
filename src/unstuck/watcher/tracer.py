"""Sees every call of a sampled step: modules as the session tells, functions by a `TorchFunctionMode`.

While a step is sampled, every torch function the script calls comes by `Tracer.__torch_function__`. Calls whose result leads
to the parameters become **layers** (`LayerState`), joined into a graph by the autograd node of the tensor that passes
between them; outputs of the ops in `ops.MEASURED` are measured as they come, and a tensor hook measures the gradient
that arrives there. On all other steps nothing of this is installed.

A layer is told from its like by its **key**: module path, call site, function, and the layers with parameters that it
directly draws on. So `F.relu` in a loop over layers is as many layers as there are turns (depth), but a recurrent cell called
for every time step is one layer with many calls (time).

Everything that is held (autograd nodes, output tensors of losses) is let go when the backward is over.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unstuck.probes.tape import Recording
from unstuck.signals.lag import memory
from unstuck.signals.moments import describe, gradient
from unstuck.signals.units import UnitWindow, alive
from unstuck.watcher import ops
from unstuck.watcher.registry import Registry
from unstuck.watcher.trace import Call, LayerState, LossSeen, Trace
from unstuck.watcher.transparent import FILENAME, Relocation, transparent

_TORCH = str(Path(torch.__path__[0]))
_OURS = (str(Path(__file__).parent), str(Path(__file__).parents[1] / "training.py"))
_tracing, _dispatch_modes = torch._C._get_tracing_state, torch._C._len_torch_dispatch_stack
MOST_ENTERED = 4  # modules of a forward pass of which it is kept what they were given


class Tracer(TorchFunctionMode):
    """Records calls while it is on; see the module.

    Args:
        registry: Gives layers, parameters and paths their identity; lasts the whole run.
        on_error: Told of an exception in our own code; the script goes on.
    """

    def __init__(self, registry: Registry, on_error: Callable[[str, Exception], None]) -> None:
        super().__init__()
        self.registry, self.on_error = registry, on_error
        self.trace = Trace()
        self.open = False  # calls are recorded
        self.measure = True  # outputs are measured, too
        self.records = False  # calls are kept to be made again
        self._root: tuple[Any, Any] = ((), {})  # what the module called from outside was given
        self.stack: list[nn.Module] = []
        self.on = False
        self._relocation = Relocation()
        self.thread = 0  # the one it is on in: modes are per thread
        self.seen = 0  # calls that came by

    # --- on and off

    def switch_on(self, *, measure: bool = True) -> None:
        """Begins to record, with an empty trace."""
        self.trace = self._new_trace(measure)
        self.open, self.measure = True, measure
        self.stack.clear()
        if not self.on:
            self.on, self.thread = True, threading.get_ident()
            self._relocation.switch_on()
            self.__enter__()

    def restart(self, *, measure: bool) -> None:
        """Goes on with an empty trace, in the midst of whatever modules are being called."""
        self.trace = self._new_trace(measure)
        self.open, self.measure, self.seen = True, measure, 0

    def _new_trace(self, measure: bool) -> Trace:
        return Trace(recording=Recording() if measure and self.records else None)

    def switch_off(self) -> None:
        """Stops recording and takes the mode away, also from under another mode; forgets the trace."""
        self.open = False
        self.trace = Trace()
        self.stack.clear()
        if not self.on:
            return
        self.on = False
        self._relocation.switch_off()
        _take_out(self)

    # --- modules

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A module is being called."""
        if not self.stack:
            self._root = (args, kwargs)
            try:
                self.registry.saw_root(module, (*args, *kwargs.values()))
            except Exception as error:  # noqa: BLE001 - nothing of ours reaches the script
                self.on_error("root", error)
        self.stack.append(module)
        if (
            self.open
            and args
            and len(self.trace.entered) < MOST_ENTERED
            and isinstance(args[0], Tensor)
            and _trains(module)
        ):
            self.trace.entered.append((module, args[0]))

    def leave(self, module: nn.Module) -> None:
        """A module's call is over, or was left by an exception."""
        while self.stack:
            if self.stack.pop() is module:
                break

    def returned(self, output: Any) -> None:
        """A module gave this."""
        if len(self.stack) != 1:
            return
        if not self.measure:
            self.trace.root_outputs.append(output)
        elif self.trace.recording is not None and self.open:
            self.trace.recording.note(self.stack[0], *self._root, output)
            self._root = ((), {})

    # --- functions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _through(self, func, args, kwargs)

    def note(self, name: str, args: tuple[Any, ...], kwargs: Any, before: Any, out: Any) -> None:
        """Records one call that is over."""
        first = out if isinstance(out, Tensor) else _first_tensor(out)
        if first is None:
            return
        if name in ops.LOSSES:
            self._note_loss(name, args, kwargs, first)
        if not first.requires_grad:
            self._note_constant(name, args, first)
            return
        node = node_of(first)
        if node is None:
            return
        operands = _Operands(self, args, kwargs, before, name)
        if (name in ops.ALIASES and not (name == "__getitem__" and operands.data)) or (
            name == "dropout" and node in self.trace.producers
        ):
            if operands.calls and node not in self.trace.producers:
                self._produce(out, operands.calls[0])
            return
        if not operands.calls and not operands.data and not operands.unknown:
            return  # made of parameters alone: a transposed or normalised weight, a penalty
        call = self._call(name, args, kwargs, operands, first)
        self._produce(out, call)
        if name in ops.LOSSES and self.trace.losses:
            self.trace.losses[-1].result = call

    def _note_constant(self, name: str, args: tuple[Any, ...], out: Tensor) -> None:
        """A call whose result has no gradient: a comparison, or numbers drawn from outputs."""
        if name in ("__eq__", "eq") and len(args) == 2 and isinstance(args[1], Tensor) and isinstance(args[0], Tensor):
            self.trace.compared.append((args[0], args[1], out))
        elif self.trace.root_outputs and "sub" in name and len(args) == 2:
            self._note_difference(*args)
        elif self.measure:
            computed = self.trace.computed
            if any(t.requires_grad or id(t) in computed for t in _tensors(args)):
                computed[id(out)] = out

    def _note_difference(self, left: Any, right: Any) -> None:
        """An evaluated output less a target, or the other way round."""
        known = [o for o in self.trace.root_outputs if isinstance(o, Tensor)]
        if isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape:
            for output, target in ((left, right), (right, left)):
                if any(output.data_ptr() == o.data_ptr() and output.numel() == o.numel() for o in known):
                    self.trace.subtracted.append((output, target))
                    return

    def note_reach(self, function: Any, args: tuple[Tensor, ...], out: Any) -> None:
        """A recurrent layer of ours was run, which knows itself how far it reaches back."""
        call = self.trace.producers.get(node_of(out[0]))
        if call is not None and call.layer is not None:
            self.trace.recurrent.append((call.layer, partial(function.reach, *(a.detach() for a in args))))

    def _produce(self, out: Any, call: Call) -> None:
        for tensor in (out,) if isinstance(out, Tensor) else _tensors(out):
            if (node := node_of(tensor)) is not None:
                self.trace.producers[node] = call

    def _call(self, name: str, args: Any, kwargs: Any, operands: _Operands, out: Tensor) -> Call:
        trace = self.trace
        trace.used.update(operands.parameters)
        layer = self._layer(name, args, kwargs, operands)
        call = Call(layer, operands.calls, trace.order)
        call.data = operands.foreign
        if call.data and operands.calls and not operands.parameters:
            call.output = operands.activation
            call.subtracts = "sub" in name
        trace.order += 1
        for source in operands.calls:
            if source.layer is not None and source.layer is not layer:
                layer.inputs[source.layer.index] = None
        if operands.parameters and not operands.calls and operands.data:
            trace.inputs.append((layer.name, operands.data[0]))
        which, layer.calls = layer.calls, layer.calls + 1
        if not layer.out_shape:
            layer.out_shape = tuple(out.shape)
        if self.measure and name not in ops.LOSSES and layer.op in ops.MEASURED and layer.samples(which):
            self._measure(layer, which, out, args)
        return call

    def _measure(self, layer: LayerState, which: int, out: Tensor, args: Any) -> None:
        detached = out.detach()
        layer.acts.append(describe(detached, layer.settings.get("bounds")))
        if layer.op in ops.RELU_LIKE and detached.dim() > 1:
            if layer.window is None:
                layer.window = UnitWindow()
            layer.window.add(alive(detached, unit_axis=1 if _channels_first(layer, detached) else -1))
        if layer.op in ops.RECURRENT and self.stack and isinstance(self.stack[-1], nn.RNNBase) and not _packed(args):
            self.trace.recurrent.append((layer, partial(memory, self.stack[-1], args[0].detach())))
        if out.requires_grad:
            backs = layer.backs
            out.register_hook(lambda grad: _back(backs, which, grad))

    def _layer(self, name: str, args: Any, kwargs: Any, operands: _Operands) -> LayerState:
        module = self.stack[-1] if self.stack else None
        near = frozenset(operands.parameters) if operands.parameters else operands.near
        registry = self.registry
        path = "" if module is None else registry.path(module)
        if module is not None and registry.is_layer(module):
            what: tuple[Any, ...] = (path, name)
            key = (*what, operands.parameter_key or near)  # one nn.ReLU called in two places is two layers
        else:
            site = call_site()
            key = (path, site, name, operands.parameter_key or near)
        layer = registry.layers.get(key)
        if layer is None:
            layer = registry.new_layer(key, ops.op_of(name, args, kwargs))
            layer.near, layer.path = near, path
            layer.module = "" if module is None else type(module).__name__
            layer.site = call_site()
            layer.parameters = operands.parameters
            layer.settings = ops.settings_of(name, layer.op, args, kwargs)
            registry.name_layer(layer, module, name)
        return layer

    def _note_loss(self, name: str, args: Any, kwargs: Any, value: Tensor) -> None:
        kwargs = kwargs or {}
        output = args[0] if args else kwargs.get("input")
        target = args[1] if len(args) > 1 else kwargs.get("target")
        if not isinstance(output, Tensor):
            return
        settings = {k: v for k, v in kwargs.items() if isinstance(v, (int, float, str, bool))}
        weights = (kwargs.get("weight"), kwargs.get("pos_weight"), args[2] if len(args) > 2 else None)
        settings["weighted"] = any(isinstance(w, Tensor) for w in weights)
        if isinstance(target, Tensor) and target.requires_grad and not output.requires_grad:
            output, target = target, output
        call = self._producer(output)
        own_target = isinstance(target, Tensor) and target.requires_grad and self._producer(target) is not None
        seen = LossSeen(
            name, call, None, output.detach(), target.detach() if isinstance(target, Tensor) else None, settings, call_site(),
            value.detach().clone() if value.numel() == 1 else value.detach(),  # `loss /= n` comes after
            own_target,
        )  # fmt: skip
        self.trace.losses.append(seen)

    def _producer(self, tensor: Tensor) -> Call | None:
        node = node_of(tensor)
        return None if node is None else self.trace.producers.get(node)


class _Operands:
    """What a call was given: results of other calls, parameters, data."""

    __slots__ = ("activation", "calls", "data", "foreign", "near", "parameter_key", "parameters", "unknown")

    def __init__(self, tracer: Tracer, args: Any, kwargs: Any, before: Any, name: str) -> None:
        self.calls: list[Call] = []
        self.data: list[Tensor] = []
        self.foreign: list[Tensor] = []  # data that were not computed from outputs
        self.activation: Tensor | None = None
        self.parameters: list[int] = []
        self.unknown = False
        producers, registry = tracer.trace.producers, tracer.registry
        near: set[int] = set()
        first = True
        for tensor in _tensors(args if not kwargs else (args, tuple(kwargs.values()))):
            node = before if first and before is not None else node_of(tensor)
            first = False
            if not tensor.requires_grad:
                if tensor.dim() or tensor.numel() > 1:
                    self.data.append(tensor)
                    if id(tensor) not in tracer.trace.computed:
                        self.foreign.append(tensor)
            elif node is None:
                self.parameters.append(registry.parameter(tensor))
            else:
                call = producers.get(node)
                if call is not None:
                    self.calls.append(call)
                    if self.activation is None:
                        self.activation = tensor.detach()
                    layer = call.layer
                    if layer is not None:
                        near |= {layer.index} if layer.parameters else layer.near
                else:
                    derived = registry.derived(node)
                    if derived:
                        self.parameters.extend(derived)
                    else:
                        self.unknown = True
        self.near = frozenset(near)
        self.parameter_key = tuple(self.parameters)


def _through(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """Calls the function, then records the call; an own failure never reaches the script."""
    if not tracer.open or _tracing() is not None or _dispatch_modes():  # what torch traces or exports stays its own
        return func(*args, **kwargs) if kwargs else func(*args)
    tracer.seen += 1
    name = getattr(func, "__name__", "")
    if name in ops.IGNORED:
        out = func(*args, **kwargs) if kwargs else func(*args)
        if name == "__get__" and not tracer.stack and isinstance(out, Tensor) and tracer.trace.recording is not None:
            tracer.trace.recording.note(func, args, kwargs, out)  # x.T and the like
        return out
    changes = name[-1:] == "_" or (kwargs is not None and kwargs.get("inplace") is True)
    before = node_of(args[0]) if changes and args and isinstance(args[0], Tensor) else None
    out = func(*args, **kwargs) if kwargs else func(*args)
    try:
        if not tracer.stack and tracer.trace.recording is not None:
            tracer.trace.recording.note(func, args, kwargs, out)
        tracer.note(name, args, kwargs, before, out)
        if tracer.measure and hasattr(func, "reach"):
            tracer.note_reach(func, args, out)
    except Exception as error:  # noqa: BLE001
        tracer.on_error(name, error)
    return out


transparent(_through)
transparent(Tracer.__torch_function__)


def node_of(tensor: Tensor) -> Any:
    """The autograd node that made a tensor, None if it has none.

    To ask a view that was made and changed under `no_grad`, as initialisations do, is an error that the program itself may never meet.
    """
    try:
        return tensor.grad_fn
    except RuntimeError:
        return None


def _back(backs: list[tuple[int, Tensor]], which: int, grad: Tensor) -> None:
    backs.append((which, gradient(grad.detach())))


def _tensors(value: Any) -> list[Tensor]:
    """Tensors in nested tuples and lists, in order."""
    if isinstance(value, Tensor):
        return [value]
    found: list[Tensor] = []
    if isinstance(value, (tuple, list)):
        for item in value:
            if isinstance(item, Tensor):
                found.append(item)
            elif isinstance(item, (tuple, list)):
                found.extend(_tensors(item))
    return found


def _first_tensor(value: Any) -> Tensor | None:
    for tensor in _tensors(value):
        return tensor
    return None


def _trains(module: nn.Module) -> bool:
    """Whether a module has trainable parameters of its own."""
    return any(p is not None and p.requires_grad for p in module._parameters.values())


def _packed(args: Any) -> bool:
    """Whether a recurrent call was given a packed sequence: its second argument are batch sizes."""
    return isinstance(args[1], Tensor) and args[1].dim() == 1 and not args[1].is_floating_point()


def _channels_first(layer: LayerState, out: Tensor) -> bool:
    return out.dim() >= 4


def call_site() -> str:
    """The nearest caller that is neither torch nor us, as "file.py:31"."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not (name.startswith((_TORCH, *_OURS)) or name == FILENAME or name.startswith("<frozen")):
            return f"{name.rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _take_out(mode: TorchFunctionMode) -> None:
    """Takes a mode out of the stack of modes, wherever it is, the others staying in order."""
    from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode  # pyright: ignore

    above = []
    while _get_current_function_mode_stack():
        top = _pop_mode()
        if top is mode:
            break
        above.append(top)
    for other in reversed(above):
        _push_mode(other)
