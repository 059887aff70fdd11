"""What was seen: the `Record` of one run, as rules read it. Numpy only, never torch.

A record holds three kinds of evidence:

**Series**, one per `(signal, place)`: numbers by training step. `place` is a layer's name, a parameter's name, or `""`
for the whole program. A step is one update of the parameters (hand-written or by an optimizer), counted from 0.
Series of the whole program are dense (every step, NaN where not measured); those of layers and parameters exist at the
sampled steps only. Step 0 is always sampled.

| signal | place | meaning |
|---|---|---|
| `loss` | "" | the training loss: the tensor backward starts from (mean over accumulation) |
| `grad_norm` | "" | global L2 norm of the gradient the optimizer uses; NaN on steps where it was not measured |
| `lr` | "" or "opt.group" ("0.0", "1.0", "0.1") | learning rate; "" is the first group of the first optimizer |
| `batch_size` | "" | samples in the batch |
| `score` | "" | training score on the batch, by the name in `Task.score` (higher is better but for perplexity) |
| `eval_loss`, `eval_score` | "" | mean over an evaluation pass; step is the training step it followed |
| `loss_part` | line | value of a loss function over that of the tensor backward starts from: less than 1 beside penalties |
| `step_seconds` | "" | wall time of the step |
| `act_mean`, `act_std`, `act_max` | layer | the layer's output: mean, standard deviation, largest magnitude (finite ones) |
| `act_zero` | layer | share of outputs that are exactly zero |
| `act_nonfinite` | layer | share of outputs that are NaN or Inf |
| `act_saturated` | layer | share of outputs within 1% of a bound (bounded activations only) |
| `act_negative` | layer | share of outputs below zero |
| `act_between` | layer | deviation between samples over the total deviation: 0 when the output ignores its input |
| `dead_share` | layer | share of units with no output above zero in any sampled batch of the window (ReLU-like only) |
| `dead_window` | layer | sampled batches in that window |
| `back_rms`, `back_max`, `back_zero`, `back_nonfinite` | layer | the gradient of the loss by the layer's output |
| `grad_rms`, `grad_max`, `grad_zero`, `grad_nonfinite` | parameter | the gradient the optimizer uses |
| `weight_rms`, `weight_max`, `weight_nonfinite` | parameter | the parameter before the update |
| `update_ratio` | parameter | rms of the update over rms of the parameter (before it) |
| `stale_rms` | parameter | rms of `.grad` when the step's first backward begins, over its rms after it; 0 when cleared |
| `lag_grad` | layer (a `Vector`) | norm of the hidden state's gradient by time lag 0, 1, 2, ..., relative to lag 0 |
| `input_mean`, `input_std`, `input_min`, `input_max` | input | by feature (`Vector`s), of the model's input |
| `label_count` | "" (a `Vector`) | labels in the batch by class; of single bits how often they are 0 and 1 |
| `prediction_count` | "" (a `Vector`) | predicted labels in the batch, in the same way |
| `eval_input_mean`, `eval_input_std`, `eval_input_min`, `eval_input_max` | input | the same of some evaluated batches |
| `eval_label_count`, `eval_prediction_count` | "" (`Vector`s) | labels and predictions in those batches |
| `hessian_top`, `hessian_bottom` | "" | with `--curvature`, at a few steps: largest and smallest eigenvalue of the loss's Hessian |
| `sharpness` | "" | the same: the largest eigenvalue as the optimizer feels it, preconditioned where it does that |
| `stable_rate`, `edge` | "" | the same: the largest learning rate that this curvature bears, and the learning rate over it |

**Events**: things that happened once, see `Event`.

**Program**: what was learned of the script: models, layers with who feeds whom, parameters, optimizers, loss calls, task, data.

Everything here is made of frozen dataclasses with defaults, so that a rule's test writes a record in three lines:

    record = Record.of({("loss", ""): [2.3, 2.3, 2.3], ("back_rms", "fc1"): [1e-9]}, layers=[Layer("fc1", "linear")])

Numbers survive NaN: a series may hold NaN and Inf; `Series.finite` leaves them out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

SCHEMA = 1


@dataclass(frozen=True)
class Series:
    """Numbers by step.

    Attributes:
        steps: Training steps, ascending, shape `(samples,)`.
        values: The numbers, shape `(samples,)`; NaN and Inf are possible.
    """

    steps: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, values: Iterable[float], steps: Iterable[int] | None = None) -> Series:
        """A series from plain numbers, by default at steps 0, 1, 2, ..."""
        data = np.asarray(list(values), dtype=np.float64)
        where = np.arange(len(data)) if steps is None else np.asarray(list(steps), dtype=np.int64)
        return cls(where, data)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def finite(self) -> Series:
        """The part without NaN and Inf."""
        return self if self._finite is None else self._finite

    @functools.cached_property
    def _finite(self) -> Series | None:
        """The part without NaN and Inf, None when that is all; kept, as every rule asks for it."""
        keep = np.isfinite(self.values)
        return None if keep.all() else Series(self.steps[keep], self.values[keep])

    @property
    def first(self) -> float:
        """The first value, NaN when empty."""
        return float(self.values[0]) if len(self) else float("nan")

    @property
    def last(self) -> float:
        """The last value, NaN when empty."""
        return float(self.values[-1]) if len(self) else float("nan")

    def after(self, step: int) -> Series:
        """The part at `step` and later."""
        start = np.searchsorted(self.steps, step)
        return Series(self.steps[start:], self.values[start:])

    def until(self, step: int) -> Series:
        """The part before `step`."""
        end = np.searchsorted(self.steps, step)
        return Series(self.steps[:end], self.values[:end])

    def tail(self, share: float) -> Series:
        """The last `share` (0 to 1) of the samples, at least one where there is any."""
        count = max(1, round(len(self) * share))
        return Series(self.steps[-count:], self.values[-count:])

    def head(self, share: float) -> Series:
        """The first `share` (0 to 1) of the samples, at least one where there is any."""
        count = max(1, round(len(self) * share))
        return Series(self.steps[:count], self.values[:count])

    def median(self) -> float:
        """Median of the finite values, NaN when there are none."""
        return self._median

    @functools.cached_property
    def _median(self) -> float:
        values = self.finite.values
        return float(np.median(values)) if len(values) else float("nan")

    def thinned(self, points: int) -> Series:
        """A few of the samples, in which no spike is lost.

        Args:
            points: How many there are to be; two and more.

        Returns:
            The series itself when it has no more. Otherwise its first and last sample and, of each of `points // 2` equal parts, the
            smallest, the largest, and the first that is NaN or Inf.
        """
        buckets = max(1, points // 2)
        if len(self) <= 2 * buckets:
            return self
        width, wider = divmod(len(self), buckets)
        split = wider * (width + 1)
        keep = np.zeros(len(self), bool)
        keep[[0, -1]] = True
        for start, part in (
            (0, self.values[:split].reshape(wider, width + 1)),
            (split, self.values[split:].reshape(-1, width)),
        ):
            if part.size:
                keep[start + _extremes(part)] = True
        return Series(self.steps[keep], self.values[keep])


def _extremes(rows: np.ndarray) -> np.ndarray:
    """Where in the flattened array each row is smallest, largest, and first not finite."""
    start, finite = np.arange(len(rows)) * rows.shape[1], np.isfinite(rows)
    some, broken = finite.any(axis=1), ~finite.all(axis=1)
    low = np.where(finite, rows, np.inf).argmin(axis=1) + start
    high = np.where(finite, rows, -np.inf).argmax(axis=1) + start
    return np.concatenate([low[some], high[some], (finite.argmin(axis=1) + start)[broken]])


EMPTY = Series(np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True)
class Vector:
    """One vector-valued sample, such as the mean of every input feature at a step."""

    step: int
    values: np.ndarray


@dataclass(frozen=True)
class Event:
    """Something that happened at a step.

    Kinds and their data:
        `non-finite`: `what` (input, target, activation, loss, gradient, weight), `op`, `before` (its magnitude at the last
            good measurement, null when unknown), `how` (a few words), `empty` (it is a mean over no elements). `layer` is the first
            place. Only the first is kept.
        `eval-non-finite`: `what` (input, output): the first evaluation whose outputs hold a NaN, and whether its inputs do; `bad` of
            the `batches` that were looked at.
        `epoch`: `loader`, `epoch`: a pass over the training data began.
        `eval`: `passes`, `batches`, `train_mode` (evaluated with modules in train mode, though modes matter to them),
            `in_train_mode` (batches of which that is true), `samples` (of which the inputs were measured).
        `mode`: `model`, `training` (the mode it is trained in from this sampled step on; without such an event it is train
            mode), `dropout` and `batch_norm` (modules that are in evaluation mode: dropouts, and batch norms that aren't frozen).
        `carried-graph`: the graph a backward goes through reaches back past the step. `layer` took what is older; `steps` (how
            many steps back it reaches, at least), `nodes` (that are older; a few thousand at most are counted), `made_by` (name
            of the autograd node), `model`. The first few sampled steps are looked at, and more where it happens there. One step
            back is usual where two optimizers take turns.
        `burst`: `why`: dense measuring began because the sentinel jumped.
        `reloaded`: `model`: parameters were replaced by a loaded state.
        `site`: of a run that is to be cured: where in the user's files something is made or called. `what` (module, optimizer,
            loader, schedule, backward, step, zero_grad, train, eval), `file`, `line`; of modules `path` in their network, `root`
            (its class) and `name` (their own), of optimizers `index`.
        `inputs`: of such a run: `mean` and `std` by feature of all the network can be given, `all_mean`, `all_std`, `shape`, and
            the `variable` that holds it, "" when unknown.
        `watcher-error`: `where`, `error`: something in the watcher failed; measuring went on without it.
        `exception`: `type`, `message`: the script ended so.
        `probe`: `name` and the numbers of one experiment on copies, made when the script had ended (null where not finite), or its
            `error`; under the name `none`, `why` there were no experiments. The room `probes` says what the numbers mean.
        `curvature`: where it was asked for, `part` and the numbers of one part of what was measured of curvature when the script had
            ended, or how it `failed`; under `none`, `why` there is nothing. `probes.examination` says what the parts are.
        `batch`: where it was asked for, `part` and the numbers of one part of what was measured of batch sizes when the script had ended;
            under `none`, `why` there is nothing. `probes.batch` says what the parts are.
    """

    step: int
    kind: str
    layer: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """One place where the network computes: a module, or a functional call site.

    Attributes:
        name: "fc1", "net.0" (path in the model, behind the model's variable name where there are several models or the path
            starts with a number), or "train.py:31 relu" for a functional call.
        op: What it computes, in one vocabulary whatever was called: linear, conv, conv_transpose, embedding, matmul, bias,
            batch_norm, layer_norm, group_norm, instance_norm, rms_norm, relu, leaky_relu, prelu, elu, selu, celu, gelu, silu,
            mish, relu6, hardtanh, hardsigmoid, hardswish, softplus, softsign, sigmoid, logsigmoid, tanh, softmax,
            log_softmax, clamp, dropout, max_pool, avg_pool, flatten, reshape, cat, add, mul, div, exp, log, sqrt, pow, abs,
            argmax, round, rnn, lstm, gru, rnn_cell, lstm_cell, gru_cell, attention, loss, other.
        module: Class of the module the call was made in ("Linear"), "" outside modules.
        site: "file.py:31", the user's line the call came from.
        inputs: Names of the layers whose output it takes, directly.
        parameters: Names of the parameters it uses directly.
        out_shape: Shape of its output on the first batch.
        role: `hidden`, `output` (nothing but reshaping between it and the loss), or `loss` (part of the loss computation).
        model: Name of the model it belongs to, "" for plain tensors.
        calls: Calls a step: over 1 for shared and recurrent layers.
        settings: What its kind needs to be judged: `dim` of a softmax, `p` of a dropout, `min`/`max` of a clamp,
            `negative_slope` of leaky_relu, `inplace`; `hidden_size` of a recurrent layer; `bounds` of a bounded activation.
    """

    name: str
    op: str = "other"
    module: str = ""
    site: str = ""
    inputs: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    out_shape: tuple[int, ...] = ()
    role: str = "hidden"
    model: str = ""
    calls: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameter:
    """One tensor that could be trained.

    Attributes:
        name: As in `named_parameters`, with the model's variable name as layers have it; "w1" or "train.py:22" for plain tensors.
        shape: Its shape.
        layers: Names of the layers that use it.
        trainable: `requires_grad`.
        used: It took part in a forward pass that led to a backward.
        got_grad: It ever had a gradient (not None) at an update.
        optimizers: Indices into `Program.optimizers` of those that hold it.
        changed: It ever differed after an update; null when never compared.
        remade: Created anew each step: its place held a different tensor at every step.
        initial: At step 0: `mean`, `std`, `max`, `zero_share`, `identical_rows` (share of rows equal to another row), `fan_in`.
    """

    name: str
    shape: tuple[int, ...] = ()
    layers: tuple[str, ...] = ()
    trainable: bool = True
    used: bool = True
    got_grad: bool = True
    optimizers: tuple[int, ...] = (0,)
    changed: bool | None = True
    remade: bool = False
    initial: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Optimizer:
    """One optimizer, or an update written by hand (`kind` is then "hand-written").

    Attributes:
        kind: Class name, "SGD".
        module: Where the class comes from, "torch.optim.sgd".
        settings: Settings of the first group: lr, momentum, betas, weight_decay, ...
        steps: Updates made.
        groups: Parameter groups.
        num_parameters: Numbers (not tensors) it holds.
        closure: It calls forward and backward inside `step`.
        backwards_per_step: Median number of backward passes an update.
        schedule: Class name of its scheduler, "by hand" when its rate changed without one, "" when constant.
        cleared: `zero_grad`, or the like, was seen to clear the gradients between steps.
        clipping: "norm" or "value" with its limit, "" when none was seen.
    """

    kind: str = "SGD"
    module: str = "torch.optim.sgd"
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    groups: int = 1
    num_parameters: int = 0
    closure: bool = False
    backwards_per_step: float = 1.0
    schedule: str = ""
    cleared: bool = True
    clipping: str = ""


@dataclass(frozen=True)
class LossCall:
    """One place where a loss is computed from outputs and targets.

    Attributes:
        name: cross_entropy, nll_loss, mse_loss, l1_loss, smooth_l1_loss, huber_loss, binary_cross_entropy,
            binary_cross_entropy_with_logits, kl_div, hinge_embedding_loss, ctc_loss, ...; "hand-written" when made of plain operations.
        site: "file.py:31".
        layer: Name of the layer whose output it takes, "" when unknown.
        chain: Ops that lead to it from the last layer with parameters, nearest last: ("linear", "softmax").
        loss_ops: For hand-written losses: the ops from output to loss, in order: ("log", "mul", "sum", "neg").
        output_shape, target_shape: Shapes as they came in.
        target_kind: "class index", "one-hot", "binary", "multi-label", "probability", "real", "none".
        num_classes: Size of the class axis, 0 for regression.
        reduction: mean, sum, none, "" when unknown.
        output: Of the outputs over the sampled batches: `min`, `max`, `mean`, `std`, `sums_to_one` (share of rows that are
            non-negative and sum to one), `log_sums_to_one` (rows whose exp sums to one), `constant` (share of rows equal to the first).
        target: Of the targets: `min`, `max`, `mean`, `std`, `unique` (number of distinct values seen), `integer` (all are whole numbers).
        trains: A backward started from it (false for losses that are only evaluated).
        calls: Times it was called while training.
        divisor: What a sum is divided by before backward; 1 where that is nothing, or unknown.
    """

    name: str
    site: str = ""
    layer: str = ""
    chain: tuple[str, ...] = ()
    loss_ops: tuple[str, ...] = ()
    output_shape: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()
    target_kind: str = "none"
    num_classes: int = 0
    reduction: str = "mean"
    output: Mapping[str, float] = field(default_factory=dict)
    target: Mapping[str, float] = field(default_factory=dict)
    trains: bool = True
    calls: int = 0
    divisor: float = 1.0


@dataclass(frozen=True)
class Task:
    """What is to be learned, and what chance gets.

    Attributes:
        kind: classification, binary, multi-label, regression, tokens, unknown.
        num_classes: Classes, 0 for regression.
        score: accuracy, r2, bit_accuracy, perplexity, or "" when none could be computed.
        chance_loss: The main loss of the best constant prediction (label entropy, target variance, ...), NaN when unknown.
        chance_score: The score of the best constant prediction, NaN when unknown.
        target_mean, target_std: Of regression targets, over the sampled batches.
        label_share: Share of each class over the sampled batches.
    """

    kind: str = "unknown"
    num_classes: int = 0
    score: str = ""
    chance_loss: float = float("nan")
    chance_score: float = float("nan")
    target_mean: float = float("nan")
    target_std: float = float("nan")
    label_share: tuple[float, ...] = ()


@dataclass(frozen=True)
class Model:
    """One network: a root module (called from outside any other), or plain tensors.

    Attributes:
        name: The variable that holds it ("model"), else its class.
        kind: Class of the module, "tensors" when there is none.
        num_parameters: Numbers in its parameters.
        trained: A backward reached it.
        wrapped_by: Wrappers around it: DistributedDataParallel, OptimizedModule, ...
        input_shape: Shape of the first tensor it was given.
        mode: "train", "eval" or "both": modes it was in while it was trained.
    """

    name: str
    kind: str = "Module"
    num_parameters: int = 0
    trained: bool = True
    wrapped_by: tuple[str, ...] = ()
    input_shape: tuple[int, ...] = ()
    mode: str = "train"


@dataclass(frozen=True)
class Data:
    """Where batches come from.

    Attributes:
        batch_size: Samples a batch, 0 when unknown.
        batch_from: "loader", "input", "loss": what told the size.
        loader: Class of the training loader, "" when there is none.
        epochs: Passes over it that began, 0 when unknown.
        batches_per_epoch: Batches a pass, 0 when unknown.
        shuffled: Whether the loader's sampler shuffles; null when unknown.
        num_samples: Samples in the training set: the loader's, or of the tensor that batches are cut out of; 0 when unknown.
        eval_passes: Evaluation passes seen.
    """

    batch_size: int = 0
    batch_from: str = ""
    loader: str = ""
    epochs: int = 0
    batches_per_epoch: int = 0
    shuffled: bool | None = None
    num_samples: int = 0
    eval_passes: int = 0


@dataclass(frozen=True)
class Program:
    """What was learned of the script. Layers come in forward order; the first optimizer, loss and model are the main ones."""

    models: tuple[Model, ...] = ()
    layers: tuple[Layer, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    optimizers: tuple[Optimizer, ...] = ()
    losses: tuple[LossCall, ...] = ()
    task: Task = Task()
    data: Data = Data()
    features: tuple[
        str, ...
    ] = ()  # "autocast", "GradScaler", "torch.compile", "DistributedDataParallel", "Lightning", ...
    not_found: tuple[str, ...] = ()  # sentences: "no DataLoader was used, so epochs are unknown"

    @property
    def main_loss(self) -> LossCall | None:
        """The loss the run is about, None when none was seen."""
        return next((call for call in self.losses if call.trains), None)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Program:
        """The program from what `to_json` gave; unknown keys are left out, missing ones have their defaults."""
        return _build(cls, data)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists."""
        return _plain(self)


_PARTS: dict[str, type] = {
    "models": Model, "layers": Layer, "parameters": Parameter, "optimizers": Optimizer, "losses": LossCall,
    "task": Task, "data": Data,
}  # fmt: skip


_T = TypeVar("_T")


def _plain(value: Any) -> Any:
    """Dicts and lists of what a dataclass holds, as `dataclasses.asdict` has them but without copies of what never changes."""
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        return {name: _plain(getattr(value, name)) for name in fields}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _build(cls: type[_T], data: Mapping[str, Any]) -> _T:
    known = {f.name for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    values = {key: _value(cls, key, value) for key, value in data.items() if key in known}
    return cls(**values)


def _value(cls: type, key: str, value: Any) -> Any:
    if cls is Program and key in _PARTS:
        part = _PARTS[key]
        return _build(part, value) if isinstance(value, Mapping) else tuple(_build(part, v) for v in value)
    if value is None and isinstance(cls.__dataclass_fields__[key].default, float):  # JSON has no NaN
        return float("nan")
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Record:
    """One run, as far as it was written.

    Attributes:
        program: What was learned of the script.
        meta: script, argv, status (`running`, `finished`, `failed`, `interrupted`, `killed`), exit_code, seconds, steps,
            overhead (share of the run's time the watcher took), budget, started (ISO time), python, torch, unstuck, device.
        path: The file it was read from, None when made by hand.
    """

    program: Program = Program()
    meta: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    path: Path | None = None
    _series: Mapping[tuple[str, str], Series] = field(default_factory=dict)
    _vectors: Mapping[tuple[str, str], tuple[Vector, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        series: Mapping[tuple[str, str], Sequence[float] | Series] | None = None,
        *,
        vectors: Mapping[tuple[str, str], Sequence[Sequence[float]]] | None = None,
        events: Sequence[Event] = (),
        meta: Mapping[str, Any] | None = None,
        **program: Any,
    ) -> Self:
        """A record written by hand.

        Args:
            series: Numbers by `(signal, place)`, at steps 0, 1, 2, ... unless given as `Series`.
            vectors: Vector samples by `(signal, place)`, at steps 0, 1, 2, ...
            events: What happened.
            meta: Facts of the run; `steps` defaults to the length of the longest series.
            **program: Fields of `Program`: layers, parameters, optimizers, losses, task, data, ...

        Returns:
            The record.
        """
        made = {key: v if isinstance(v, Series) else Series.of(v) for key, v in (series or {}).items()}
        steps = max((int(s.steps[-1]) + 1 for s in made.values() if len(s)), default=0)
        vecs = {
            key: tuple(Vector(i, np.asarray(v, np.float64)) for i, v in enumerate(rows))
            for key, rows in (vectors or {}).items()
        }
        parts: dict[str, Any] = {key: v if not isinstance(v, list) else tuple(v) for key, v in program.items()}
        return cls(
            Program(**parts), {"steps": steps, "status": "finished", **(meta or {})}, tuple(events), None, made, vecs
        )

    @classmethod
    def read(cls, path: str | Path) -> Record:
        """The record in a file or run folder, also while it is being written.

        Args:
            path: The record's file, or the folder of a run.

        Returns:
            Everything flushed so far. A damaged end is left out.

        Raises:
            RecordError: There is no record, it is not one, or it was written by a newer version.
        """  # noqa: DOC502
        from unstuck.store import read

        return read(path)

    def series(self, signal: str, place: str = "") -> Series:
        """The series of a signal at a place; an empty one when it was never measured."""
        return self._series.get((signal, place), EMPTY)

    def vectors(self, signal: str, place: str = "") -> tuple[Vector, ...]:
        """The vector samples of a signal at a place, by step."""
        return self._vectors.get((signal, place), ())

    def places(self, signal: str) -> list[str]:
        """Places that have this signal, as series or as vectors, in forward order where they are layers."""
        return list(self._places.get(signal, ()))

    @functools.cached_property
    def _places(self) -> dict[str, list[str]]:
        found: dict[str, dict[str, None]] = {}
        for name, place in (*self._series, *self._vectors):
            found.setdefault(name, {})[place] = None
        rank = {layer.name: i for i, layer in enumerate(self.program.layers)}
        return {name: sorted(places, key=lambda place: rank.get(place, len(rank))) for name, places in found.items()}

    def signals(self) -> list[str]:
        """Names of all signals measured."""
        return sorted({name for name, _ in (*self._series, *self._vectors)})

    def happened(self, kind: str) -> list[Event]:
        """Events of a kind, by step."""
        return sorted((e for e in self.events if e.kind == kind), key=lambda e: e.step)

    @functools.cached_property
    def layers(self) -> dict[str, Layer]:
        """Layers by name, in forward order."""
        return {layer.name: layer for layer in self.program.layers}

    @functools.cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Parameters by name."""
        return {p.name: p for p in self.program.parameters}

    @property
    def steps(self) -> int:
        """Updates made."""
        return int(self.meta.get("steps") or 0)

    def __repr__(self) -> str:
        told = (self.meta.get("script"), self.meta.get("status"), f"{self.steps} steps", f"{len(self._series)} series")
        return f"<Record {self.path or 'made by hand'}: {', '.join(str(part) for part in told if part)}>"


def remembered(function: Callable[[Record], _T]) -> Callable[[Record], _T]:
    """A function of a record alone, which is worked out once for each record.

    Args:
        function: It is not changed by anything but the record, whose answer others must not change.

    Returns:
        The same, with a memory.
    """
    name = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def ask(record: Record) -> _T:
        known = record.__dict__.setdefault("_remembered", {})
        if name not in known:
            known[name] = function(record)
        return known[name]

    return ask
