"""Trials of a training in the user's own process: one after the other, each with random numbers of its own, and no trace of them."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unstuck._discover import get
from unstuck.errors import MisuseError
from unstuck.evidence import Event, Record
from unstuck.source import Edit, EditError
from unstuck.training import Training
from unstuck.trials.executor import LOOK, Log
from unstuck.trials.job import Outcome, measured
from unstuck.trials.visit import Dose, Treatment
from unstuck.watcher.seeds import shifted
from unstuck.watcher.session import Session

_MOST_FEATURES = 4096


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """A training that is to be made.

    Attributes:
        make: Makes the training as it stands, anew each time.
        whose: Names what `make` makes.
        treatment: Doses that it is given.
        record: Of the run as it stands, which the doses go by; None where there are none.
        seed: Of all random numbers; seeds that `make` sets are shifted by it.
        survey: Note what the model is given.
        probe_budget: Share of its time for experiments when it has ended.
        limit: Seconds after which it is stopped; 0 for none.
        edits: None, as there is no script.
    """

    make: Callable[[], Training]
    whose: str
    treatment: Treatment = ()
    record: Record | None = None
    seed: int = 0
    survey: bool = False
    probe_budget: float = 0.0
    limit: float = 0.0
    edits: tuple[Edit, ...] = ()

    @property
    def key(self) -> str:
        """Names what would come out the same."""
        doses = [asdict(dose) for dose in self.treatment]
        told = json.dumps([self.whose, doses, self.seed, self.survey, self.probe_budget > 0], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:20]

    def treated(self) -> Training:
        """The training, treated and not yet trained, when seeds are shifted.

        Raises:
            EditError: A dose can't be given.
        """  # noqa: DOC502
        training = self.make()
        for dose in self.treatment:
            assert self.record is not None
            give(training, dose, self.record)
        return training

    def outcome(self, folder: Path, hopeless: Callable[[Any, Path], str] | None = None) -> Outcome:
        """Makes it, in this process.

        Args:
            folder: For its record.
            hopeless: Why it need not go on, see `Executor`.

        Raises:
            MisuseError: A training that isn't treated has been made of what it can't be run with.
        """  # noqa: DOC502
        shutil.rmtree(folder, ignore_errors=True)  # what is left of one that was broken off
        folder.mkdir(parents=True)
        began = time.perf_counter()
        status, why = "finished", ""
        try:
            with shifted(self.seed):
                training = self.treated()
                _seed(training, self.seed)
                with _watched(training, self, folder / "record.sqlite") as session:
                    training.on_step.append(_Looking(session, self, began, hopeless))
                    training.run()
        except _Stopped as stopped:
            status, why = "stopped", str(stopped)
        except Exception as error:
            if isinstance(error, MisuseError) and not self.treatment:
                raise
            status, why = "failed", "".join(traceback.format_exception_only(error)).strip().splitlines()[-1][:300]
        return measured(folder, status, time.perf_counter() - began, why=why)


def give(training: Training, dose: Dose, record: Record) -> None:
    """Changes a training by a remedy.

    Args:
        training: Is changed.
        dose: The remedy, and its settings.
        record: Of the run as it stands.

    Raises:
        EditError: The remedy can't be given to a training, or not to this one.
    """
    treat = getattr(sys.modules[get("remedies", dose.remedy).__module__], "treat", None)
    if treat is None:
        raise EditError(f"{dose.remedy} is for scripts only")
    try:
        inspect.signature(treat).bind(training, record, **dose.settings)
    except TypeError:
        raise EditError(f"{dose} is for scripts only") from None
    treat(training, record, **dose.settings)


class Inline:
    """Makes jobs in this process, one after the other, see `Executor`: such as tell their outcome by a method.

    Args:
        log: Keeps what has finished; a job that is in it is not made again.
    """

    def __init__(self, log: Log) -> None:
        self.log = log

    def run(
        self,
        jobs: Iterable[Any],
        *,
        enough: Callable[[Any, Outcome], bool] | None = None,
        hopeless: Callable[[Any, Path], str] | None = None,
    ) -> Iterator[tuple[Any, Outcome]]:
        """Makes jobs, see `Executor`.

        Raises:
            MisuseError: A training that isn't treated has been made of what it can't be run with.
        """  # noqa: DOC502
        for job in jobs:
            if job is None:
                return
            outcome = self.log.known.get(job.key)
            if outcome is None:
                outcome = job.outcome(self.log.folder / job.key, hopeless)
                self.log.add(job, outcome)
            yield job, outcome
            if enough is not None and enough(job, outcome):
                return

    def later(self, jobs: Iterable[Any]) -> None:
        """Nothing is made before it is wanted."""

    def close(self) -> None:
        """Nothing goes on."""


def _seed(training: Training, seed: int) -> None:
    """Lets batches and noise of a training begin the same, however much has been drawn for it before; seeds are shifted."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    for generator in training.generators() if seed else ():
        if isinstance(generator, torch.Generator):
            generator.manual_seed((generator.initial_seed() + seed) % 2**63)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(seed).state
        else:
            generator.seed(seed)


class _Stopped(Exception):  # noqa: N818 - no error
    """Ends a training that need not go on."""


class _Looking:
    """Looks, behind each step, whether the training is to go on.

    Args:
        session: Watches it.
        job: What is made.
        began: When, by the clock.
        hopeless: Why it need not go on.
    """

    def __init__(
        self, session: Session, job: TrainingJob, began: float, hopeless: Callable[[Any, Path], str] | None
    ) -> None:
        self.session, self.job, self.began, self.hopeless = session, job, began, hopeless
        self.looked = began

    def __call__(self, training: Training) -> None:
        now = time.perf_counter()
        if self.job.limit and now - self.began > self.job.limit:
            raise _Stopped("it took too long")
        if self.hopeless is not None and now - self.looked > LOOK:
            self.looked = now
            self.session.flush()
            if why := self.hopeless(self.job, self.session.path):
                raise _Stopped(why)


@contextlib.contextmanager
def _watched(training: Training, job: TrainingJob, path: Path) -> Iterator[Session]:
    session = Session(path, budget=0.02, probe_budget=job.probe_budget, meta={"script": "unstuck.cure"})
    session.cadence.all_evaluations = True
    session.survey = _Survey(training) if job.survey else None
    session.registry.add_model(training.model, "model")
    session.optimizers.state(training.optimizer)
    training.on_eval.append(lambda training, outputs, targets: session.data.compared_with(targets))
    training.on_epoch.append(lambda training, epoch: session.guard("eval", session.data.end_eval, session))
    session.attach()
    try:
        yield session
    except _Stopped:
        session.probe_budget = 0.0
        raise
    except BaseException as error:
        session.ended_by(type(error), error)
        raise
    finally:
        session.close()


class _Survey:
    """Notes what the model of a training is given, as a surveyed run of a script does.

    Args:
        training: The training.
    """

    def __init__(self, training: Training) -> None:
        self.training = training

    def write(self, session: Session) -> None:
        """Tells it."""
        inputs = self.training.inputs()
        if not inputs.is_floating_point() or inputs.dim() < 2:
            return
        axes = (0, *range(2, inputs.dim()))
        std, mean = torch.std_mean(inputs.float(), axes, correction=0)
        whole_std, whole_mean = torch.std_mean(inputs.float(), correction=0)
        about = {
            "shape": list(inputs.shape), "variable": "", "mean": mean.tolist()[:_MOST_FEATURES], "std": std.tolist()[:_MOST_FEATURES],
            "all_mean": float(whole_mean), "all_std": float(whole_std),
        }  # fmt: skip
        session.event(Event(session.step, "inputs", "", about))
