"""Optimizers by name, under one set of words; torch's own where it has them.

| word | meaning |
|---|---|
| `learning_rate` | length of steps; always to be given |
| `momentum` | share that is kept of the running sum or mean of gradients; beta1 of Adam and its kin |
| `beta2` | share that is kept of the running mean of squared gradients |
| `eps` | is added to the root of that mean |
| `weight_decay` | share of the weights that is added to the gradient, or by which they shrink |
| `decoupled` | whether they shrink beside the gradient (AdamW, LAMB always; Adam, RMSprop, LARS never) |

A file of this room that has an optimizer says so in its `KINDS`; nothing else knows of it.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from unstuck import optim
from unstuck.errors import MisuseError, NotFoundError
from unstuck.optim._many import check_range


@dataclass(frozen=True)
class Kind:
    """An optimizer of the family.

    Attributes:
        name: By which it is asked for.
        make: Takes parameters and, by keyword, settings in the words of the family; the first line of its docstring says what it is.
            Where it takes `model`, it is given the model, if there is one.
        kept: How many numbers it keeps for each weight from step to step, beside weight and gradient, as `make` has it by default.
    """

    name: str
    make: Callable[..., Optimizer]
    kept: int

    @property
    def says(self) -> str:
        """What it is, in a line."""
        return (inspect.getdoc(self.make) or "").splitlines()[0]

    @property
    def settings(self) -> dict[str, Any]:
        """Defaults of its settings, without those that must be given or come from the model."""
        parameters = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "model"}


def optimizer(name: str, model: nn.Module | Iterable[Any], *, learning_rate: float, **settings: Any) -> Optimizer:
    """An optimizer by its name.

    Args:
        name: One of `kinds()`.
        model: Whose parameters are trained; or parameters, or groups of them with settings in torch's own words.
        learning_rate: Length of steps.
        settings: In the words of the family; what there is depends on the optimizer (`kinds()[name].settings`).

    Returns:
        It.

    Raises:
        NotFoundError: There is none of this name.
        MisuseError: It has no such setting, or one is out of its range.

    Example:
        >>> made = optimizer("adamw", nn.Linear(3, 1), learning_rate=0.001, weight_decay=0.01, beta2=0.99)
        >>> made.param_groups[0]["betas"]
        (0.9, 0.99)
        >>> optimizer("adm", nn.Linear(3, 1), learning_rate=0.001)
        Traceback (most recent call last):
            ...
        unstuck.errors.NotFoundError: no optimizer 'adm'; did you mean 'adam'?
    """  # noqa: DOC502
    known = kinds()
    if name not in known:
        raise NotFoundError(f"no optimizer {name!r}; {_near(name, known)}")
    check_range("learning_rate", learning_rate, 0, what="a learning rate")
    kind = known[name]
    parameters = inspect.signature(kind.make).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        _check(kind, settings)
    if not isinstance(model, nn.Module):
        return kind.make(model, learning_rate=learning_rate, **settings)
    given = {"model": model} if "model" in parameters else {}
    return kind.make(model.parameters(), learning_rate=learning_rate, **given, **settings)


@functools.cache
def kinds() -> dict[str, Kind]:
    """All optimizers by name, in alphabetical order.

    Returns:
        What each is, keeps, and can be told.
    """
    names = [module.name for module in pkgutil.iter_modules(optim.__path__) if module.name[0] != "_"]
    modules = [importlib.import_module(f"{optim.__name__}.{name}") for name in names]
    found = [kind for module in modules for kind in getattr(module, "KINDS", ())]
    return {kind.name: kind for kind in sorted(found, key=lambda kind: kind.name)}


def _check(kind: Kind, settings: Iterable[str]) -> None:
    """Sees to it that a kind has these settings.

    Raises:
        MisuseError: It doesn't.
    """
    for setting in settings:
        if setting not in kind.settings:
            raise MisuseError(
                f"{kind.name} has no setting {setting!r}; {_near(setting, ['learning_rate', *kind.settings])}"
            )


def _near(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), list(names), n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"


def _sgd(params: Any, *, learning_rate: float, weight_decay: float = 0.0) -> Optimizer:
    """A step along each gradient."""
    return torch.optim.SGD(params, learning_rate, weight_decay=weight_decay)


def _rmsprop(
    params: Any,
    *,
    learning_rate: float,
    beta2: float = 0.99,
    momentum: float = 0.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    centered: bool = False,
) -> Optimizer:
    """The gradient over the root of its mean square (Tieleman & Hinton 2012)."""
    return torch.optim.RMSprop(
        params, learning_rate, beta2, eps, weight_decay=weight_decay, momentum=momentum, centered=centered
    )


def _adam(
    params: Any,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> Optimizer:
    """The mean gradient over the root of the mean square (Kingma & Ba 2015); decay goes through both."""
    betas = (momentum, beta2)
    return torch.optim.Adam(params, learning_rate, betas, eps, weight_decay=weight_decay, amsgrad=amsgrad)


def _adamw(
    params: Any,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    betas = (momentum, beta2)
    return torch.optim.AdamW(params, learning_rate, betas, eps, weight_decay=weight_decay, amsgrad=amsgrad)


def _nadam(
    params: Any,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> Optimizer:
    """Adam with Nesterov's momentum (Dozat 2016)."""
    betas = (momentum, beta2)
    return torch.optim.NAdam(
        params, learning_rate, betas, eps, weight_decay=weight_decay, decoupled_weight_decay=decoupled
    )


KINDS = (
    Kind("sgd", _sgd, kept=0),
    Kind("rmsprop", _rmsprop, kept=1),
    Kind("adam", _adam, kept=2),
    Kind("adamw", _adamw, kept=2),
    Kind("nadam", _nadam, kept=2),
)
