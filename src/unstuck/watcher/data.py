"""Where batches come from, how large they are, and when the script evaluates instead of training."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unstuck.evidence import Data, Event
from unstuck.probes.tape import walk
from unstuck.signals import summary
from unstuck.watcher.labels import evaluated_labels, label_counts
from unstuck.watcher.losses import LossBook
from unstuck.watcher.patches import Patches, like
from unstuck.watcher.recorder import Columns, Sample
from unstuck.watcher.registry import Registry
from unstuck.watcher.scores import evaluated
from unstuck.watcher.transparent import transparent

EVAL_BATCHES = 8  # of an evaluation pass that are looked at
EVAL_EVENTS = 400
MODE_EVENTS = 20
OWN_TARGETS = 4  # sampled steps that do so, from which on a network is said to make its own targets
_FEATURES = ("mean", "std", "min", "max")
_clock = time.perf_counter


class LoaderState:
    """One DataLoader while it is watched."""

    def __init__(self, loader: Any) -> None:
        self.ref = weakref.ref(loader)
        self.kind = type(loader).__name__
        sampler = getattr(loader, "batch_sampler", None)
        size = getattr(sampler, "batch_size", None) or getattr(loader, "batch_size", None)
        self.batch_size = int(size) if isinstance(size, int) else 0
        self.passes = self.batches = self.trained = self.trained_passes = 0
        self.trained_in_pass = False
        self.longest = 0
        self.shuffled = _shuffled(loader)
        try:
            self.num_samples = len(loader.dataset)
        except (TypeError, AttributeError, NotImplementedError):
            self.num_samples = 0


class DataBook:
    """Keeps what is learned of loaders, batches and evaluation passes."""

    def __init__(self) -> None:
        self.loaders: list[LoaderState] = []
        self.batch_size = self.input_batch = 0
        self.cut_from = 0  # rows of the tensor that batches are cut out of
        self.inputs_seen = 0
        self.evaluating = False
        self.eval_passes = 0
        self._iterators: weakref.WeakKeyDictionary[Any, LoaderState] = weakref.WeakKeyDictionary()
        self._last: LoaderState | None = None
        self._drawn_from: Callable[[], Any] = lambda: None  # the iterator that the last batch came from, while it lives
        self.batch: list[weakref.ref[Tensor]] = []
        self._eval_batches = 0
        self._eval_in_train_mode = 0  # batches of this pass
        self._eval_batch: list[Tensor] = []  # kept until it is scored, when the next one has come
        self._eval_results: list[Tensor] = []
        self._eval_roots: set[int] = set()
        self._interrupted = False
        self._entry: weakref.ref[nn.Module] | None = None  # the module that the measured input was given to
        self._eval_inputs: list[Tensor] = []  # of this pass
        self._eval_labels: list[Tensor] = []
        self._eval_bad: list[Tensor] = []  # of each batch whether its outputs, and its inputs, hold what is no number
        self._told_bad = False
        self._own_targets = 0  # sampled steps that call the trained network, or a copy, without gradients
        self._foreign = False  # what is called without gradients is another model than is trained
        self.trained_models: set[str] = set()  # names
        self._eval_samples = 0  # whose inputs were measured in this pass
        self._training_modes: dict[str, bool] = {}
        self._mode_events = 0

    def attach(self, patches: Patches, guard: Callable[..., None]) -> None:
        """Watches torch's DataLoader."""
        from torch.utils.data import dataloader

        begin, following = dataloader.DataLoader.__iter__, dataloader._BaseDataLoaderIter.__next__
        book = self

        def iterate(self: Any) -> Any:
            iterator = begin(self)
            guard("loader", book._pass_began, self, iterator)
            return iterator

        def advance(self: Any) -> Any:
            batch = following(self)
            guard("loader", book._batch_came, self, batch)
            return batch

        patches.replace(dataloader.DataLoader, "__iter__", transparent(like(iterate, begin)))
        patches.replace(dataloader._BaseDataLoaderIter, "__next__", transparent(like(advance, following)))

    def _pass_began(self, loader: Any, iterator: Any) -> None:
        state = next((s for s in self.loaders if s.ref() is loader), None)
        if state is None:
            state = LoaderState(loader)
            self.loaders.append(state)
        state.passes += 1
        state.batches = 0
        state.trained_in_pass = False
        self._iterators[iterator] = state

    def _batch_came(self, iterator: Any, batch: Any) -> None:
        state = self._last
        if state is None or self._drawn_from() is not iterator:
            state = self._iterators.get(iterator)
            if state is None:
                return
            self._last, self._drawn_from = state, weakref.ref(iterator)
        state.batches += 1
        if state.batches > state.longest:
            state.longest = state.batches
        items = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (tuple, list)) else (batch,)
        self.batch = [weakref.ref(t) for t in items if isinstance(t, Tensor)]

    def trains_on(self) -> bool:
        """A backward follows the last batch, as others of this pass did; False, and nothing noted, when it is the first."""
        state = self._last
        if state is None:
            return True
        if not state.trained_in_pass:
            return False
        state.trained += 1
        return True

    def trains(self, session: Any) -> None:
        """A backward follows the last batch that came."""
        state = self._last
        if state is None:
            return
        state.trained += 1
        if not state.trained_in_pass:
            state.trained_in_pass = True
            state.trained_passes += 1
            self.settle_batch_size()
            if state.trained_passes <= EVAL_EVENTS:
                data = {"loader": self.loaders.index(state), "epoch": state.trained_passes - 1}
                session.event(Event(session.step, "epoch", "", data))

    @property
    def last_loader(self) -> Any:
        """The loader that the last batch came from, None when there was none."""
        return self._last.ref() if self._last is not None else None

    @property
    def training_loader(self) -> LoaderState | None:
        """The loader that most backwards followed."""
        return max((s for s in self.loaders if s.trained), key=lambda s: s.trained, default=None)

    def settle_batch_size(self) -> None:
        """Decides what the batch size is: the loader's, else the input's; 0 when neither is known."""
        loader = self.training_loader
        self.batch_size = loader.batch_size if loader is not None and loader.batch_size else self.input_batch

    def saw_input(self, module: nn.Module, first: Tensor) -> None:
        """The first tensor a model was given while training."""
        axis = 1 if first.dim() > 1 and _time_first(module) else 0
        self.input_batch = int(first.shape[axis])
        self.settle_batch_size()

    def measure_input(
        self,
        inputs: list[tuple[str, Tensor]],
        sample: Sample,
        place: str = "input",
        *,
        entered: Iterable[tuple[nn.Module, Tensor]] = (),
    ) -> None:
        """Measures, by feature, the first data that met parameters; evaluation is measured at the module it was given to."""
        data = next((t for _, t in inputs if _has_features(t)), None)
        if data is None:
            return
        self._entry = next((weakref.ref(module) for module, t in entered if t is data), self._entry)
        if not self.input_batch:
            self.input_batch = int(data.shape[0])
            self.settle_batch_size()
        if self.inputs_seen >= 24 and sample.step & (sample.step - 1):
            return
        self.inputs_seen += 1

        def means(columns: Columns, numbers: np.ndarray) -> None:
            for name, row in zip(_FEATURES, numbers, strict=True):
                columns.vectors.append((f"input_{name}", place, row))

        sample.put((place, "features"), summary.features(data), means)

    def count_labels(self, losses: LossBook, sample: Sample) -> None:
        """Counts labels and predictions of losses on single bits; those by class are counted where the loss is read."""
        main, (output, target) = losses.main, losses.leading
        if main is None or main.kind not in ("binary", "multi-label") or output is None or target is None:
            return
        counts = label_counts(main, output, target)

        def labels(columns: Columns, numbers: np.ndarray) -> None:
            columns.vectors.append(("label_count", "", numbers[0].copy()))
            columns.vectors.append(("prediction_count", "", numbers[1].copy()))

        if counts is not None:
            sample.put(("bits", main.site), counts, labels)

    def saw_mode(self, session: Any, model: str, module: nn.Module) -> None:
        """A model is trained in the mode it is in now; told when that changes, and at first when it is evaluation mode."""
        known = self._training_modes.get(model, True)
        self._training_modes[model] = module.training
        if module.training == known or self._mode_events >= MODE_EVENTS:
            return
        self._mode_events += 1
        off = [m for m in module.modules() if not m.training]
        about = {
            "model": model, "training": module.training,
            "dropout": sum(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in off),
            "batch_norm": sum(isinstance(m, nn.modules.batchnorm._BatchNorm) and _tracks(m) for m in off),
        }  # fmt: skip
        session.event(Event(session.step, "mode", "", about))

    # --- evaluation

    def eval_batch(self, session: Any, module: nn.Module) -> None:
        """A model is called without gradients: an evaluation pass goes on, or begins."""
        tracer = session.tracer
        if not self.evaluating:
            if (
                tracer.on and tracer.measure and tracer.trace.used
            ):  # a step's forward pass has begun: a target network, a teacher, ...
                self._own_targets += not self._is_foreign(session.registry, module)
                if self._own_targets == OWN_TARGETS:
                    session.features.setdefault("targets of its own")
                return
            self.evaluating = True
            self._foreign = self._is_foreign(session.registry, module)
            self.eval_passes += not self._foreign
            self._eval_batches = 0
            self._eval_in_train_mode = 0
            self._eval_results.clear()
            self._eval_inputs.clear()
            self._eval_labels.clear()
            self._eval_bad.clear()
            self._eval_samples = 0
            self._eval_roots.clear()
            self._interrupted = tracer.on  # a sample of the coming step had begun
            if tracer.on:
                tracer.restart(measure=False)
        if not self._eval_roots or id(module) in self._eval_roots:  # several models may work on one batch
            self.collect(session)
            self._eval_roots.clear()
            self._eval_batch = [t for ref in self.batch if (t := ref()) is not None]
            self._eval_batches += 1
            self._eval_in_train_mode += module.training and _mode_matters(module)
        self._eval_roots.add(id(module))
        few = self._eval_batches <= EVAL_BATCHES or session.cadence.all_evaluations
        wanted = few and session.cadence.wants_eval()
        if wanted and not tracer.on:
            tracer.switch_on(measure=False)
        elif not wanted and not self._interrupted:
            tracer.switch_off()
        tracer.open = wanted

    def compared_with(self, targets: Any) -> None:
        """Told what the evaluated batch is compared with, by one who knows it: no loader gave it."""
        if self.evaluating and isinstance(targets, Tensor):
            self._eval_batch = [targets]

    def collect(self, session: Any) -> None:
        """Takes what the last evaluated forward pass showed."""
        tracer = session.tracer
        if not tracer.on or tracer.measure:
            return
        start = _clock()
        if not self._foreign and not any(
            seen.result is not None for seen in tracer.trace.losses
        ):  # else it is trained by
            self._look_at_results(tracer.trace, session.losses)
        session.cadence.eval_spent += _clock() - start
        cost = 2e-6 * tracer.seen  # what a call costs that comes by the tracer and isn't measured
        session._own += cost
        session.cadence.eval_spent += cost + 1e-4
        tracer.restart(measure=False)

    def _look_at_results(self, trace: Any, losses: LossBook) -> None:
        result = evaluated(trace, losses.main, self._eval_batch)
        if result is not None:
            self._eval_results.append(result)
        entry = self._entry() if self._entry is not None else None
        data = next((t for module, t in trace.entered if module is entry), None)
        self._look_at_inputs(data)
        self._look_at_labels(trace, losses)
        self._look_for_nan(trace, data)

    def _is_foreign(self, registry: Registry, module: nn.Module) -> bool:
        """Whether a module belongs to another model than is trained, nor is a copy of one, as an average of weights is."""
        model = registry.model_of(module)
        if model is None or not self.trained_models:
            return False
        alike = {(m.kind, m.num_parameters) for m in registry.models if m.name in self.trained_models}
        return model.name not in self.trained_models and (model.kind, model.num_parameters) not in alike

    def end_eval(self, session: Any) -> None:
        """Training goes on: the evaluation pass is over."""
        if not self.evaluating:
            return
        self.collect(session)
        self._eval_batch = []
        self.evaluating = False
        if self._interrupted:
            session.tracer.restart(measure=True)
        else:
            session._stop_tracing()
        self._send_bad(session, max(0, session.step - 1))
        if not self._eval_results:
            return
        if self.eval_passes <= EVAL_EVENTS:
            about = {
                "passes": self.eval_passes, "batches": self._eval_batches, "train_mode": self._eval_in_train_mode > 0,
                "in_train_mode": self._eval_in_train_mode, "samples": self._eval_samples,
            }  # fmt: skip
            session.event(Event(session.step, "eval", "", about))
        step = max(0, session.step - 1)
        self._send_inputs(session, step)
        self._send_labels(session, step)
        device = self._eval_results[-1].device
        stacked = torch.stack([r.float().to(device, non_blocking=True) for r in self._eval_results])
        session.pending.send(
            stacked.reshape(-1), lambda numbers: self._evaluated(session, step, numbers.reshape(-1, 3))
        )
        self._eval_results = []

    def _evaluated(self, session: Any, step: int, rows: np.ndarray) -> None:
        """Rows hold loss, score and weight (samples) of each batch looked at."""
        weights = np.where(np.isfinite(rows[:, 2]), rows[:, 2], 1.0)
        found = []
        for signal, column in (("eval_loss", rows[:, 0]), ("eval_score", rows[:, 1])):
            good = ~np.isnan(column)
            if good.any():
                found.append((signal, float(np.average(column[good], weights=weights[good]))))
        if found and session.writer is not None:
            session.writer.sample(
                step, tuple((name, "") for name, _ in found), np.asarray([value for _, value in found], np.float32)
            )

    def _look_at_inputs(self, data: Tensor | None) -> None:
        """Measures what the module got to which the training's input goes, in the 1st, 2nd, 4th and 8th batch of a pass."""
        count = self._eval_batches
        if data is None or not _has_features(data) or count & (count - 1):
            return
        found = summary.features(data)
        if not self._eval_inputs or found.shape == self._eval_inputs[0].shape:
            self._eval_inputs.append(found)
            self._eval_samples += int(data.shape[0])

    def _look_for_nan(self, trace: Any, data: Tensor | None) -> None:
        """Whether there is a NaN among the outputs; minus infinity is usual there, under a mask."""
        found = (next((t for _, t in walk(o) if _is_real(t)), None) for o in trace.root_outputs)
        outputs = [t for t in found if t is not None and t.numel()]
        if self._told_bad or not outputs:
            return
        bad = torch.stack([t.detach().isnan().any() for t in outputs if t.device == outputs[0].device]).any()
        inputs = torch.zeros_like(bad)
        if data is not None and _is_real(data):
            inputs = data.detach().isfinite().all().logical_not()
        self._eval_bad.append(torch.stack([bad, inputs.to(bad.device)]).float())

    def _look_at_labels(self, trace: Any, losses: LossBook) -> None:
        counts = evaluated_labels(trace, losses.main, self._eval_batch)
        if counts is not None and (not self._eval_labels or counts.shape == self._eval_labels[0].shape):
            self._eval_labels.append(counts)

    def _send_inputs(self, session: Any, step: int) -> None:
        if not self._eval_inputs:
            return
        stacked = torch.stack(self._eval_inputs)
        shape, self._eval_inputs = tuple(stacked.shape), []

        def arrived(numbers: np.ndarray) -> None:
            mean, std, low, high = numbers.reshape(shape).swapaxes(0, 1)
            rows = (mean.mean(0), np.sqrt((std**2).mean(0) + mean.var(0)), low.min(0), high.max(0))
            for name, row in zip(_FEATURES, rows, strict=True):
                session.writer.vector(step, f"eval_input_{name}", "input", row.astype(np.float32))

        if session.writer is not None:
            session.pending.send(stacked.reshape(-1), arrived)

    def _send_bad(self, session: Any, step: int) -> None:
        if not self._eval_bad:
            return
        stacked = torch.stack(self._eval_bad)
        self._eval_bad, passes = [], self.eval_passes

        def arrived(numbers: np.ndarray) -> None:
            outputs, inputs = numbers.reshape(-1, 2).T > 0
            if outputs.any() and not self._told_bad:
                self._told_bad = True
                what = "input" if (outputs & inputs).any() else "output"
                about = {"what": what, "passes": passes, "bad": int(outputs.sum()), "batches": len(outputs)}
                session.event(Event(step, "eval-non-finite", "", about))

        session.pending.send(stacked.reshape(-1), arrived)

    def _send_labels(self, session: Any, step: int) -> None:
        if not self._eval_labels:
            return
        total = torch.stack(self._eval_labels).sum(0)
        self._eval_labels = []

        def arrived(numbers: np.ndarray) -> None:
            labels, predictions = numbers.reshape(2, -1)
            session.writer.vector(step, "eval_label_count", "", labels.copy())
            session.writer.vector(step, "eval_prediction_count", "", predictions.copy())

        if session.writer is not None:
            session.pending.send(total.reshape(-1), arrived)

    # --- facts

    def facts(self) -> Data:
        """What is known."""
        loader = self.training_loader
        if loader is None:
            batch_from = "input" if self.input_batch else ""
            return Data(self.input_batch, batch_from, num_samples=self.cut_from, eval_passes=self.eval_passes)
        return Data(
            self.batch_size, "loader" if loader.batch_size else "input", loader.kind, loader.trained_passes, loader.longest,
            loader.shuffled, loader.num_samples, self.eval_passes,
        )  # fmt: skip


def _shuffled(loader: Any) -> bool | None:
    sampler = getattr(loader, "sampler", None)
    batch_sampler = getattr(loader, "batch_sampler", None)
    for kind in (
        type(batch_sampler).__name__,
        type(getattr(batch_sampler, "sampler", None)).__name__,
        type(sampler).__name__,
    ):
        if "Random" in kind or "Shuffle" in kind or "Weighted" in kind:
            return True
    if type(sampler).__name__ == "DistributedSampler":
        return bool(getattr(sampler, "shuffle", True))
    return False if type(sampler).__name__ == "SequentialSampler" else None


def _time_first(module: nn.Module) -> bool:
    return any(getattr(m, "batch_first", None) is False for m in module.modules())


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout == torch.strided


def _has_features(tensor: Tensor) -> bool:
    return _is_real(tensor) and tensor.dim() > 1 and tensor.numel() > 0


def _tracks(module: nn.Module) -> bool:
    """Whether a batch norm keeps running statistics, and isn't frozen."""
    weight = module._parameters.get("weight")
    return getattr(module, "running_mean", None) is not None and (weight is None or weight.requires_grad)


def _mode_matters(module: nn.Module) -> bool:
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    return any(isinstance(m, kinds) and getattr(m, "p", 1.0) != 0.0 for m in module.modules())
