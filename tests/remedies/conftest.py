"""Scripts as people write them, and what a surveyed run tells of them, found in their text: no script is run."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from unstuck.evidence import Event, Layer, LossCall, Model, Optimizer, Parameter, Record
from unstuck.program import Script
from unstuck.source import compiled, edited
from unstuck.verdict import Finding, Verdict

OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "LBFGS")
OPS = {
    "Linear": "linear", "Conv1d": "conv", "Conv2d": "conv", "ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu",
    "Tanh": "tanh", "Sigmoid": "sigmoid", "Softmax": "softmax", "LogSoftmax": "log_softmax", "Dropout": "dropout",
    "BatchNorm1d": "batch_norm", "LayerNorm": "layer_norm", "Flatten": "flatten", "LSTM": "lstm", "GRU": "gru", "RNN": "rnn",
}  # fmt: skip
LOSSES = {
    "CrossEntropyLoss": "cross_entropy", "NLLLoss": "nll_loss", "MSELoss": "mse_loss", "L1Loss": "l1_loss",
    "BCELoss": "binary_cross_entropy", "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
}  # fmt: skip
FUNCTIONS = ("relu", "leaky_relu", "elu", "tanh", "sigmoid", "softmax", "log_softmax", "dropout")
TRAINING = """
import torch
import torch.nn.functional as F
from torch import nn

{data}
{net}
optimizer = {optimizer}
for epoch in range(10):
    optimizer.zero_grad()
    loss = {loss}
    loss.backward()
    optimizer.step()
"""
USUAL = {
    "data": "x, y = torch.randn(64, 4), torch.randint(3, (64,))",
    "net": "net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))",
    "optimizer": "torch.optim.SGD(net.parameters(), lr=0.1)",
    "loss": "F.cross_entropy(net(x), y)",
}


class Written(Script):
    """A script, with what is found in its text."""

    def diff(self, remedy: Callable[..., Any], **settings: Any) -> list[str]:
        """Lines that a remedy takes away and adds; what it makes is Python."""
        edits = remedy(self, **settings)
        lines = []
        for file in dict.fromkeys(e.file for e in edits):
            source = self.source(file)
            compiled(source, edits)
            changed = edited(source, edits)
            lines += list(difflib.unified_diff(source.text.splitlines(), changed.splitlines(), lineterm="", n=0))[2:]
        return [line for line in lines if not line.startswith("@@")]

    def run(self, remedy: Callable[..., Any], **settings: Any) -> dict[str, Any]:
        """What the script's variables are when it has run with the change."""
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compiled(self.main, remedy(self, **settings)), names)
        return names

    def added(self, remedy: Callable[..., Any], **settings: Any) -> list[str]:
        """Lines that a remedy adds, where it takes none away that isn't changed."""
        return [line[1:] for line in self.diff(remedy, **settings) if line[0] == "+"]


@pytest.fixture
def script(tmp_path) -> Callable[..., Written]:
    """Makes scripts: `script(loss="F.mse_loss(net(x), y)")` is the usual one with another loss, `script(text)` any other.

    What a run would have told of the loss goes by `loss_call`, of the network's inputs by `inputs`; the rest is of a `Record`.
    """

    def make(text: str = "", *, loss_call: Any = None, inputs: Any = None, batch: int = 64, **given: Any) -> Written:
        parts = {key: given.pop(key) for key in USUAL if key in given}
        text = textwrap.dedent(text or TRAINING.format(**{**USUAL, **parts})).lstrip("\n")
        path = tmp_path / "train.py"
        path.write_text(text)
        told = Text(text, str(path))
        events = [Event(0, "site", "", {"file": str(path), **data}) for data in told.sites()]
        events += given.pop("events", [])
        if inputs is not None:
            usual = {
                "variable": "x",
                "mean": [1.0, 2.0],
                "std": [3.0, 0.0],
                "all_mean": 1.5,
                "all_std": 2.0,
                "shape": [64, 2],
            }
            events.append(Event(9, "inputs", "", {**usual, **inputs}))
        layers = told.layers()
        last = next((layer.name for layer in reversed(layers)), "")
        known = {
            "layers": layers,
            "models": [Model("net", told.root)] if told.root else [],
            "optimizers": [Optimizer(e.data["name"]) for e in events if e.data.get("what") == "optimizer"],
            "losses": [dataclasses.replace(told.loss(), **{"layer": last, **(loss_call or {})})],
        }
        series = {("lr", ""): [0.1] * 3, ("batch_size", ""): [batch] * 3, ("grad_norm", ""): [1.0] * 3}
        series.update(given.pop("series", {}))
        return Written(path, Record.of(series, events=events, **{**known, **given}))

    return make


@pytest.fixture
def by_hand() -> dict[str, Any]:
    """What a record holds of a script with two matrices of its own, `w1` and `w2`: pass it on as `**by_hand`."""
    return {"parameters": [Parameter("w1", (4, 8)), Parameter("w2", (8, 3)), Parameter("train.py:9", (3,))]}


@pytest.fixture
def found() -> Callable[..., Verdict]:
    """Makes verdicts: `found("overfitting")`."""
    return lambda *causes: Verdict("sick", tuple(Finding(c, c, "error", 0.9, "") for c in causes))


class Text:
    """The text of a script in one file: one network, a `Sequential` or a class with `forward`."""

    def __init__(self, text: str, file: str) -> None:
        self.tree = ast.parse(text)
        self.calls = sorted(
            (n for n in ast.walk(self.tree) if isinstance(n, ast.Call)), key=lambda c: (c.lineno, c.col_offset)
        )
        self.classes = {
            n.name: n for n in self.tree.body if isinstance(n, ast.ClassDef) and "Module" in map(last, n.bases)
        }
        self.made: dict[str, ast.Call] = {}  # modules by path
        self.root = ""
        for call in self.calls:
            if not self.root and (last(call) in self.classes or (last(call) == "Sequential" and not self.classes)):
                self.root, self.made[""] = last(call), call
                self._children(call, "")
            elif not self.root and not self.classes and last(call) in OPS:
                self.root, self.made[""] = last(call), call

    def _children(self, call: ast.Call, path: str) -> None:
        """Modules in a `Sequential`, and those that the class of a network makes."""
        inner = [(str(i), a) for i, a in enumerate(call.args)] if last(call) == "Sequential" else []
        for node in ast.walk(self.classes[last(call)]) if last(call) in self.classes else ():
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                inner.append((node.targets[0].attr, node.value))
        for name, child in inner:
            if isinstance(child, ast.Call):
                self.made[f"{path}{name}"] = child
                self._children(child, f"{path}{name}.")

    def sites(self) -> Iterator[dict[str, Any]]:
        """What a surveyed run would tell: criteria first, as they may be made first."""
        for call in self.calls:
            if last(call) in LOSSES:
                yield {"what": "module", "line": call.lineno, "path": "", "root": last(call), "name": last(call)}
        for path, call in self.made.items():
            yield {"what": "module", "line": call.lineno, "path": path, "root": self.root, "name": kind(call)}
        counts = {"optimizer": 0, "loader": 0}
        for call in self.calls:
            name = last(call)
            what = "optimizer" if name in OPTIMIZERS else "loader" if name == "DataLoader" else ""
            if what == "optimizer":
                yield {"what": what, "line": call.lineno, "name": name, "index": counts[what]}
            if what == "loader":
                yield {"what": what, "line": call.lineno, "name": name, "trained": not counts[what]}
            if what:
                counts[what] += 1
            of = ast.unparse(call.func)
            if (
                isinstance(call.func, ast.Attribute)
                and name in ("backward", "step", "zero_grad", "eval", "train")
                and "sched" not in of
            ):
                yield {"what": name, "line": call.lineno}

    def layers(self) -> list[Layer]:
        """Layers in the order in which they compute."""
        if self.root in self.classes:
            forward = next(n for n in self.classes[self.root].body if getattr(n, "name", "") == "forward")
            return [layer for node in in_order(forward) for layer in self._of_call(node)]
        return [self._of_module(path) for path in self.made if path]

    def _of_call(self, call: ast.Call) -> list[Layer]:
        of = ast.unparse(call.func).removeprefix("self.")
        if of in self.made:
            here = [self._of_module(p) for p in self.made if p == of or p.startswith(f"{of}.")]
            return [dataclasses.replace(layer, site=f"train.py:{call.lineno}") for layer in here]
        name, site = last(call), f"train.py:{call.lineno}"
        return [Layer(f"{site} {name}", name, self.root, site)] if name in FUNCTIONS else []

    def _of_module(self, path: str) -> Layer:
        call = self.made[path]
        op = OPS.get(kind(call), "other")
        own = (f"{path}.weight",) if op in ("linear", "conv", "lstm", "batch_norm") else ()
        return Layer(f"net.{path}" if path[0].isdigit() else path, op, kind(call), f"train.py:{call.lineno}", (), own)

    def loss(self) -> LossCall:
        """The loss, by a function of torch's or by a criterion; else by hand, where `loss` is given its value."""
        criteria = {
            ast.unparse(n.targets[0]): LOSSES[last(n.value)]
            for n in ast.walk(self.tree)
            if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call) and last(n.value) in LOSSES
        }
        for call in self.calls:
            name = criteria.get(ast.unparse(call.func), last(call))
            if isinstance(call.func, ast.Call):  # nn.MSELoss()(output, target)
                name = LOSSES.get(last(call.func), name)
            if name in LOSSES.values():
                return LossCall(name, f"train.py:{call.lineno}")
        lines = [
            n.lineno for n in ast.walk(self.tree) if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "loss"
        ]
        return LossCall("hand-written", f"train.py:{min(lines, default=0)}")


def last(name: ast.expr) -> str:
    """The last name of what is named or called: "SGD" of `torch.optim.SGD(...)`."""
    return ast.unparse(name.func if isinstance(name, ast.Call) else name).rpartition(".")[2]


def kind(call: ast.Call) -> str:
    """The class that is made; `act()` makes a Tanh."""
    return "Tanh" if last(call) == "act" else last(call)


def in_order(node: ast.AST) -> Iterator[ast.Call]:
    """Calls in the order in which they are made: what they are given first."""
    for child in ast.iter_child_nodes(node):
        yield from in_order(child)
    if isinstance(node, ast.Call):
        yield node
