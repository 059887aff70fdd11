"""What stands in place of torch's functions while a training is watched, and tells the session what they are called for.

Backward and the step of an optimizer keep the session's clock; calls of modules tell the tracer what happens in a forward pass;
around the rest the session steps aside. All that is replaced is on the session's `patches`, which puts it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sys import _getframe
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from unstuck.watcher.keras import is_sketch
from unstuck.watcher.patches import like
from unstuck.watcher.transparent import transparent

_tracing = torch._C._get_tracing_state


def replace(session: Any) -> None:
    """Replaces what must be replaced in torch."""
    patches = session.patches
    patches.replace(torch.Tensor, "backward", _watched_backward(session, torch.Tensor.backward))
    patches.replace(torch.autograd, "backward", _watched_backward(session, torch.autograd.backward))
    patches.replace(torch.autograd, "grad", _watched_grad(session, torch.autograd.grad))
    patches.hook(register_optimizer_step_pre_hook(session._before_step))
    patches.hook(register_optimizer_step_post_hook(session._after_step))
    patches.replace(nn.Module, "__call__", _watched_call(session, nn.Module.__call__))
    patches.replace(torch, "set_anomaly_enabled", _watched_anomaly(session, torch.set_anomaly_enabled))
    patches.replace(torch, "compile", _watched_compile(session, torch.compile))
    for owner, name in ((torch.jit, "trace"), (torch.jit, "trace_module"), (torch.export, "export")):
        patches.replace(owner, name, _unwatched(session, getattr(owner, name)))


def _watched_backward(session: Any, backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward that tells the session when it begins and is over."""

    def watched(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        if session._in_backward or session.closed:
            return backward(tensors, *args, **kwargs)
        caller = _getframe(1)
        if not session.stretch.on or not session.stretch.backward(tensors, caller):
            root = tensors if isinstance(tensors, Tensor) else next(iter(tensors), None)
            session.guard("before backward", session._backward_begins, root, caller)
        session._in_backward = True
        try:
            return backward(tensors, *args, **kwargs)
        finally:
            session._in_backward = False
            if session.sample is None and session.optimizers.lead is not None:
                session._backwards += 1
            else:
                session.guard("after backward", session._backward_over)

    return transparent(like(watched, backward))


def _watched_grad(session: Any, grad: Callable[..., Any]) -> Callable[..., Any]:
    """An `autograd.grad` that counts as a backward where it asks for the gradients of parameters, to train by them."""

    def watched(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        wanted = [] if session._in_backward or session.closed else _trained_by(outputs, inputs, args, kwargs)
        if not wanted:
            return grad(outputs, inputs, *args, **kwargs)
        root = outputs if isinstance(outputs, Tensor) else outputs[0]
        session.guard("before backward", session._backward_begins, root, _getframe(1))
        session._in_backward = True
        try:
            found = grad(outputs, inputs, *args, **kwargs)
        finally:
            session._in_backward = False
        session.guard("after backward", session._gradients_given, wanted, found)
        return found

    return transparent(like(watched, grad))


def _trained_by(outputs: Any, inputs: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors an `autograd.grad` trains: it goes from one loss to parameters and is not itself differentiated."""
    create_graph = kwargs.get("create_graph", args[2] if len(args) > 2 else False)
    roots = [outputs] if isinstance(outputs, Tensor) else list(outputs) if isinstance(outputs, (list, tuple)) else []
    leaves = [inputs] if isinstance(inputs, Tensor) else list(inputs) if isinstance(inputs, (list, tuple)) else []
    if create_graph or len(roots) != 1 or not isinstance(roots[0], Tensor) or roots[0].numel() != 1:
        return []
    if not all(isinstance(t, Tensor) and t.is_leaf and t.requires_grad for t in leaves):
        return []
    return leaves if len(leaves) > 1 or all(isinstance(t, nn.Parameter) for t in leaves) else []


def _watched_call(session: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """A module call that tells the tracer, where it is on, and finds evaluation.

    It replaces `nn.Module.__call__` rather than being a global hook, as hooks cost more, show in tracebacks, and
    change what torch.compile sees.
    """
    tracer, quiet = session.tracer, session._quiet
    compiling, with_grad = torch.compiler.is_compiling, torch.is_grad_enabled

    def watched(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if (quiet and with_grad()) or compiling() or _tracing() is not None:
            return call(self, *args, **kwargs)
        if is_sketch(args):
            return call(self, *args, **kwargs)
        if not tracer.stack and not session.closed:
            session.guard("module", session._called_from_outside, self)
        if not tracer.on or tracer.thread != get_ident():
            return call(self, *args, **kwargs)
        tracer.enter(self, args, kwargs)
        try:
            output = call(self, *args, **kwargs)
            tracer.returned(output)
            return output
        finally:
            tracer.leave(self)

    return transparent(like(watched, call))


def _watched_compile(session: Any, compile: Callable[..., Any]) -> Callable[..., Any]:
    """A `torch.compile` that tells the session; sampled steps are then run without the compiler."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        compiled = compile(*args, **kwargs)
        session.features.setdefault("torch.compile")
        if session.tracer.on:
            session.guard("compile", session._run_eagerly)
        return compiled

    return transparent(like(watched, compile))


def _watched_anomaly(session: Any, set_enabled: Callable[..., Any]) -> Callable[..., Any]:
    """Steps aside while torch looks for anomalies itself, as it prints the stack of every call."""
    ours, theirs = nn.Module.__call__, session.patches.original(nn.Module, "__call__")

    def watched(enabled: bool, *args: Any, **kwargs: Any) -> Any:
        set_enabled(enabled, *args, **kwargs)
        if enabled:
            session.guard("anomaly", session._switch_off)
        if nn.Module.__call__ in (ours, theirs):
            nn.Module.__call__ = theirs if enabled else ours  # pyright: ignore[reportAttributeAccessIssue]

    return transparent(like(watched, set_enabled))


def _unwatched(session: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls the model to read its code, while which the tracer must not be there."""

    def outside(*args: Any, **kwargs: Any) -> Any:
        if not session.tracer.on:
            return function(*args, **kwargs)
        sample, session.sample = session.sample, None
        session.guard("trace", session._stop_tracing)
        try:
            return function(*args, **kwargs)
        finally:
            if sample is not None:
                session.guard("trace", session._begin_sample, sample.step)

    return transparent(like(outside, function))
