"""Freezes parts of a model and thaws them by schedule, so that nothing of what is frozen moves: neither weights nor statistics.

from unstuck.warm_start.freezing import Thaw, freeze, gradually

freeze(model, but="head")  # until .thaw("layer4") or .undo(), or as a context manager
thaw = gradually(model, ["head", "layer4", "layer3"], every=2)  # Howard and Ruder 2018
training.on_epoch.append(thaw)  # of an unstuck.Training; in a loop of one's own, thaw.at(epoch)

What is frozen takes no gradient, and none is left over, so that torch's optimizers leave it alone, with momentum and decay or without. (Not
LBFGS, which moves all that it was made for in directions from before: make a new one.) Its modules stay in evaluation mode even though
`model.train()` is called: otherwise the running statistics of a frozen batch norm drift on toward those of the new data, and its dropout
goes on dropping.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, Self

import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.warm_start._which import Chosen, Which, chosen, parameters_of, rest, several


def freeze(model: nn.Module, *which: Which, but: Which | Iterable[Which] = ()) -> Frozen:
    """Freezes parts of a model: they take no gradient, and stay in evaluation mode whatever `model.train()` says.

    A module is kept in evaluation mode if all of its parameters are frozen, with all that is in it, such as dropout. Gradients that are
    there are dropped, as an optimizer would use them. A tied parameter is frozen under all of its names.

    Args:
        model: The model.
        which: Paths of modules or names of parameters, as in `named_modules` and `named_parameters`; patterns such as "layer*" or
            "*.bias"; modules or parameters themselves. All, if none is given.
        but: What of it isn't frozen, said likewise.

    Returns:
        What thaws it again, parts of it or all. As a context manager it thaws in the end; what is frozen twice thaws in the opposite
        order.

    Raises:
        MisuseError: The model has nothing of that name.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        >>> frozen = freeze(model, but="2")
        >>> [name for name, p in model.named_parameters() if p.requires_grad]
        ['2.weight', '2.bias']
        >>> model.train()[1].training  # its running statistics stay as they are
        False
        >>> frozen.undo()
        >>> model[1].training
        True
    """  # noqa: DOC502
    found = chosen(model, which) if which else rest(model, Chosen())
    return Frozen(model, found - chosen(model, several(but)))


class Frozen:
    """What is frozen of a model, until it is thawed; made by `freeze`.

    Args:
        model: The model.
        what: Of it.
    """

    def __init__(self, model: nn.Module, what: Chosen) -> None:
        self._model = model
        self._trained: set[str] = set()
        self._kept: dict[str, _Kept] = {}
        self._choose(what)

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that would be trained if they weren't frozen by this, in the order of the model."""
        return tuple(name for name in parameters_of(self._model) if name in self._trained)

    def thaw(self, *which: Which) -> None:
        """Thaws parts: they take gradients if they did before, and are in the mode that the model is in.

        Args:
            which: As for `freeze`; all, if none is given.

        Raises:
            MisuseError: The model has nothing of that name.
        """  # noqa: DOC502
        self._choose(self._chosen - chosen(self._model, which) if which else Chosen())

    def undo(self) -> None:
        """Thaws all."""
        self.thaw()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def _choose(self, what: Chosen) -> None:
        """Makes just these frozen, of all that this may freeze."""
        self._chosen = what
        parameters = parameters_of(self._model)
        thawed = self._trained - what.parameters
        frozen = [name for name, p in parameters.items() if name in what.parameters and p.requires_grad]
        for name in thawed & parameters.keys():
            parameters[name].requires_grad_()
        for name in frozen:
            parameters[name].requires_grad_(False)
            parameters[name].grad = None
        self._trained = self._trained - thawed | set(frozen)
        self._keep(_held(self._model, what))

    def _keep(self, held: dict[str, nn.Module]) -> None:
        """Makes just these stay in evaluation mode."""
        mode = self._kept[""].asked if "" in self._kept else self._model.training
        for path in self._kept.keys() - held.keys():
            self._kept.pop(path).release(mode)
        for path, module in held.items():
            if path not in self._kept and "train" not in vars(module):
                self._kept[path] = _Kept(module, mode)


class _Kept:
    """Stands in for a module's `train`, and keeps it in evaluation mode; it is copied and pickled with the module."""

    def __init__(self, module: nn.Module, mode: bool) -> None:
        self._module, self._own = module, module.training
        self._differs = module.training != mode  # from the model: someone had put it into its own mode
        self.asked = module.training
        module.training = False
        vars(module)["train"] = self

    def __call__(self, mode: bool = True) -> nn.Module:
        """What `model.train()` calls: notes what is asked for.

        Args:
            mode: Training or evaluation.

        Returns:
            The module.
        """
        self.asked = mode
        for child in self._module.children():
            child.train(mode)
        return self._module

    def release(self, mode: bool) -> None:
        """Gives the module its own `train` back.

        Args:
            mode: That the model is in. Not what was asked for last: who evaluates may put modes back without asking.
        """
        del vars(self._module)["train"]
        self._module.training = self._own if self._differs else mode


class Thaw:
    """Freezes a model but for what is thawed at first, and thaws more when an epoch has come.

    As one of `on_epoch` of an `unstuck.Training` it counts the epochs that are over. In a loop of one's own `at(epoch)` is called before
    the epoch; it can go anywhere, so that a training can be resumed. All parameters should be in the optimizer from the start: those that
    are frozen have no gradient, so it leaves them alone, keeps no state for them, and begins with them when they thaw.

    Args:
        model: The model.
        stages: What is thawed by the epoch, counted from 0, before which it is: {0: ["head"], 2: ["layer4"]}. As for `freeze`. What is
            named nowhere stays frozen.

    Attributes:
        epoch: The one that comes next.
        frozen: What is frozen now.

    Raises:
        MisuseError: The model has nothing of that name, or nothing is thawed at the start.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))
        >>> thaw = Thaw(model, {0: ["2"], 5: ["1"]})
        >>> thaw.frozen.names
        ('0.weight', '0.bias', '1.weight', '1.bias')
        >>> thaw.at(5)
        ('1.weight', '1.bias')
    """

    def __init__(self, model: nn.Module, stages: Mapping[int, Which | Iterable[Which]]) -> None:
        if not all(isinstance(epoch, Integral) and epoch >= 0 for epoch in stages):
            raise MisuseError(f"stages begin at {list(stages)}, but must at epochs counted from 0")
        if 0 not in stages:
            raise MisuseError(
                "nothing is thawed at epoch 0, so nothing could be trained: name there what comes first, such as the head"
            )
        self._model = model
        self._stages = {epoch: chosen(model, several(which)) for epoch, which in stages.items()}
        self.epoch = 0
        self.frozen = Frozen(model, self._choice(0))

    def at(self, epoch: int, optimizer: torch.optim.Optimizer | None = None) -> tuple[str, ...]:
        """Makes the model as it is to be in an epoch.

        Args:
            epoch: Counted from 0.
            optimizer: Is asked whether it has what is thawed.

        Returns:
            Names of parameters that were thawed.

        Raises:
            MisuseError: The optimizer hasn't got them; nothing is changed then.
        """  # noqa: DOC502
        choice = self._choice(epoch)
        thawed = tuple(name for name in self.frozen.names if name not in choice.parameters)
        if optimizer is not None:
            self._check(thawed, optimizer)
        self.frozen._choose(choice)
        self.epoch = epoch
        return thawed

    def __call__(self, training: Any, epoch: Any) -> None:
        """What an `unstuck.Training` calls when an epoch is over: the next begins as it is to be.

        Args:
            training: Its optimizer has to have what is thawed.
            epoch: How the epoch went; it doesn't matter.
        """
        del epoch
        self.at(self.epoch + 1, training.optimizer)

    def undo(self) -> None:
        """Thaws all."""
        self.frozen.undo()

    def _choice(self, epoch: int) -> Chosen:
        """What is frozen in an epoch."""
        thawed = Chosen()
        for first, stage in self._stages.items():
            thawed = thawed | stage if first <= epoch else thawed
        return rest(self._model, thawed)

    def _check(self, names: Sequence[str], optimizer: torch.optim.Optimizer) -> None:
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        parameters = parameters_of(self._model)
        missing = [name for name in names if id(parameters[name]) not in own]
        if missing:
            raise MisuseError(
                f"{missing[0]} is to be thawed, but isn't in the optimizer and so wouldn't be trained ({len(missing)} of {len(names)} "
                "parameters): make it of all of model.parameters(), frozen ones too, or add them by optimizer.add_param_group"
            )


def gradually(model: nn.Module, stages: Sequence[Which | Iterable[Which]], *, every: int = 1) -> Thaw:
    """Thaws one stage after the other, from the top of the network: what lies at the end is the least general.

    Args:
        model: The model.
        stages: The first is trained from the start: ["head", "layer4", "layer3"]. As for `freeze`. What isn't named stays frozen.
        every: Epochs between stages.

    Returns:
        The schedule.

    Raises:
        MisuseError: The model has nothing of that name, or there are no stages.

    Source:
        Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.3.
    """
    if not isinstance(every, Integral) or every < 1:
        raise MisuseError(f"every is {every!r}, but must be a number of epochs from 1 on")
    return Thaw(model, {i * every: which for i, which in enumerate(stages)})


def _held(model: nn.Module, what: Chosen) -> dict[str, nn.Module]:
    """Modules that are kept in evaluation mode: those of which something is frozen and nothing trained, and all in them."""
    parameters = parameters_of(model)
    frozen = {id(parameters[name]) for name in what.parameters & parameters.keys()}
    held: dict[str, nn.Module] = {}
    for path, module in model.named_modules():  # what is around comes first
        own = list(module.parameters())
        ours = path in what.modules or any(id(p) in frozen for p in own)
        within = path.rpartition(".")[0] in held and (ours or not any(True for _ in module.buffers()))
        if within or (ours and not any(p.requires_grad for p in own)):
            held[path] = module
    return held
