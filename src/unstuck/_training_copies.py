"""Copies of what a training is made of."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import nn


def copied_optimizer(optimizer: Any, memo: dict[int, Any]) -> Any:
    """A copy with all it has; `deepcopy` leaves out what the state dict of torch's optimizers doesn't hold, such as that of LBFGS."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        return copy.deepcopy(optimizer, memo)
    new = type(optimizer).__new__(type(optimizer))
    memo[id(optimizer)] = new
    memo[id(optimizer.param_groups)] = [copy.deepcopy(group, memo) for group in optimizer.param_groups]
    vars(new).update({k: copy.deepcopy(v, memo) for k, v in vars(optimizer).items() if k != "step"})
    return new


def uses(function: Any, *objects: Any) -> bool:
    """Whether a plain function holds or names one of these, and not as an argument."""
    if not inspect.isfunction(function):
        return False
    held = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    named = [function.__globals__[n] for n in function.__code__.co_names if n in function.__globals__]
    modules = [id(m) for o in objects if isinstance(o, nn.Module) for m in o.modules()]
    ids = {*modules, *map(id, objects)}
    return any(id(value) in ids for value in (*held, *named))


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a name that isn't bound yet
        return False
    return True
