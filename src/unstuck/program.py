"""A script that is to be changed: its files, and where in them a training is made of what.

A surveyed record says at which lines the script makes its model, optimizer and loader, and calls backward and step. `Script` finds the
expressions there, and gives them to remedies. What it can't find it says by an `EditError`, so that another remedy, or another
way to write the same, is tried instead.
"""

from __future__ import annotations

import ast
import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unstuck.evidence import Event, LossCall, Record
from unstuck.source import Edit, EditError, Loop, Source, argument, called

_TARGET = re.compile(r"(^|_)(y|t|gt|ys)($|_|b$|s$|true|train|batch)|target|label|truth")
_NEAR = 12  # lines before the loss, within which what it is computed from is given
_OUTPUT = re.compile(r"pred|hat|out|logit|prob")


@dataclass(frozen=True)
class Made:
    """A call that makes something, in a file.

    Attributes:
        source: The file.
        call: The call.
        statement: The statement it is in.
        target: What it is assigned to ("optimizer", "self.opt"), "" when it isn't.
        event: What is known of it.
    """

    source: Source
    call: ast.Call
    statement: ast.stmt
    target: str
    event: Mapping[str, Any]

    @property
    def callee(self) -> str:
        """What is called: "torch.optim.SGD"."""
        return called(self.call)


class Script:
    """A script, with what a surveyed run of it told.

    Args:
        path: The script.
        record: Of the surveyed run.
        known: The same script, with the record of another run; its files aren't read again.
    """

    def __init__(self, path: str | Path, record: Record, *, known: Script | None = None) -> None:
        self.path, self.record = str(path), record
        self._sources: dict[str, Source] = known._sources if known else {}

    def source(self, file: str) -> Source:
        """A file of the user's.

        Raises:
            EditError: It can't be read.
        """  # noqa: DOC502
        real = os.path.realpath(file)
        if real not in self._sources:
            self._sources[real] = Source.read(self.path if real == os.path.realpath(self.path) else file)
        return self._sources[real]

    @functools.cached_property
    def main(self) -> Source:
        """The script's own file."""
        return self.source(self.path)

    def sites(self, what: str) -> list[Event]:
        """Places of a kind, in the order they were met."""
        return [e for e in self.record.happened("site") if e.data.get("what") == what]

    # ------------------------------------------------------------------ what is made

    def made(self, event: Event) -> Made:
        """The call that made something.

        Raises:
            EditError: There is no call on that line that could have, or it can't be told which.
        """
        source, line = self.source(event.data["file"]), int(event.data["line"])
        name = str(event.data.get("name", ""))
        calls = source.nodes(ast.Call, line)
        named = [c for c in calls if name and called(c).rpartition(".")[2] == name]
        fitting = [c for c in named if c.lineno == line] or named[-1:]
        if not fitting:  # it goes by another name: by that of a variable, or of a function that gives it
            others = {e.data.get("name") for e in self.record.happened("site")}
            fitting = [c for c in calls if c.lineno == line and called(c).rpartition(".")[2] not in others]
            # Of `getattr(torch.optim, name)(model.parameters(), **given)` the call that is given the parameters.
            if len(fitting) > 1 and event.data.get("what") == "optimizer":
                fitting = [c for c in fitting if any(_gives_parameters(a) for a in c.args)]
            fitting = fitting if len(fitting) == 1 else []
        if not fitting:
            raise EditError(
                f"line {line} of {Path(source.file).name} makes {name or 'something'}, but not by a plain call"
            )
        call = fitting[self._alike(event).index(event) % len(fitting)]
        statement = source.statement_of(call)
        return Made(source, call, statement, _target(source, statement, call), event.data)

    def _alike(self, event: Event) -> list[Event]:
        """What is of a kind and made on one line, in order: where there are several calls on the line, they take turns."""

        def key(e: Event) -> tuple[Any, ...]:
            return tuple(e.data.get(k) for k in ("what", "file", "line", "name"))

        return [e for e in self.sites(event.data["what"]) if key(e) == key(event)]

    def optimizer(self, index: int = 0) -> Made:
        """The call that makes an optimizer.

        Raises:
            EditError: There is none, or it isn't made by a plain call.
        """
        found = [e for e in self.sites("optimizer") if e.data.get("index", 0) == index]
        if not found:
            raise EditError(
                "the script makes no optimizer"
                if not (self.record.program.optimizers or self.sites("optimizer"))
                else "it isn't known where the optimizer is made"
            )
        return self.made(found[0])

    def module(self, layer: str) -> Made:
        """The call that makes the module of a layer.

        Raises:
            EditError: The layer is no module, or isn't made by a plain call.
        """
        known = self.record.layers.get(layer)
        layer = layer.partition(" after ")[0]  # "relu after fc2": one module in several places
        kind = next((m.kind for m in self.record.program.models if known and m.name == known.model), "")
        found = [
            e
            for e in self.sites("module")
            if e.data["path"] and (layer == e.data["path"] or layer.endswith("." + e.data["path"]))
        ]
        if not found:
            raise EditError(f"it isn't known where {layer!r} is made")
        return self.made(max(found, key=lambda e: (e.data.get("root") == kind, len(e.data["path"]))))

    def modules(self, *names: str) -> list[Made]:
        """Calls that make modules of some classes, each once."""
        found: dict[tuple[str, int, int], Made] = {}
        for event in self.sites("module"):
            if event.data["name"] in names:
                try:
                    made = self.made(event)
                except EditError:
                    continue
                found.setdefault((made.source.file, *made.source.span(made.call)), made)
        return list(found.values())

    def loader(self) -> Made:
        """The call that makes the loader that is trained on.

        Raises:
            EditError: There is none.
        """
        found = [e for e in self.sites("loader") if e.data.get("trained")]
        if not found:
            raise EditError("the script trains on no DataLoader")
        return self.made(found[0])

    @property
    def model(self) -> str:
        """The expression that is the network where the optimizer is made: `net` of `net.parameters()`, and of `net.head.parameters()`.

        Raises:
            EditError: It can't be told.
        """  # noqa: DOC502
        if self.sites("optimizer"):
            made = self.optimizer()
            given = argument(made.call, "params", 0)
            for node in ast.walk(given) if given is not None else ():
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in ("parameters", "named_parameters")
                ):
                    return made.source.of(self._whole(node.func.value))
        return self.root().target or _unknown("the network isn't given a name where it is made")

    def _whole(self, part: ast.expr) -> ast.expr:
        """The network that an expression is, or is a part of: parts are known by their paths."""
        paths = {e.data["path"] for e in self.sites("module")}
        whole, path, inner = part, "", part
        while isinstance(inner, (ast.Attribute, ast.Subscript)):
            name = inner.attr if isinstance(inner, ast.Attribute) else ast.unparse(inner.slice)
            path, inner = f"{name}.{path}" if path else name, inner.value
            whole = inner if path in paths else whole
        return whole

    @property
    def is_module(self) -> bool:
        """Whether the network is a module; else it is made of plain tensors."""
        return bool(self._roots())

    def root(self) -> Made:
        """The call that makes the network.

        Raises:
            EditError: There is none.
        """
        roots = self._roots()
        if not roots:
            raise EditError("the network is no module")
        return self.made(roots[0])

    def _roots(self) -> list[Event]:
        """Networks, the one that is trained first; criteria are modules as well, but no networks."""
        inner = {e.data["root"] for e in self.sites("module") if e.data["path"]}
        kinds = [m.kind for m in self.record.program.models if m.trained]
        roots = [
            e
            for e in self.sites("module")
            if not e.data["path"] and (e.data["root"] in {*inner, *kinds} or not e.data["root"].endswith("Loss"))
        ]
        return sorted(roots, key=lambda e: (e.data["root"] not in kinds[:1], e.data["root"] not in inner))

    @property
    def place(self) -> Source:
        """The file that `before_optimizer` adds lines to.

        Raises:
            EditError: Neither the optimizer nor the network is made by a plain call.
        """  # noqa: DOC502
        return (self.optimizer() if self.sites("optimizer") else self.root()).source

    def before_optimizer(self, lines: Sequence[str], *, rank: int = 0) -> list[Edit]:
        """Lines where the network is there, and the optimizer not yet: where there is none, behind the network.

        Raises:
            EditError: Neither is made by a plain call.
        """  # noqa: DOC502
        made = self.optimizer() if self.sites("optimizer") else self.root()
        put = made.source.before if self.sites("optimizer") else made.source.after
        return [put(made.statement, lines, rank=rank)]

    # ------------------------------------------------------------------ the loop

    def statement(self, what: str) -> tuple[Source, ast.stmt]:
        """The statement that calls `backward`, `step` or `zero_grad`.

        Raises:
            EditError: There is none.
        """
        found = self.sites(what)
        if not found:
            raise EditError(f"it isn't known where {what} is called")
        source, line = self.source(found[0].data["file"]), int(found[0].data["line"])
        calls = [c for c in source.nodes(ast.Call, line) if isinstance(c.func, ast.Attribute) and c.func.attr == what]
        return source, source.statement_of(calls[0]) if calls else source.statement(line)

    @property
    def stepping(self) -> str:
        """The expression that is the optimizer where it steps: `optimizer` of `optimizer.step()`.

        Raises:
            EditError: It can't be told.
        """  # noqa: DOC502
        source, statement = self.statement("step")
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "step":
                by_scaler = node.args and "scal" in called(node).lower()
                return source.of(node.args[0] if by_scaler else node.func.value)
        return self.optimizer().target or _unknown("it isn't known how the optimizer is named where it steps")

    def loops(self) -> tuple[Source, list[Loop]]:
        """The loops that backward is called in, from inside out.

        Raises:
            EditError: It is called in none.
        """
        source, statement = self.statement("backward")
        loops = source.loops(statement)
        if not loops:
            raise EditError("backward is called in no loop that could be found")
        return source, loops

    def before_training(self, names: Sequence[str], lines: Sequence[str], *, rank: int = 0) -> list[Edit]:
        """Lines that change variables of the script before training: before its loop, or behind the variables where it is in a function.

        Raises:
            EditError: Training is in no loop, or the variables aren't the script's own.
        """
        source, loops = self.loops()
        if source is self.main and source.function(loops[-1]) is source.tree:
            return [source.before(loops[-1], lines, rank=rank)]
        given = [s for name in names for s in self.main.binds(name) if self.main.function(s) is self.main.tree]
        if not given:
            raise EditError(f"{' and '.join(names)} are given no value outside of functions")
        return [self.main.after(max(given, key=lambda s: s.lineno), lines, rank=rank)]

    # ------------------------------------------------------------------ the loss

    @property
    def loss(self) -> LossCall:
        """The loss that is trained.

        Raises:
            EditError: There is none.
        """  # noqa: DOC502
        return loss_of(self.record)

    def at(self, site: str) -> tuple[Source, int]:
        """The file and line of a site such as "train.py:31".

        Raises:
            EditError: There is no such file of the user's.
        """
        name, _, line = site.partition(" ")[0].rpartition(":")
        files = [self.path, *(str(e.data["file"]) for e in self.record.happened("site"))]
        file = next((f for f in files if Path(f).name == name), None)
        if file is None or not line.isdigit():
            raise EditError(f"{site!r} is in no file of yours")
        return self.source(file), int(line)

    def loss_call(self) -> tuple[Source, ast.Call]:
        """The call of a loss function or of a criterion.

        Raises:
            EditError: The loss isn't computed by a plain call with two arguments.
        """
        source, line = self.at(self.loss.site)
        calls = [c for c in source.nodes(ast.Call, line) if len(c.args) + len(c.keywords) >= 2]
        plain = [c for c in calls if _like_loss(called(c), self.loss.name)] or calls
        if not plain or self.loss.name == "hand-written":
            raise EditError("the loss isn't computed by a call of a loss function")
        return source, plain[0]

    def loss_statement(self) -> tuple[Source, ast.Assign]:
        """The statement that gives the loss its name.

        Raises:
            EditError: There is none.
        """
        source, line = self.at(self.loss.site)
        statement = source.statement(line)
        if not isinstance(statement, ast.Assign):  # it may share its line
            beside = [s for s in source.nodes(ast.Assign, line) if statement.lineno == s.lineno]
            statement = beside[-1] if beside else statement
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], (ast.Name, ast.Attribute)):
            raise EditError("the loss isn't given a name where it is computed")
        return source, statement

    def loss_by_hand(self) -> tuple[Source, ast.expr, ast.expr, ast.expr]:
        """A loss made of plain operations: the file, the whole expression, and in it the output and the target.

        Raises:
            EditError: It can't be told what it is computed from.
        """
        own = self._own_function()
        if own is not None:
            return own
        source, statement = self.loss_statement()
        found = self._compared_in(source, statement, statement.value)
        if found is not None:
            return found
        of = [n for n in source.within(statement.value) if isinstance(n, ast.Name)]
        for name in of:  # of parts, or of a loss by sample
            near = [s for s in source.assigned(name.id) if 0 < statement.lineno - s.lineno < _NEAR]
            for made in near[-1:]:
                found = self._compared_in(source, made, made.value) if made.value is not None else None
                if found is not None:
                    return found if _averages(statement.value, name.id) else (source, statement.value, *found[2:])
        for call in source.within(statement.value):  # a loss function of the user's own
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and len(call.args) == 2:
                return source, statement.value, call.args[0], call.args[1]
        raise EditError("it can't be told what the loss is computed from")

    def _compared_in(
        self, source: Source, statement: ast.stmt, value: ast.expr
    ) -> tuple[Source, ast.expr, ast.expr, ast.expr] | None:
        """The output and the target in an expression; None where it hasn't both."""
        inside = source.within(value)
        names = [n for n in inside if isinstance(n, ast.Name) and _is_value(source, n)]
        networks = [n for n in inside if isinstance(n, ast.Call) and source.of(n.func) == self._network]
        given = {n.id for n in names if self._is_given(source, statement, n.id)}
        networks = networks or [n for n in names if n.id in given]
        targets = [n for n in names if _TARGET.search(n.id.lower()) and not _OUTPUT.search(n.id.lower())]
        targets = [n for n in targets if n.id not in given]
        targets = [n for n in targets if not any(n in source.within(network) for network in networks)]
        outputs = networks or [n for n in names if n not in targets and self._is_output(source, statement, n.id)]
        return (source, value, outputs[0], targets[-1]) if outputs and targets else None

    def _own_function(self) -> tuple[Source, ast.expr, ast.expr, ast.expr] | None:
        """The call of a loss function of the user's own, and what it is given: output and target; None where there is none."""
        source, line = self.at(self.loss.site)
        outer = next((n for n in source.around(source.statement(line)) if isinstance(n, ast.FunctionDef)), None)
        if outer is None:
            return None
        names, inside = {outer.name}, source.parents.get(outer)
        if outer.name in ("forward", "__call__") and isinstance(
            inside, ast.ClassDef
        ):  # a criterion: by what it is called
            made = [
                a for a in source.nodes(ast.Assign) if isinstance(a.value, ast.Call) and called(a.value) == inside.name
            ]
            names = {source.of(target).rpartition(".")[2] for a in made for target in a.targets}
        calls = [c for c in source.nodes(ast.Call) if called(c).rpartition(".")[2] in names]
        calls = [c for c in calls if len(c.args) >= 2]
        _, backward = self.statement("backward")
        calls = [c for c in calls if source.function(c) is source.function(backward)] or calls
        loop = source.loops(backward)[:1]
        calls = [c for c in calls if source.loops(c)[:1] == loop] or calls  # evaluation calls it, too
        if any(c.lineno <= backward.lineno for c in calls) and source.function(calls[0]) is source.function(backward):
            last = max((source.statement_of(c) for c in calls if c.lineno <= backward.lineno), key=lambda s: s.lineno)
            calls = [c for c in calls if source.statement_of(c) is last]
        if len(calls) != 1:
            return None
        first, second = calls[0].args[:2]
        if self._from_network(source, second) and not self._from_network(source, first):
            first, second = second, first
        return source, calls[0], first, second

    def _from_network(self, source: Source, expression: ast.expr) -> bool:
        """Whether an expression is what the network gives, by a call or by a name."""
        names = [n.id for n in ast.walk(expression) if isinstance(n, ast.Name)]
        calls = [n for n in ast.walk(expression) if isinstance(n, ast.Call)]
        if any(source.of(c.func) == self._network for c in calls):
            return True
        return any(
            isinstance(a.value, ast.Call) and source.of(a.value.func) == self._network
            for name in names
            for a in source.assigned(name)
        ) or any(_OUTPUT.search(name.lower()) for name in names)

    @property
    def _network(self) -> str:
        try:
            return self.model
        except EditError:
            return ""

    def _is_given(self, source: Source, statement: ast.stmt, name: str) -> bool:
        """Whether a name is given by a call of the network, shortly before."""
        made = [s.value for s in source.assigned(name) if 0 <= statement.lineno - s.lineno < _NEAR]
        return any(isinstance(v, ast.Call) and bool(self._network) and source.of(v.func) == self._network for v in made)

    def _is_output(self, source: Source, statement: ast.stmt, name: str) -> bool:
        """Whether a name is given by a call, shortly before: the network's."""
        made = [s for s in source.assigned(name) if 0 <= statement.lineno - s.lineno < _NEAR]
        values = [s.value for s in made]
        if self._is_given(source, statement, name):
            return True
        return bool(_OUTPUT.search(name.lower())) or any(
            isinstance(v, ast.Call) and not called(v).startswith(("torch.tensor", "np.")) for v in values
        )

    def loss_over(self, text: str) -> list[Edit]:
        """The loss, divided by something: on a line of its own, or where it is called.

        Raises:
            EditError: It can't be told where the loss is computed.
        """  # noqa: DOC502
        try:
            source, statement = self.loss_statement()
        except EditError:
            source, call = self.loss_call()
            return [source.replace(call, f"({source.of(call)} / {text})")]
        name = source.of(statement.targets[0])
        return [source.after(statement, [f"{name} = {name} / {text}"])]


def loss_of(record: Record) -> LossCall:
    """The loss that is trained.

    Raises:
        EditError: There is none.
    """
    found = record.program.main_loss
    if found is None:
        raise EditError("no loss was seen")
    return found


def with_survey(record: Record, surveyed: Record) -> Record:
    """The record of a run, and with it what only a surveyed run of the same program tells: sites and inputs, where it has none."""
    kinds = {e.kind for e in record.events}
    missing = [e for e in surveyed.events if e.kind in ("site", "inputs") and e.kind not in kinds]
    return replace(record, events=(*record.events, *missing))


def _target(source: Source, statement: ast.stmt, call: ast.Call) -> str:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and _value_is(statement.value, call):
        return source.of(statement.targets[0])
    if isinstance(statement, ast.AnnAssign) and statement.value is not None and _value_is(statement.value, call):
        return source.of(statement.target)
    return ""


def _value_is(value: ast.expr, call: ast.Call) -> bool:
    """Whether a value is what a call gives, maybe through `.to(device)` and the like."""
    while isinstance(value, ast.Call) and value is not call and isinstance(value.func, ast.Attribute):
        value = value.func.value
    return value is call


def _is_value(source: Source, name: ast.Name) -> bool:
    """Whether a name stands for a value, and not for a module or a function."""
    parent = source.parents[name]
    function = isinstance(parent, ast.Call) and parent.func is name
    return not function and (not isinstance(parent, ast.Attribute) or bool(source.binds(name.id)))


def _like_loss(name: str, loss: str) -> bool:
    last = name.rpartition(".")[2].lower().replace("_", "")
    return last == loss.replace("_", "") or any(
        word in last for word in ("loss", "criterion", "entropy", "crit", "objective")
    )


def _unknown(words: str) -> str:
    raise EditError(words)


def _averages(expression: ast.expr, name: str) -> bool:
    """Whether an expression is the mean or the sum of what goes by a name, in all, which leaves a single number as it is."""
    if not isinstance(expression, ast.Call) or expression.keywords:
        return False
    of = [*expression.args, *([expression.func.value] if isinstance(expression.func, ast.Attribute) else [])]
    held = [a for a in of if isinstance(a, ast.Name) and a.id == name]
    return called(expression).rpartition(".")[2] in ("mean", "sum") and len(held) == 1 and len(expression.args) <= 1


def _gives_parameters(argument: ast.expr) -> bool:
    return isinstance(argument, ast.Call) and called(argument).rpartition(".")[2] in ("parameters", "named_parameters")


def edits_of(parts: Iterable[Iterable[Edit]]) -> list[Edit]:
    """Edits of several changes, each once, those of later changes behind those of earlier ones at the same place."""
    found: dict[Edit, None] = {}
    for rank, part in enumerate(parts):
        for edit in part:
            placed = Edit(
                edit.file, edit.start, edit.end, edit.text, edit.rank + 10 * rank if edit.rank >= 0 else edit.rank
            )
            found.setdefault(placed)
    return list(found)
