"""A script's hooks on copies of its network: those that change what passes through it come along, those that only look don't.

A hook that can give nothing back, by its code, is left out. Others are made anew, with copies of what they hold on to, so that a
call changes nothing of the script's; they are left out as well once they have given nothing back.
"""

from __future__ import annotations

import copy
import dis
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from unstuck.probes.tape import walk

_MOST = 1_000_000  # numbers of a tensor, or things in a container, that are copied


class _Hook:
    """A hook until it gives nothing back."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook: Callable[..., Any] | None = hook

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = self.hook(*args, **kwargs) if self.hook is not None else None
        if given is None:
            self.hook = None
        return given


def bring_along(module: nn.Module, made: nn.Module, memo: dict[int, Any]) -> None:
    """Puts the forward hooks of a network on a copy of it that has those of torch alone.

    Args:
        module: The network.
        made: The copy.
        memo: What has been copied already, by the identity of the original.
    """
    for part, twin in zip(module.modules(), made.modules(), strict=True):
        for hooks, ours in (
            (part._forward_pre_hooks, twin._forward_pre_hooks),
            (part._forward_hooks, twin._forward_hooks),
        ):
            of_torch = dict(ours)
            ours.clear()
            for key, hook in hooks.items():  # in the order in which they are called
                if key in of_torch:
                    ours[key] = of_torch[key]
                elif _may_change(hook):
                    ours[key] = _Hook(_made_anew(hook, memo))


def _may_change(hook: Any) -> bool:
    """Whether a hook may give something back, by its code."""
    code = getattr(_function(hook), "__code__", None)
    if code is None:
        return True
    before = None
    for step in dis.get_instructions(code):
        if step.opname == "RETURN_CONST" and step.argval is not None:
            return True
        if step.opname == "RETURN_VALUE" and not (
            before is not None and before.opname == "LOAD_CONST" and before.argval is None
        ):
            return True
        before = step
    return False


def _function(hook: Any) -> Any:
    if isinstance(hook, functools.partial):
        return _function(hook.func)
    if isinstance(hook, types.MethodType):
        return hook.__func__
    return hook if isinstance(hook, types.FunctionType) else getattr(type(hook), "__call__", None)  # noqa: B004 - its code is wanted


def _made_anew(hook: Any, memo: dict[int, Any]) -> Any:
    if isinstance(hook, functools.partial):
        args, kwargs = _copied(list(hook.args), memo), _copied(hook.keywords, memo)
        return functools.partial(_made_anew(hook.func, memo), *args, **kwargs)
    if not isinstance(hook, types.FunctionType):
        return _copied(hook, memo)
    code, known = hook.__code__, hook.__globals__
    cells = tuple(types.CellType(_copied(cell.cell_contents, memo)) for cell in hook.__closure__ or ())
    names: Mapping[str, Any] = {name: _copied(known[name], memo) for name in code.co_names if name in known}
    made = types.FunctionType(code, {**known, **names}, hook.__name__, _copied(hook.__defaults__, memo), cells)
    made.__kwdefaults__ = _copied(hook.__kwdefaults__, memo)
    return made


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A copy, or the very thing where it is large or can't be copied."""
    if isinstance(value, (types.ModuleType, types.FunctionType, type)):
        return value
    large = (isinstance(value, Tensor) and value.numel() > _MOST) or (
        isinstance(value, (list, tuple, dict, set)) and len(value) > _MOST
    )
    if large and id(value) not in memo:
        return value
    for _, tensor in walk(value):
        if not tensor.is_leaf:  # torch doesn't copy what was computed
            memo[id(tensor)] = tensor.detach().clone()
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # noqa: BLE001 - it is the script's, and may be anything
        return value
