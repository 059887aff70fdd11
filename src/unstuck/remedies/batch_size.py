"""Another batch size."""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import literal
from unstuck.remedies.learning_rate import learning_rate
from unstuck.remedies.learning_rate import treat as treat_rate
from unstuck.source import Edit, EditError, Loop, Source, argument, called, number_in
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_OPTIONS = ("add_argument", "option", "Option")  # of argparse, click and typer
_COUNTS = frozenset({"range", "trange", "arange", "split", "randint", "choice", "sample", "multinomial"})


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """32 where batches are large or tiny; then with the rate that goes with it."""
    size = script.record.series("batch_size").median()
    causes = {f.cause for f in verdict.findings}
    if "batch-too-small" in causes:
        other = int(min(64, max(32, 8 * size)))
    elif size >= 128:
        other = 32
    else:
        return []
    rate = script.record.series("lr").median()
    made = script.record.program.optimizers
    if not rate > 0 or not made:
        return [{"size": other}]
    ratio = other / size
    scaled = rate * (ratio if made[0].kind in ("SGD", "hand-written") else math.sqrt(ratio))
    return [{"size": other}, {"size": other, "rate": float(literal(scaled))}]


def batch_size(script: Script, *, size: int = 32, rate: float = 0.0) -> list[Edit]:
    """The batch size, of a loader or of a loop written by hand; with it the rate, where one is given.

    Steps by SGD go as far in a pass when the rate is in proportion to the batch (Goyal et al. 2017), those of Adam when it is to its
    root (Malladi et al. 2022).

    Args:
        script: The script.
        size: Samples in a batch.
        rate: The rate that goes with it; 0 for the script's own.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told where it is set.
    """  # noqa: DOC502
    return _size(script, size) + (learning_rate(script, rate=rate) if rate else [])


def _size(script: Script, size: int) -> list[Edit]:
    """The batch size.

    Raises:
        EditError: It can't be told where it is set.
    """
    if any(e.data.get("trained") for e in script.sites("loader")):
        made = script.loader()
        if argument(made.call, "batch_sampler") is not None:
            raise EditError("the loader's batches are made by a sampler")
        given = argument(made.call, "batch_size", 1)
        number = made.source.constant(given) if given is not None else None
        return [
            made.source.replace(number, str(size))
            if number is not None
            else made.source.keyword(made.call, "batch_size", str(size), position=1)
        ]
    source, loops = script.loops()
    held = script.record.series("batch_size").median()
    return _by_name(source, held, size) or _by_number(source, loops, held, size) or _refuse()


def _by_name(source: Source, held: float, size: int) -> list[Edit]:
    """A variable, an entry of a dict, an argument of a function or of the command line, or what one is by default, that holds it."""
    for node in source.nodes(ast.Assign):
        names = [t.id.lower() for t in node.targets if isinstance(t, ast.Name)]
        if number_in(node.value) == held and any("batch" in n or n in ("bs", "b", "mb") for n in names):
            return [source.replace(node.value, str(size))]
    for node in source.nodes(ast.AnnAssign):
        if node.value is not None and number_in(node.value) == held and "batch" in source.of(node.target).lower():
            return [source.replace(node.value, str(size))]
    for node in source.nodes(ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and "batch" in str(key.value).lower() and number_in(value) == held:
                return [source.replace(value, str(size))]
    for node in source.nodes(ast.Call):
        given = next((k.value for k in node.keywords if k.arg is not None and "batch" in k.arg.lower()), None)
        words = [str(a.value).lower() for a in node.args if isinstance(a, ast.Constant)]
        if called(node).rpartition(".")[2] in _OPTIONS and any("batch" in w for w in words):
            given = argument(node, "default")
        if given is not None and number_in(given) == held:
            return [source.replace(given, str(size))]
    for node in [*source.nodes(ast.FunctionDef), *source.nodes(ast.Lambda)]:
        args = node.args
        placed = [*args.posonlyargs, *args.args]
        given = [
            *zip(reversed(placed), reversed(args.defaults), strict=False),
            *zip(args.kwonlyargs, args.kw_defaults, strict=True),
        ]
        for named, default in given:
            if "batch" in named.arg.lower() and default is not None and number_in(default) == held:
                return [source.replace(default, str(size))]
    return []


def _by_number(source: Source, loops: list[Loop], held: float, size: int) -> list[Edit]:
    """Itself where samples are counted out, in slices and in what draws or splits."""
    found: dict[Edit, None] = {}
    for loop in loops:
        for number in (n for n in ast.walk(loop) if isinstance(n, ast.Constant) and number_in(n) == held):
            within = next(n for n in source.around(number) if isinstance(n, (ast.Slice, ast.Call, ast.stmt)))
            counts = isinstance(within, ast.Call) and source.of(within.func).rpartition(".")[2] in _COUNTS
            if isinstance(within, ast.Slice) or counts:
                found.setdefault(source.replace(number, str(size)))
    return list(found)


def _refuse() -> list[Edit]:
    raise EditError("it can't be told where the batch size is set")


def treat(training: Training, record: Record, *, size: int = 32, rate: float = 0.0) -> None:
    """Batches of another size, of a loader or of a list; with it the rate, where one is given.

    Raises:
        EditError: They are made by something else.
    """  # noqa: DOC502
    from torch.utils.data import DataLoader

    from unstuck.remedies._training import loader_with, samples_of

    if isinstance(training.batches, DataLoader):
        training.batches = loader_with(training.batches, training.batches.sampler, size)
    else:
        inputs, targets = samples_of(training)
        training.batches = list(zip(inputs.split(size), targets.split(size), strict=True))
    if rate:
        treat_rate(training, record, rate=rate)
