"""Runs a script with another diagnostic tool attached to its training, and writes what the tool says. For `peers.py`.

The tool is attached to the optimizer that is used first and to the module that holds its parameters, just before that
module's first forward with gradients. It gets the loss between backward and step, and is asked for its findings when
the script has ended.

    python benchmarks/attached.py TOOL SCRIPT RESULT FOLDER
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from measure import write_json
from tools import Gradsnitch, Ormas, Tool, Torchmortem


class Said(NamedTuple):
    """A finding: its name among the tool's (a key of `ACCEPTS`), how severe in our words, and its sentence."""

    name: str
    severity: str
    says: str


class GradsnitchPeer(Gradsnitch):
    """What `report` returns."""

    def said(self) -> list[Said]:
        return [Said(f.name, f.severity, f.evidence) for f in self._gradsnitch.lint(self._monitor.df())]


class TorchmortemPeer(Torchmortem):
    """The report's findings, by their titles without the layer's name at the end."""

    def said(self) -> list[Said]:
        report = self._autopsy.get_report()
        assert report is not None  # there is one once it is closed
        severity = {"CRITICAL": "error", "WARNING": "warning", "INFO": "note"}
        return [Said(f.title.split(" in ")[0], severity[f.severity.name], f.summary) for f in report.findings]


class OrmasPeer(Ormas):
    """The record's events of severity warning or more, but for silent channels unless they are the whole layer.

    Those the report itself doesn't count as a problem: a run with nothing else is "Healthy".
    """

    def attach(self, model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
        super().attach(model, optimizer, folder)
        self._diary = folder / "ormas_run" / "diary.jsonl"

    def said(self) -> list[Said]:
        return [self._said(json.loads(line)) for line in self._diary.read_text().splitlines()]

    @staticmethod
    def _said(event: dict[str, Any]) -> Said:
        name = event["event"]
        severity = {"critical": "error", "proof": "error", "warning": "warning"}.get(event.get("severity", ""), "note")
        stuck = sum(event.get(key, 0) for key in ("n_certified", "n_flat", "n_decayed"))
        if name == "channels" and not stuck and event["level"] != "all":
            severity = "note"
        says = ", ".join(f"{key} {event[key]}" for key in ("step", "layer", "level", "value") if key in event)
        return Said(f"alarm: {event['diagnosis']}" if name == "alarm" else name, severity, says)


class Tape(TorchFunctionMode):
    """Records what is done to a module's output until backward, so that the loss is a function of the output again."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self._outputs = tree_leaves(outputs)
        self._calls: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self.ended = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.ended |= func is Tensor.backward
        if not self.ended and any(t.requires_grad for t in _tensors(result)):
            self._calls.append((func, args, kwargs or {}, result))
        return result

    def loss(self, root: Tensor) -> tuple[Callable[..., Any] | None, Any]:
        """What computes the loss `root` as `loss_fn(outputs, targets)`, and the targets.

        Cross-entropy of the very output is given as the module, which torchtest2 knows. Any other loss takes no
        targets: the recorded calls are repeated, with all that doesn't depend on parameters as it was. Where that
        doesn't give the loss again, as when it takes derivatives by the input, there is no loss function.
        """
        needed, calls = {id(root)}, []
        for call in reversed(self._calls):
            if any(id(t) in needed for t in _tensors(call[3])):
                needed |= {id(t) for t in _tensors(call[1:3])}
                calls.insert(0, call)
        match calls:
            case [(F.cross_entropy, (output, targets), options, _)] if output is self._outputs[0]:
                return nn.CrossEntropyLoss(**options), targets
        try:
            same = torch.allclose(self._repeat(calls, root, self._outputs), root, rtol=1e-3, equal_nan=True)
        except (RuntimeError, LookupError):
            same = False
        return functools.partial(self._repeat, calls, root) if same else None, None

    def _repeat(self, calls: list[Any], root: Tensor, outputs: Any) -> Tensor:
        now = dict(zip(map(id, self._outputs), tree_leaves(outputs), strict=True))

        def current(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if id(leaf) in now:
                return now[id(leaf)]
            return leaf.detach() if leaf.grad_fn else leaf

        for func, args, kwargs, result in calls:
            args, kwargs = tree_map(current, (args, kwargs))
            now.update(zip(map(id, tree_leaves(result)), tree_leaves(func(*args, **kwargs)), strict=True))
        return now[id(root)]


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Done(Exception):  # noqa: N818
    """The tool has seen all it looks at; the rest of the training is nothing to it."""


class Torchtest2Peer(Tool):
    """`check_model(model, inputs, targets, loss_fn=..., optimizer=...)` on the first batch, before the first step."""

    def __init__(self) -> None:
        import torchtest2

        self._check_model = torchtest2.check_model
        self._tape: Tape | None = None

    def attach(self, model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
        self._model, self._optimizer = model, optimizer
        self._hook = model.register_forward_hook(self._called, with_kwargs=True)

    def _called(self, model: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        if torch.is_grad_enabled() and (self._tape is None or self._tape.ended):
            if self._tape is not None:
                self._tape.__exit__(None, None, None)
            self._inputs = kwargs if not args else args[0] if len(args) == 1 else args
            self._tape = Tape(outputs)
            self._tape.__enter__()

    def after_backward(self, step: int, loss: Tensor) -> None:
        self._hook.remove()
        if self._tape is None:
            raise LookupError("the module is never called as a whole, so it has no batch")
        self._tape.__exit__(None, None, None)
        loss_fn, targets = self._tape.loss(loss)
        batch_dim = int(any(isinstance(m, nn.RNNBase) and not m.batch_first for m in self._model.modules()))
        self._report = self._check_model(
            self._model, self._inputs, targets, loss_fn=loss_fn, optimizer=self._optimizer, batch_dim=batch_dim
        )
        if self._report["forward"] in self._report.failures:
            raise LookupError(self._report["forward"].message)
        raise Done

    def said(self) -> list[Said]:
        failed = [Said(f"{r.name} FAIL", "error", r.message) for r in self._report.failures]
        return failed + [Said(f"{r.name} WARN", "warning", r.message) for r in self._report.warnings]


PEERS: dict[str, Callable[[], Any]] = {
    "torchtest2": Torchtest2Peer,
    "torchmortem": TorchmortemPeer,
    "gradsnitch": GradsnitchPeer,
    "ormas-monitor": OrmasPeer,
}


class Attachment:
    """Attaches a tool to the training of this process and writes what it says to a file, once."""

    def __init__(self, tool: Any, to: Path, folder: Path) -> None:
        self._tool, self._to, self._folder = tool, to, folder
        self._optimizers: list[Optimizer] = []
        self._parameters: set[int] = set()
        self._loss: Tensor | None = None
        self._step, self._fed, self._busy = 0, False, False

    def start(self) -> None:
        """Patch torch: optimizers as they are made, modules as they are called, backward, and steps."""
        make, call, backward = Optimizer.__init__, nn.Module.__call__, torch.autograd.backward

        def made(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            make(optimizer, *args, **kwargs)
            self._optimizers.append(optimizer)

        def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not self._parameters and torch.is_grad_enabled():
                shared = [(len(_held(optimizer) & _held(module)), optimizer) for optimizer in self._optimizers]
                most, optimizer = max(shared, key=lambda pair: pair[0], default=(0, None))
                if most and optimizer is not None:
                    self._attach(optimizer, module)
            return call(module, *args, **kwargs)

        def gone_back(tensors: Any, *args: Any, **kwargs: Any) -> None:
            backward(tensors, *args, **kwargs)
            self._loss = tensors if isinstance(tensors, Tensor) else tensors[0]

        setattr(Optimizer, "__init__", made)  # noqa: B010  # a type checker knows no patches
        nn.Module.__call__, torch.autograd.backward = called, gone_back
        register_optimizer_step_pre_hook(self._before_step)
        register_optimizer_step_post_hook(self._after_step)

    def end(self, why: str | None = None) -> None:
        """Write the findings, or `why` the tool isn't applicable, and leave the process."""
        said = []
        if not self._step:
            why = why or ("no backward and step" if self._parameters else "no module trained by a torch optimizer")
        else:
            try:
                self._tool.close()
                said = sorted(self._tool.said(), key=lambda one: one.severity != "error")
            except Exception as error:  # noqa: BLE001  # a tool that fails is a result
                why = why or f"it raised {error!r}"
        write_json(self._to, {"why_not": why, "said": [] if why else said})
        os._exit(0)

    def _attach(self, optimizer: Optimizer, *called: nn.Module) -> None:
        self._parameters = _held(optimizer)
        model = _owner(self._parameters, called)
        if model is None:
            self._parameters = set()
            self.end()
        self._guarded(self._tool.attach, model, optimizer, self._folder)

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        if not self._parameters:
            self._attach(optimizer)
        self._fed = self._feed(self._tool.after_backward, optimizer)

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        if not self._fed:  # the step's closure went back
            self._feed(self._tool.after_backward, optimizer)
        if self._feed(self._tool.after_step, optimizer):
            self._step, self._loss = self._step + 1, None

    def _feed(self, hear: Callable[[int, Tensor], None], optimizer: Optimizer) -> bool:
        loss = self._loss
        if self._busy or loss is None or not _held(optimizer) & self._parameters:
            return False
        self._guarded(hear, self._step, loss if loss.numel() == 1 else loss.detach().mean())
        return True

    def _guarded(self, action: Callable[..., None], *args: Any) -> None:
        self._busy = True
        try:
            action(*args)
        except Done:
            self._step += 1
            self.end()
        except Exception as error:  # noqa: BLE001  # a tool that fails is a result
            self.end(f"it raised {error!r}")
        self._busy = False


def _held(by: Optimizer | nn.Module) -> set[int]:
    if isinstance(by, nn.Module):
        return {id(p) for p in by.parameters()}
    return {id(p) for group in by.param_groups for p in group["params"]}


def _owner(parameters: set[int], called: Sequence[nn.Module]) -> nn.Module | None:
    """The module in the calling frames that has most of the parameters, the largest of those."""
    found, frame = list(called), sys._getframe(1)
    while frame is not None:
        values = [*frame.f_globals.values(), *frame.f_locals.values()]
        values += vars(frame.f_locals["self"]).values() if hasattr(frame.f_locals.get("self"), "__dict__") else []
        found += [value for value in values if isinstance(value, nn.Module)]
        frame = frame.f_back
    shared = [(len(_held(module) & parameters), len(_held(module)), module) for module in found]
    most, _, module = max(shared, key=lambda entry: entry[:2], default=(0, 0, None))
    return module if most else None


def main() -> None:
    """Run the script in this process, and leave the process."""
    tool, script, to, folder = sys.argv[1:]
    attachment = Attachment(PEERS[tool](), Path(to), Path(folder))
    attachment.start()
    sys.argv, sys.path[0] = [script], str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit:
        pass
    except BaseException as error:  # noqa: BLE001  # with the tool attached, the program fails
        attachment.end(f"the program raised {error!r}")
    attachment.end()


if __name__ == "__main__":
    main()
