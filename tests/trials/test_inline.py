"""Trials in this process: paired, watched, stopped where they need not go on, and without a trace."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.evidence import Record
from unstuck.source import EditError
from unstuck.training import Training
from unstuck.trials import inline
from unstuck.trials.executor import Log
from unstuck.trials.inline import Inline, TrainingJob, give
from unstuck.trials.job import score_of
from unstuck.trials.visit import Dose

pytestmark = pytest.mark.slow

ADAM = (Dose("optimizer", {"to": "Adam", "rate": 0.01}),)


def problem(count=192):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, generator=generator)
    return x, (x @ torch.randn(4, 3, generator=generator)).argmax(1)


def make(*, rate=0.1, epochs=3, loss=nn.functional.cross_entropy, generator=None, held_out=True):
    x, y = problem()
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
    loader = DataLoader(TensorDataset(x[:128], y[:128]), 16, shuffle=True, generator=generator)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    return Training(net, loss, optimizer, loader, evaluation=[(x[128:], y[128:])] if held_out else None, epochs=epochs)


def job(start=make, **given):
    return TrainingJob(start, "one", **given)


@pytest.fixture
def executor(tmp_path):
    return Inline(Log(tmp_path / "runs"))


def done(executor, *jobs, **given):
    return [outcome for _, outcome in executor.run(jobs, **given)]


def ended(log=None):
    """Makes trainings that tell with which weights they end, and what they begin with."""
    told = log if log is not None else []

    def start():
        training = make()
        last = training.steps * 1
        count = [0]

        def note(training):
            count[0] += 1
            if count[0] in (1, last):
                told.append(training.model[0].weight.detach().clone())

        training.on_step.append(note)
        return training

    return start, told


def test_a_run_is_scored_by_its_evaluation(executor):
    (outcome,) = done(executor, job())
    assert (outcome.status, outcome.score, outcome.steps, outcome.error) == ("finished", "accuracy", 24, "")
    assert 0.3 < outcome.value <= 1
    assert outcome.seconds > 0
    record = Record.read(outcome.record)
    assert score_of(record) == (outcome.score, outcome.value, outcome.skill)
    assert len(record.series("eval_score")) == 3, "every evaluation is measured"
    assert record.meta["status"] == "finished"
    assert not record.happened("watcher-error")


def test_a_loss_written_by_hand_and_a_list_are_scored_as_well(executor):
    def by_hand(outputs, targets):
        return -outputs.log_softmax(1)[torch.arange(len(targets)), targets].mean()

    (outcome,) = done(executor, job(lambda: make(loss=by_hand)))
    (other,) = done(executor, TrainingJob(make, "other"))
    assert (outcome.score, outcome.value) == ("accuracy", other.value)
    assert len(Record.read(outcome.record).series("eval_score")) == 3


def test_one_seed_is_one_run_and_leaves_no_trace(executor):
    start, told = ended()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    functions = torch.manual_seed, torch.Tensor.backward, nn.Module.__call__
    done(executor, job(start), job(start, seed=1), TrainingJob(start, "again"), TrainingJob(start, "again", seed=1))
    first, last = told[::2], told[1::2]
    assert torch.equal(last[0], last[2])
    assert torch.equal(last[1], last[3])
    assert not torch.equal(first[0], first[1]), "fresh weights"
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert functions == (torch.manual_seed, torch.Tensor.backward, nn.Module.__call__)


def test_pairs_have_the_same_batches_and_noise(executor):
    order = []

    def start():
        training = make(epochs=1, generator=torch.Generator().manual_seed(5))
        plain = training.forward
        training.forward = lambda model, batch: order.append(batch[1].tolist()) or plain(model, batch)
        return training

    doses = (Dose("initialization", {"scheme": "he"}),)  # draws
    record = Record.of({})
    done(executor, *(job(start, treatment=t, record=record, seed=s) for s in (0, 3) for t in ((), doses)))
    plain, treated, other, other_treated = (order[i : i + 9] for i in range(0, 36, 9))
    assert plain == treated
    assert other == other_treated
    assert plain != other
    start().run()
    assert order[36:45] == plain, "a generator of the user's own is left alone by the seed 0"


def test_a_survey_tells_what_the_model_is_given(executor):
    surveyed, plain = done(executor, job(survey=True), job(seed=1))
    (event,) = Record.read(surveyed.record).happened("inputs")
    x = problem()[0][:128]
    assert event.data["shape"] == [128, 4]
    assert event.data["mean"] == pytest.approx(x.mean(0).tolist(), abs=1e-5)
    assert event.data["all_std"] == pytest.approx(float(x.std(correction=0)), rel=1e-5)
    assert not Record.read(plain.record).happened("inputs")


def test_experiments_are_made_where_they_are_asked_for(executor):
    with_, without = done(executor, job(probe_budget=0.15), job())
    assert Record.read(with_.record).happened("probe")
    assert not Record.read(without.record).happened("probe")


def test_doses_are_given_in_their_order_to_a_training_of_its_own(executor):
    training = make()
    doses = (Dose("learning-rate", {"rate": 0.5}), *ADAM, Dose("train-longer", {"times": 2}))
    treated = job(training.copy, treatment=doses, record=Record.of({})).treated()
    assert (type(treated.optimizer).__name__, treated.optimizer.param_groups[0]["lr"], treated.epochs) == (
        "Adam",
        0.01,
        6,
    )
    assert (type(training.optimizer).__name__, training.epochs) == ("SGD", 3)
    (outcome,) = done(executor, job(training.copy, treatment=doses, record=Record.of({})))
    assert outcome.steps == 48
    before = job(treatment=(ADAM[0], doses[0]), record=Record.of({})).treated()
    assert before.optimizer.param_groups[0]["lr"] == 0.5


def test_early_stopping_is_scored_by_its_best_evaluation(executor):
    def start():
        training = make(rate=3.0, epochs=8)
        x, y = problem()
        training.batches = [(x[:16], (y[:16] + 1) % 3)]  # which leads away from what is evaluated
        return training

    (plain,) = done(executor, job(start))
    (best,) = done(executor, job(start, treatment=(Dose("early-stopping"),), record=Record.of({})))
    evaluations = Record.read(best.record).series("eval_loss").finite.values
    assert evaluations[-1] == pytest.approx(min(evaluations)), "it is evaluated again, in place of the last"
    assert evaluations[-1] < Record.read(plain.record).series("eval_loss").finite.last


def test_a_remedy_that_is_for_scripts_only(monkeypatch):
    from unstuck.remedies import mode

    monkeypatch.delattr(mode, "treat")
    with pytest.raises(EditError, match="mode is for scripts only"):
        give(make(), Dose("mode"), Record.of({}))


def test_what_breaks_down_is_told(executor):
    def raises(outputs, targets):
        raise ValueError("first line\nlast line")

    (failed,) = done(executor, job(lambda: make(loss=raises)))
    assert (failed.status, failed.error) == ("failed", "last line")
    (diverged,) = done(executor, TrainingJob(lambda: make(rate=1e30), "diverges"))
    assert diverged.status == "diverged"
    assert diverged.quality == -math.inf

    def never():
        raise RuntimeError("there are no data")

    (outcome,) = done(executor, TrainingJob(never, "never"))
    assert (outcome.status, outcome.error, outcome.record) == ("failed", "RuntimeError: there are no data", "")


def test_it_is_stopped_when_it_has_had_its_time(executor):
    (outcome,) = done(executor, job(lambda: make(epochs=10**6), limit=1.0, probe_budget=0.5))
    assert (outcome.status, outcome.error) == ("stopped", "it took too long")
    assert 1.0 < outcome.seconds < 60
    record = Record.read(outcome.record)
    assert outcome.steps == record.steps > 0
    assert not record.happened("probe")
    assert not record.happened("exception")


def test_it_is_stopped_when_it_is_hopeless(executor, monkeypatch):
    monkeypatch.setattr(inline, "LOOK", 0.1)
    asked = []

    def hopeless(one, path):
        asked.append((one, Record.read(path).steps))
        return "far behind" if len(asked) == 3 else ""

    mine = job(lambda: make(epochs=10**6))
    (outcome,) = done(executor, mine, hopeless=hopeless)
    assert (outcome.status, outcome.error) == ("stopped", "far behind")
    assert [one for one, _ in asked] == [mine] * 3
    assert 0 < asked[0][1] < asked[2][1]


def test_an_interrupt_comes_through_and_all_is_as_it_was(executor):
    def interrupts(outputs, targets):
        raise KeyboardInterrupt

    call, seed = nn.Module.__call__, torch.manual_seed
    with pytest.raises(KeyboardInterrupt):
        done(executor, job(lambda: make(loss=interrupts)))
    assert (nn.Module.__call__, torch.manual_seed) == (call, seed)
    assert not executor.log.known


def test_what_is_known_is_not_made_again_and_enough_is_enough(executor, tmp_path):
    count = []
    jobs = [job(lambda: count.append(1) or make(epochs=1), seed=s) for s in range(3)]
    assert len(done(executor, *jobs, enough=lambda job, outcome: job is jobs[1])) == 2
    again = Inline(Log(tmp_path / "runs"))
    assert len(done(again, *jobs)) == 3
    assert len(count) == 3


def test_keys_name_what_would_come_out_the_same():
    one = job(treatment=ADAM)
    assert one.key == job(treatment=ADAM, limit=3.0).key
    others = [
        job(), job(treatment=ADAM, seed=1), job(treatment=ADAM, survey=True), job(treatment=ADAM, probe_budget=0.1),
        TrainingJob(make, "other", ADAM), job(treatment=(Dose("optimizer", {"to": "Adam", "rate": 0.1}),)),
    ]  # fmt: skip
    assert len({one.key, *(j.key for j in others)}) == 7
