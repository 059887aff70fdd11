"""One watched training: from the first call of torch to the last flush.

The session stands between torch and the rooms of the watcher and holds the step's clock. Data flow one way:

    entrances -> Session -> Tracer (sampled steps) -> Sample -> Pending -> store.Writer
                           -> DenseSeries, Alarms (every step); Stretch (the plain ones between samples, together)
                           -> books: what is known of models, parameters, optimizers, losses, data -> Program

**Steps.** A step ends when the lead optimizer has stepped: the first one to step, or, when that one has fallen silent,
the one that goes on. Without an optimizer, a step ends when parameters are found changed at the next backward.
**Backwards** in a step are told apart by the user's line they are called from: the first line seen under a lead is the main one,
its loss is the run's; several backwards from one line are accumulation.

Nothing here may raise into the script: every entry is guarded, and what fails is noted in the record as a `watcher-error`.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.evidence import Event
from unstuck.store import Writer
from unstuck.watcher import entrances, keras
from unstuck.watcher.alarms import Alarms
from unstuck.watcher.cadence import Cadence
from unstuck.watcher.capture import Capture
from unstuck.watcher.carried import CarriedGraphs
from unstuck.watcher.data import DataBook
from unstuck.watcher.facts import program_of
from unstuck.watcher.layers import layer_columns, recurrent_lags
from unstuck.watcher.losses import LossBook
from unstuck.watcher.optimizers import OptimizerBook, OptimizerState
from unstuck.watcher.parameters import ParameterBook
from unstuck.watcher.patches import Patches
from unstuck.watcher.recorder import Columns, Pending, Sample, send_sample
from unstuck.watcher.registry import Registry
from unstuck.watcher.series import DenseSeries
from unstuck.watcher.snapshots import Snapshots
from unstuck.watcher.stretch import Stretch
from unstuck.watcher.tracer import Tracer, call_site

_clock = time.perf_counter
_unseen = torch._C.DisableTorchFunction  # our own calls don't come by the tracer, nor by a user's mode
_PROGRESS_EVERY = 0.25  # seconds
_MOST_MARKS = 2000
LEAST_PROBING, MOST_PROBING = 2.0, 60.0  # seconds that experiments may take in any case, and at most
LEAST_CURVING = 2.0  # the same of curvature, which was asked for and has no limit but its share
_LARGE = 1 << 30  # bytes of a network up to which its curvature is measured
_LAG_SAMPLES = frozenset(
    {0, 3, 10, 30, 100, 300, 1000}
)  # samples in which recurrent layers are asked how far back they reach


class Session:
    """Watches this process until it is closed.

    Args:
        path: File of the record.
        budget: Share of the training's time the watcher may take, from 0 to 1.
        probe_budget: Share of the training's time that experiments may take when it has ended, from 0 (none) to 1.
        curvature: How curvature is measured when the training has ended: `share` of its time or `seconds`, and see
            `watcher.curving`; None for not at all.
        batch: How it is measured which batch size is best, see `watcher.batching`: `seconds`; None for not at all.
        lazy: Make the record only once a training is seen.
        late: The program has run before: what it has compiled isn't known.
        meta: Facts of the run to note in the record.

    Raises:
        RecordError: The record can't be made.
    """

    def __init__(
        self,
        path: Path,
        *,
        budget: float = 0.02,
        probe_budget: float = 0.0,
        curvature: Mapping[str, Any] | None = None,
        batch: Mapping[str, Any] | None = None,
        lazy: bool = False,
        late: bool = False,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.lazy, self.late = path, lazy, late
        self.meta = {
            **(meta or {}),
            "budget": budget,
            "pid": os.getpid(),
            "torch": torch.__version__,
            "status": "running",
        }
        self.writer: Writer | None = None if lazy else Writer(path, meta=self.meta)
        self.registry = Registry()
        self.tracer = Tracer(self.registry, self.failed)
        self.probe_budget = probe_budget
        self.curvature, self.batch = curvature, batch
        self.marks: list[tuple[int, float]] = []  # steps, and the processor time of this thread until then
        along = curvature is not None or batch is not None
        keeps = probe_budget > 0 or along
        self.capture = Capture(wanted=keeps, most_bytes=_LARGE if along else 0)
        self.snapshots = Snapshots() if along else None
        self.tracer.records = keeps
        self.cadence = Cadence(budget)
        self.optimizers = OptimizerBook(self.registry)
        self.parameters = ParameterBook(self.registry, self.optimizers, self._normed)
        self.losses = LossBook(self.registry)
        self.data = DataBook()
        self.pending = Pending()
        self.series = DenseSeries(self.pending)
        self.alarms = Alarms(self.registry, self.parameters, self.cadence, self._tell)
        self.carried = CarriedGraphs()
        self.stretch = Stretch(self)
        self.patches = Patches()
        self.survey: Any = None  # of a run that is to be cured
        self.features: dict[str, None] = {}
        self.step = 0
        self.sample: Sample | None = None
        self.closed = False
        self.started = _clock()
        self._step_started = self.started
        self._own = 0.0  # seconds of this step spent here
        self._in_backward = False
        self._backwards = 0  # in this step
        self._traced: dict[str, None] = {}  # sites of the backwards that were traced in this step
        self._site = ""
        self._in_step = False  # an optimizer is stepping; it may call backward itself
        self._awaits = False  # an update by hand may follow
        self._awaiting: Sample | None = None
        self._events: list[Event] = []  # until there is a record
        self._errors: set[str] = set()
        self._exit: dict[str, Any] = {}
        self._samples = 0
        self._progress_at = 0.0
        self._norm_stride = 1  # steps between looks at the gradient's norm
        self._norm_costs = deque[float](maxlen=4)  # seconds of the last looks; the least is what one costs by itself
        self._lines: dict[tuple[CodeType, int], str] = {}  # sites of the lines that call backward
        self._quiet: list[bool] = []  # not empty while a module call with gradients is nothing to us
        self._stance: Any = None
        self._met_keras = False

    # ------------------------------------------------------------------ attach and detach

    def attach(self) -> None:
        """Replaces what must be replaced in torch and begins to look."""
        entrances.replace(self)
        self.data.attach(self.patches, self.guard)
        self.optimizers.attach(self.patches, self.guard, self.features)
        if not self.lazy:
            self._begin_sample(0)

    def _gradients_given(self, wanted: list[Tensor], found: Any) -> None:
        self.parameters.given(wanted, list(found))
        self._backward_over()
        self.parameters.given([], [])

    def detach(self) -> None:
        """Puts torch back as it was."""
        self._switch_off()
        self.patches.undo()

    def abandon(self) -> None:
        """Forgets everything, as a forked process must."""
        self.closed = True
        if self.writer is not None:
            self.writer.abandon()
            self.writer = None
        self.capture.close()
        self.detach()

    def close(self) -> None:
        """Finishes the record; no further step is seen."""
        if self.closed:
            return
        self.closed = True
        self.guard("close", self._finish)
        self.detach()
        seconds = _clock() - self.started
        if self.writer is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # whatever the copies warn of, the script was told by its own
                self._probe(seconds)
                self._measure_curvature(seconds)
                self._measure_batch()
            end = {"status": "finished", **self._exit}
            self.writer.close(seconds=seconds, steps=self.step, overhead=self.cadence.overhead, **end)
        self.capture.close()

    def _finish(self) -> None:
        self.stretch.end()
        self.data.end_eval(self)
        if self._awaits and self.optimizers.changed_by_hand():
            self._settle_by_hand()
        elif self._backwards:  # a backward whose update never came
            self._write_step(_clock() - self._step_started)
        self.pending.read(wait=True)
        self._write_facts()
        if self.survey is not None:
            self.survey.write(self)

    def _probe(self, seconds: float) -> None:
        """Makes experiments on copies of what was trained, unless the script failed."""
        if self.probe_budget <= 0 or not self.step or self._exit:
            return
        start = _clock()
        try:
            from unstuck.watcher.probing import probe

            budget = min(MOST_PROBING, max(LEAST_PROBING, self.probe_budget * seconds))
            self._tell_measuring("experiments", budget)
            for name, found in probe(self, budget):
                self._tell("probe", "", {"name": name, **found})
        except Exception as error:  # noqa: BLE001 - the script has ended and must end as it would
            self.failed("probes", error)
        assert self.writer is not None
        self.writer.note(probe_seconds=_clock() - start)

    def _measure_curvature(self, seconds: float) -> None:
        """Measures curvature on copies of what was trained, where that was asked for, unless the script failed."""
        wanted, writer = self.curvature, self.writer
        if wanted is None or writer is None or not self.step or self._exit:
            return
        start = _clock()
        budget = wanted.get("seconds") or max(LEAST_CURVING, wanted.get("share", 0.0) * seconds)
        along: dict[int, Mapping[str, float]] = {}
        try:
            from unstuck.watcher.curving import measure

            self._tell_measuring("curvature", budget)
            for what, step, found in measure(self, budget, wanted, writer.record().series("loss")):
                if what == "part":
                    self._tell("curvature", "", found)
                else:
                    along[step] = found
        except Exception as error:  # noqa: BLE001 - the script has ended and must end as it would
            self.failed("curvature", error)
        for step in sorted(along):
            writer.sample(step, tuple((name, "") for name in along[step]), list(along[step].values()))
        writer.note(curvature_seconds=_clock() - start)

    def _measure_batch(self) -> None:
        """Measures which batch size is best, on copies of what was trained, where that was asked for, unless the script failed."""
        wanted, writer = self.batch, self.writer
        if wanted is None or writer is None or not self.step or self._exit:
            return
        start = _clock()
        try:
            from unstuck.watcher.batching import measure

            self._tell_measuring("batch sizes", wanted["seconds"])
            for found in measure(self, wanted["seconds"], writer.record().series("step_seconds")):
                self._tell("batch", "", found)
        except Exception as error:  # noqa: BLE001 - the script has ended and must end as it would
            self.failed("batch", error)
        writer.note(batch_seconds=_clock() - start)

    def ended_by(self, kind: type[BaseException], error: BaseException) -> None:
        """Notes the exception the script ended with."""
        self._exit = {"status": "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"}
        self._tell("exception", "", {"type": kind.__name__, "message": str(error)[:500]})

    # ------------------------------------------------------------------ what is told to us

    def event(self, event: Event) -> None:
        """Keeps an event."""
        if self.writer is not None:
            self.writer.event(event)
        else:
            self._events.append(event)

    def _tell(self, kind: str, layer: str, data: Mapping[str, Any]) -> None:
        self.event(Event(self.step, kind, layer, data))

    def failed(self, where: str, error: Exception) -> None:
        """Notes a failure of our own, once for each place and kind."""
        kind = f"{where}: {type(error).__name__}"
        if kind in self._errors:
            return
        self._errors.add(kind)
        self._tell("watcher-error", "", {"where": where, "error": repr(error)[:500]})
        if os.environ.get("UNSTUCK_DEBUG"):
            import traceback

            traceback.print_exception(error)

    def guard(self, where: str, action: Callable[..., None], *args: Any) -> None:
        """Runs what is ours inside the script's step: unseen, timed, and never raising."""
        start = _clock()
        try:
            with _unseen():
                action(*args)
        except Exception as error:  # noqa: BLE001 - nothing of ours reaches the script
            self.failed(where, error)
        self._own += _clock() - start

    # ------------------------------------------------------------------ models called from outside

    def _called_from_outside(self, module: nn.Module) -> None:
        if torch.is_grad_enabled():
            self.data.end_eval(self)
            if (
                self.lazy
                and self.writer is None
                and not self.tracer.on
                and any(p.requires_grad for p in module.parameters())
            ):
                self._begin_sample(self.step)
        elif self.registry.is_evaluated(module) or self.tracer.on:
            self.data.eval_batch(self, module)
        self._note_quiet()

    def _note_quiet(self) -> None:
        """Notes whether module calls with gradients are nothing to us, for the quick way past `_watched_call`."""
        self._quiet[:] = [True] if not (self.tracer.on or self.data.evaluating or self.lazy) else []

    # ------------------------------------------------------------------ backward

    def _backward_begins(self, root: Tensor, caller: FrameType) -> None:
        line = (caller.f_code, caller.f_lasti)
        site = self._lines.get(line)
        if site is None:
            site = self._lines[line] = call_site()
            self._met_keras = self._met_keras or keras.meet(self)
        self._site = site
        self.stretch.end()
        if self.data.evaluating:
            self.data.end_eval(self)
            self._note_quiet()
        self.data.trains(self)
        if self.writer is None:
            self._make_record()
        if self._backwards and not self.optimizers.lead_known and not self._in_step:
            self._look_for_hand()
        value = self.series.add_loss(site, self.optimizers.unscaled(root).detach())
        if value is None:
            self.alarms.graph(root)
        elif site == self.series.main_site:
            self.alarms.loss(value, root)
            self.stretch.saw(caller, root)
        if self.sample is not None and self.tracer.on and self.tracer.open:
            self._read_trace(root, site, self.sample)

    def _read_trace(self, root: Tensor, site: str, sample: Sample) -> None:
        """Reads what the traced forward pass showed, while outputs and targets are at hand."""
        trace = self.tracer.trace
        if site not in self._traced:
            self.parameters.before_first_backward(sample, first=self._backwards == 0)
            self.registry.name_layers()
            main = site == self.series.main_site
            loss = self.optimizers.unscaled(root)
            self.losses.analyze(trace, root, sample, unscaled=loss, main=main, scored=self.series.scored)
            if main and trace.recording is not None:
                self.capture.keep(trace.recording, loss, *self.losses.leading, self)
                self.tracer.records = self.capture.wanted
            if main and self._samples & (self._samples - 1) == 0:
                self.alarms.learn(root, trace.producers)
            if (carried := self.carried.look(root, trace.producers)) is not None:
                self._tell("carried-graph", *carried)
            if main:
                self.data.count_labels(self.losses, sample)
                if self.losses.own_targets:
                    self.features.setdefault("targets of its own")
        self.data.trained_models |= {self.registry.parameters[index].model for index in trace.used}
        for module, first in self.registry.root_calls:
            model = self.registry.model_of(module)
            if model is not None:
                model.trained = True
                model.modes.add("train" if module.training else "eval")
                if model.name in self.data.trained_models:  # a teacher is not
                    self.data.saw_mode(self, model.name, module)
                if first is not None and first.dim():
                    self.data.saw_input(module, first)
        self.registry.root_calls.clear()
        if trace.inputs:
            self.data.measure_input(trace.inputs, sample, entered=trace.entered)
        if trace.recurrent and self._samples in _LAG_SAMPLES:
            recurrent_lags(trace.recurrent, sample)
        self.parameters.used(trace.used)

    def _backward_over(self) -> None:
        self._backwards += 1
        if self.tracer.on and self.tracer.measure and self.tracer.open:
            repeated = self._site in self._traced
            self._traced.setdefault(self._site)
            for layer in self.registry.ordered:
                layer.backward_over()
            self.tracer.restart(measure=True)
            more = self.step == 0 or len(self._traced) < len(self.series.sites)
            if repeated or not more:
                self._stop_tracing()  # the optimizer's own calls need not come by
        if not self.optimizers.lead_known and not self._in_step:
            self._prepare_for_hand()

    # ------------------------------------------------------------------ updates by an optimizer

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        lead = self.optimizers.lead
        if not self.closed and (self.sample is not None or lead is None or not (lead.closure or self._norm_rests())):
            self.guard("before step", self._step_begins, optimizer, args, kwargs)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self.closed:
            return
        lead = self.optimizers.lead
        if lead is not None and lead.closure and self.sample is None and not self._norm_rests():
            self.guard("after step", self._closure_over, optimizer)
        if self.stretch.on and self.stretch.stepped(optimizer):
            if self.stretch.over:
                self.guard("after step", self._stretch_over)
        else:
            self.guard("after step", self._step_over, optimizer, args, kwargs)

    def _norm_rests(self) -> bool:
        """Whether a plain step is one of those at which the gradient's norm isn't looked at."""
        return self.step % self._norm_stride != 0 and self.optimizers.clipped_norm is None

    def _step_begins(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        state = self.optimizers.state(optimizer)
        self._in_step = True
        self._meet(state, args, kwargs)
        if self.sample is not None:
            if not state.closure:
                self.parameters.gradients(self.sample, state)
            self.parameters.before_update(self.sample, state)
        elif not state.closure and state is self.optimizers.lead:
            self._look_at_norm(state)

    def _meet(self, state: OptimizerState, args: Any, kwargs: Any) -> None:
        """At an optimizer's first step: learns what it holds, and whether it is given a closure."""
        if state.steps == 0:
            self.parameters.adopt(state)
            state.closure = any(callable(a) for a in (*args, *kwargs.values()))

    def _closure_over(self, optimizer: Any) -> None:
        """On a plain step whose backward ran within it: the gradients are there only now."""
        state = self.optimizers.state(optimizer)
        if state is self.optimizers.lead:
            self._look_at_norm(state)

    def _stretch_over(self) -> None:
        self.stretch.end()
        self._look_around(_clock())
        self._go_on()

    def _step_over(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        state = self.optimizers.state(optimizer)
        self._meet(state, args, kwargs)
        if self.stretch.on and (state is self.optimizers.lead or state.steps == 0):
            self.stretch.end()
        self._in_step = False
        if self.sample is not None:
            if state.closure:
                self.parameters.gradients(self.sample, state)
            self.parameters.after_update(self.sample, state)
        if self.optimizers.stepped(state, self._backwards) and state.steps > 1:
            self.series.lead_changed(self._site)
            self._tell("lead-optimizer", "", {"optimizer": state.index})
        if state is self.optimizers.lead:
            if self._awaits:
                self._awaits, self._awaiting = False, None
                self.parameters.forget_hand()
            self._end_step()
            self._go_on()

    def _go_on(self) -> None:
        """Decides how the next step is watched."""
        if self.cadence.wants(self.step):
            self._begin_sample(self.step)
        else:
            self._switch_off()
            self.stretch.begin()

    def _look_at_norm(self, state: OptimizerState) -> None:
        """On a plain step: the gradient's norm, for nothing where the script clips, else as often as it is cheap."""
        norm = self.optimizers.clipped_norm
        if norm is None:
            start = _clock()
            norm = self.parameters.global_norm(state)
            self._norm_costs.append(_clock() - start)
            self._norm_stride = self.cadence.norm_stride(min(self._norm_costs))
        if norm is not None and norm.device.type == "cpu":
            self._normed(float(norm))

    def _normed(self, norm: float) -> None:
        self.series.norm = norm
        self.alarms.norm(norm)

    # ------------------------------------------------------------------ updates by hand

    def _prepare_for_hand(self) -> None:
        """After a backward with no optimizer in sight: keep what tells, at the next one, whether parameters changed."""
        sample = self.sample
        if sample is not None:
            self.parameters.gradients(sample, None)
            self.parameters.before_update(sample, None)
        self.optimizers.remember(self.parameters.leaves(), probe=sample is not None or not self.optimizers.by_hand)
        self._awaiting, self._awaits = sample, True
        if self.optimizers.by_hand:
            self.sample = None
            if self.cadence.wants(self.step + 1):
                self._begin_sample(self.step + 1)
            else:
                self._switch_off()

    def _look_for_hand(self) -> None:
        """At a backward with no optimizer in sight: did the script change the parameters itself?"""
        if self._awaits and self.optimizers.changed_by_hand():
            self._settle_by_hand()

    def _settle_by_hand(self) -> None:
        """Ends the step that an update by hand ended; the next one's forward pass has been already."""
        coming = self.sample if self.optimizers.by_hand else None
        self.sample = self._awaiting
        if self.sample is not None:
            self.parameters.after_update(self.sample, None)
        self._awaits, self._awaiting = False, None
        self.optimizers.updated_by_hand(self._backwards)
        self._end_step()
        self.sample = coming

    # ------------------------------------------------------------------ the end of a step

    def _end_step(self) -> None:
        now = _clock()
        seconds, self._step_started = now - self._step_started, now
        sampled = self.sample is not None
        self._write_step(seconds)
        self.cadence.ended(seconds, self._own, sampled=sampled)
        self._own = 0.0
        self.step += 1
        self._backwards = 0
        self._traced.clear()
        self._look_around(now)
        if sampled:
            self._samples += 1
            if self._samples & (self._samples - 1) == 0 or self._samples % 64 == 0:
                self._write_facts()

    def _look_around(self, now: float) -> None:
        """What is done now and then: late numbers, a snapshot, and the live line."""
        self.pending.read()
        if self.snapshots is not None:
            self.snapshots.look(self)
        if self.batch is not None:
            self.marks = self.marks[::2] if len(self.marks) >= _MOST_MARKS else self.marks
            self.marks.append((self.step, time.thread_time()))
        if now - self._progress_at > _PROGRESS_EVERY:
            self._progress_at = now
            self._tell_progress(now)

    def flush(self) -> None:
        """Makes the record hold all that was seen so far."""
        if not self.closed and self.writer is not None:
            self.guard("flush", self.stretch.end)
            self.writer.flush()

    def _write_step(self, seconds: float) -> None:
        if self.sample is not None:
            self.registry.name_layers()
            layer_columns(self.registry, self.sample)
            send_sample(self.sample, self.pending, self._arrived)
        self.series.write(self, seconds, sampled=self.sample is not None)

    def _begin_sample(self, step: int) -> None:
        self.stretch.end()
        self.sample = Sample(step)
        self.carried.begins(step)
        self.registry.root_calls.clear()
        for layer in self.registry.ordered:
            layer.forget_step()
        self.tracer.switch_on()
        self._note_quiet()
        if "torch.compile" in self.features or (self.late and "torch._dynamo" in sys.modules):
            self._run_eagerly()

    def _switch_off(self) -> None:
        self.sample = None
        if self.tracer.on:
            self._stop_tracing()

    def _stop_tracing(self) -> None:
        self.tracer.switch_off()
        self._note_quiet()
        if self._stance is not None:
            stance, self._stance = self._stance, None
            stance.__exit__(None, None, None)

    def _run_eagerly(self) -> None:
        if self._stance is None:
            self._stance = torch.compiler.set_stance("force_eager")

    def _arrived(self, step: int, columns: Columns) -> None:
        if self.writer is not None:
            self.writer.sample(step, tuple(columns.names), columns.values)
            for signal, place, values in columns.vectors:
                self.writer.vector(step, signal, place, values)

    def _tell_progress(self, now: float) -> None:
        if self.writer is None:
            return
        seconds, overhead = now - self.started, self.cadence.overhead
        self.writer.note(progress=self._progress(seconds), steps=self.step, overhead=overhead, seconds=seconds)

    def _tell_measuring(self, what: str, most: float) -> None:
        """Tells who looks on what goes on when the script has ended, since when, and for how many seconds about."""
        if self.writer is not None:
            measuring = {"what": what, "since": time.time(), "most": most}
            self.writer.note(progress={**self._progress(_clock() - self.started), "measuring": measuring})

    def _progress(self, seconds: float) -> dict[str, Any]:
        return {
            "step": self.step, "loss": self.series.last_loss, "score": self.series.last_score,
            "score_name": self.losses.score_name, "overhead": self.cadence.overhead, "seconds": seconds,
        }  # fmt: skip

    def _write_facts(self) -> None:
        if self.writer is not None:
            self.registry.name_layers()
            self.writer.program(program_of(self).to_json())

    def _make_record(self) -> None:
        self.lazy = False  # one try
        self.writer = Writer(self.path, meta=self.meta)
        for event in self._events:
            self.writer.event(event)
        self._events.clear()
