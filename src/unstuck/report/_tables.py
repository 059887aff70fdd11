"""The tables at the end of the page: layers, parameters, optimizers, losses, events, experiments, task and data, the run."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from unstuck._language import _, marked, tell
from unstuck.evidence import Layer, Parameter, Record
from unstuck.report import _words as words
from unstuck.report._next import command
from unstuck.report._worst import is_of_worst
from unstuck.verdict import Verdict, flatten

Cells = tuple[Sequence[str], Sequence[Sequence[str]]]
_MOST_ROWS = 500  # of layers; where there are more, so many are shown that a page stays light, and the filter shows any
_FEW_ROWS = 100
_MOST_EVENTS = 100
_LONGEST = 120  # letters of a name
_EXPERIMENTS = {
    "modes": marked("loss and score in train mode and in evaluation mode"),
    "zero-input": marked("loss with inputs of zeros, and with those of other samples"),
    "answers": marked("labels and answers by class"),
    "critical-rate": marked(
        "step sizes, as multiples of the script's own: lowest loss, and where it is higher than before"
    ),
    "unregularized": marked("the loss after some more steps, with and without regularization"),
    "from-start": marked("losses after training anew, by factors of the rate"),
    "step-sizes": marked("losses after more steps, by factors of the rate"),
    "go-on": marked("losses after more steps of the same"),
    "reference": marked("scores of simple models on the same data"),
    "overfit-batch": marked("losses when one batch is learned by heart"),
    "permuted-labels": marked("losses when the labels are exchanged"),
    "noise": marked("noise of the gradient against its size"),
    "curvature": marked("largest and smallest eigenvalue at the end"),
    "larger-batch": marked("losses with a larger batch"),
    "schedule": marked("losses with a rate that falls"),
    "none": marked("no experiments were made"),
}


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        id: Short name, unique on the page.
        title: What it lists.
        header, rows: Its cells, those of the first column are names.
        named: "layer" or "parameter" where the first column names such, which the filter looks at; "" elsewhere.
        more: Rows that are left to the page's script, without their names: a text a column, a line a cell, "=" for that above.
        ids: What rows are called on the page, where they are linked to.
    """

    id: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    named: str = ""
    more: Sequence[str] = ()
    ids: Sequence[str] = ()


def layer_ids(record: Record) -> dict[str, str]:
    """The rows of the table of layers that can be linked to, by the layer's name."""
    layers = record.program.layers
    return {layer.name: f"layer-{i}" for i, layer in enumerate(layers[: _num_rows(len(layers))])}


def _num_rows(number: int) -> int:
    return number if number <= _MOST_ROWS else _FEW_ROWS


def tables(verdict: Verdict, record: Record) -> list[Table]:
    """What the page lists at its end, those with anything in them; tables of two columns come last."""
    num_events = sum(not _is_shown_elsewhere(e.kind) for e in record.events)
    made = [
        _layers(verdict, record),
        _odd_parameters(record),
        Table("optimizers", _("Optimizers"), *_optimizers(record)),
        Table("losses", _("Losses"), *_losses(record)),
        Table("experiments", _("Experiments on copies, when it had ended"), *_experiments(record)),
        Table("events", tell("Events ({number})", number=num_events), *_events(record)),
        Table(
            "models",
            _("Models"),
            (_("model"), _("what it is")),
            [(words.place(m.name, _LONGEST), words.model(m, record)) for m in record.program.models],
        ),
        Table(
            "not-found",
            _("Not found"),
            (_("what could not be seen"),),
            [(_(text),) for text in record.program.not_found],
        ),
        Table("data", _("Task and data"), *_data(record)),
        Table("run", _("The run"), *_run(verdict, record)),
    ]
    return [table for table in made if table.rows]


def _layers(verdict: Verdict, record: Record) -> Table:
    found: dict[str, dict[str, int]] = {}
    for number, finding in enumerate(flatten(verdict.findings), 1):
        for name in finding.layers:
            found.setdefault(name, {}).setdefault(finding.cause, number)
    rows = [_layer(layer, record, found.get(layer.name, {})) for layer in record.program.layers]
    header = (
        _("layer"), _("op"), _("where in the script"), _("output shape"), _("parameters"), _("dead"), _("saturated"),
        _("gradient"), _("update / weight"), _("found"),
    )  # fmt: skip
    header, rows = without_empty(header, rows)
    shown = _num_rows(len(rows))
    title = tell("Layers ({number})", number=len(rows))
    ids = list(layer_ids(record).values())
    rest = [
        [Markup(cell).striptags() if isinstance(cell, Markup) else cell for cell in row[1:]] for row in rows[shown:]
    ]
    more = [_column(column) for column in zip(*rest, strict=True)]
    return Table("layers", title, header, rows[:shown], "layer", more, ids)


def _column(cells: Sequence[str]) -> str:
    lines = [words.clean(cell) for cell in cells]
    return "\n".join("=" if i and line == lines[i - 1] else line for i, line in enumerate(lines))


def _layer(layer: Layer, record: Record, found: Mapping[str, int]) -> tuple[str, ...]:
    sizes = [math.prod(record.parameters[name].shape) for name in layer.parameters if name in record.parameters]
    return (
        words.place(layer.name, _LONGEST),
        f"{layer.op} x{layer.calls}" if layer.calls > 1 else layer.op,
        words.place(layer.site, 40),
        _shape(layer.out_shape),
        words.count(sum(sizes)) if sizes else "",
        _last(record, "dead_share", layer.name),
        _last(record, "act_saturated", layer.name),
        _last(record, "back_rms", layer.name),
        next(filter(None, (_last(record, "update_ratio", name) for name in layer.parameters)), ""),
        Markup(", ").join(Markup('<a href="#finding-{}">{}</a>').format(n, cause) for cause, n in found.items()),
    )


def _odd_parameters(record: Record) -> Table:
    rows = [
        (words.place(p.name, _LONGEST), _shape(p.shape), odd)
        for p in record.program.parameters
        if (odd := _oddities(p))
    ]
    header = (_("parameter"), _("shape"), _("what is odd"))
    title = tell("Parameters out of the ordinary ({number})", number=len(rows))
    more = len(rows) - _MOST_ROWS
    rest = [(tell("and {number} more", number=more), "", "")] if more > 0 else []
    return Table("parameters", title, header, [*rows[:_MOST_ROWS], *rest], "parameter")


def _oddities(parameter: Parameter) -> str:
    odd = {
        _("not trainable"): not parameter.trainable,
        _("not used on the way to the loss"): not parameter.used,
        _("in no optimizer"): parameter.trainable and not parameter.optimizers,
        _("never had a gradient"): parameter.trainable and not parameter.got_grad,
        _("never changed"): parameter.trainable and parameter.changed is False,
        _("made anew at every step"): parameter.remade,
    }
    return ", ".join(text for text, holds in odd.items() if holds)


def _optimizers(record: Record) -> Cells:
    rows = [
        (o.kind, words.settings(o.settings), o.schedule, o.clipping, str(o.steps), str(o.groups),
         words.count(o.num_parameters), words.exact(float(o.backwards_per_step)), words.exact(o.cleared),
         _("yes") if o.closure else "")
        for o in record.program.optimizers
    ]  # fmt: skip
    header = (
        _("optimizer"), _("settings"), _("schedule"), _("clipping"), _("steps"), _("groups"), _("parameters"),
        _("backward passes a step"), _("gradients cleared"), _("closure"),
    )  # fmt: skip
    return without_empty(header, rows)


def _losses(record: Record) -> Cells:
    rows = [
        (loss.name, loss.site, words.place(" → ".join(filter(None, (loss.layer, *loss.chain[1:]))), _LONGEST), " → ".join(loss.loss_ops),
         _shape(loss.output_shape), _shape(loss.target_shape), loss.target_kind, loss.reduction,
         _range(loss.output), _range(loss.target), _("yes") if loss.trains else _("no, only evaluated"))
        for loss in record.program.losses
    ]  # fmt: skip
    header = (
        _("loss"), _("where in the script"), _("takes"), _("computed by"), _("outputs"), _("targets"), _("kind of target"),
        _("reduction"), _("outputs lie in"), _("targets lie in"), _("trains"),
    )  # fmt: skip
    return without_empty(header, rows)


def _data(record: Record) -> Cells:
    task, data = record.program.task, record.program.data
    shuffled = {None: _("unknown"), True: _("yes"), False: _("no")}[data.shuffled]
    rows = [
        (_("task"), task.kind if task.kind != "unknown" else ""),
        (_("classes"), str(task.num_classes or "")),
        (_("score"), task.score),
        (_("loss at chance"), "" if math.isnan(task.chance_loss) else words.number(task.chance_loss)),
        (_("score at chance"), "" if math.isnan(task.chance_score) else words.number(task.chance_score)),
        (
            _("batch size"),
            tell("{size} (from the {source})", size=data.batch_size, source=data.batch_from) if data.batch_size else "",
        ),
        (_("loader"), data.loader),
        (_("shuffled"), shuffled if data.loader else ""),
        (_("samples"), str(data.num_samples or "")),
        (_("batches an epoch"), str(data.batches_per_epoch or "")),
        (_("epochs begun"), str(data.epochs or "")),
        (_("evaluation passes"), str(data.eval_passes or "")),
        (_("features"), ", ".join(record.program.features)),
    ]
    return (_("what"), _("value")), [row for row in rows if row[1]]


def _is_shown_elsewhere(kind: str) -> bool:
    return kind in ("probe", "curvature", "batch")


def _events(record: Record) -> Cells:
    events = sorted((e for e in record.events if not _is_shown_elsewhere(e.kind)), key=lambda e: e.step)
    rows = [(str(e.step), e.kind, words.place(e.layer, _LONGEST), words.event(e)) for e in events[:_MOST_EVENTS]]
    more = len(events) - _MOST_EVENTS
    rest = [(tell("and {number} more", number=more), "", "", "")] if more > 0 else []
    return (_("step"), _("event"), _("layer"), _("details")), [*rows, *rest]


def _experiments(record: Record) -> Cells:
    """What was tried on copies of the training when it had ended, each with its numbers."""
    probes = [e for e in record.happened("probe") if not is_of_worst(e)]
    rows = [
        (str(e.data.get("name")), _(_EXPERIMENTS.get(str(e.data.get("name")), "")), _numbers(e.data)) for e in probes
    ]
    return (_("experiment"), _("what was compared"), _("what it gave")), rows


def _numbers(data: Mapping[str, Any]) -> str:
    """The numbers of an experiment, rounded to what counts."""
    parts = [
        f"{key.replace('_', ' ')} {_rounded(value)}"
        for key, value in data.items()
        if key != "name" and value is not None
    ]
    return words.place(", ".join(parts), 1000)


def _rounded(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_rounded(item) for item in value[:12])
        return f"({shown}{', …' if len(value) > 12 else ''})"
    return words.number(value) if isinstance(value, float) else words.exact(value)


def _run(verdict: Verdict, record: Record) -> Cells:
    meta = record.meta
    overhead = meta.get("overhead")
    rows = [
        (_("command"), words.place(shlex.join(command(record)), 400)),
        (_("started"), words.moment(meta.get("started") or "")),
        (_("ended"), words.ending(record) or str(meta.get("status") or "")),
        (_("exit code"), str(meta.get("exit_code", "") if meta.get("exit_code") is not None else "")),
        (_("time"), words.duration(meta["seconds"]) if meta.get("seconds") is not None else ""),
        (_("steps"), str(record.steps or "")),
        (_("watching took"), words.percent(overhead) if overhead is not None else ""),
        (_("experiments took"), words.duration(meta["probe_seconds"]) if meta.get("probe_seconds") else ""),
        (_("curvature took"), words.duration(meta["curvature_seconds"]) if meta.get("curvature_seconds") else ""),
        *((name, str(meta.get(name) or "")) for name in ("device", "torch", "python", "unstuck")),
        (_("record"), str(verdict.run.get("record") or record.path or "")),
    ]
    return (_("what"), _("value")), [row for row in rows if row[1].strip()]


def without_empty(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Cells:
    """The table without columns that hold nothing."""
    keep = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return [header[i] for i in keep], [[row[i] for i in keep] for row in rows]


def _last(record: Record, signal: str, place: str) -> str:
    series = record.series(signal, place)
    return words.measured(signal, series.last) if len(series) else ""


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _range(facts: Any) -> str:
    if "min" not in facts or "max" not in facts:
        return ""
    return " … ".join(
        f"{value:.4g}" if isinstance(value, float) else words.exact(value) for value in (facts["min"], facts["max"])
    )
