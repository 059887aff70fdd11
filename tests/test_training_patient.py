"""A training as what is treated: its runs, what can be given to it, and what it is prescribed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unstuck._training_patient import TrainingPatient
from unstuck.errors import MisuseError
from unstuck.evidence import Event, Layer, LossCall, Record
from unstuck.remedies import activation, output_loss, standardize_input
from unstuck.source import EditError
from unstuck.training import Training
from unstuck.trials.visit import Dose
from unstuck.verdict import Verdict
from unstuck.watcher.seeds import shifted

BATCHES = [(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)]
RECORD = Record.of(
    {},
    layers=[
        Layer("model.0", "linear", "Linear", parameters=("weight",)), Layer("model.1", "tanh", "Tanh"),
        Layer("model.2", "linear", "Linear", parameters=("weight",), role="output"),
    ],
    losses=[LossCall("mse_loss", layer="model.2", output_shape=(8, 3), target_shape=(8,), target_kind="class index")],
    events=[Event(0, "inputs", "", {"shape": [8, 4]})],
)  # fmt: skip
RELU = (Dose("activation", {"to": "relu"}),)


def make():
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    return Training(net, nn.functional.cross_entropy, torch.optim.SGD(net.parameters(), lr=0.1), BATCHES)


def seen(training=make):
    patient = TrainingPatient(training)
    patient.see(RECORD)
    return patient


def weight(training):
    return training.model[0].weight.detach().clone()


def begins(patient, seed, treatment=()):
    with shifted(seed):
        return weight(patient.job(treatment, seed=seed).treated())


def test_all_runs_of_a_training_begin_with_its_weights():
    training = make()
    patient, own = seen(training), weight(training)
    training.run()
    assert torch.equal(begins(patient, 0), own), "as it was when it was given"
    assert torch.equal(begins(patient, 7, RELU), own)


def test_a_function_makes_fresh_weights_for_each_seed():
    def seeded():
        torch.manual_seed(0)
        return make()

    for function in (make, seeded):
        patient = seen(function)
        assert torch.equal(begins(patient, 3), begins(patient, 3, RELU))
        assert not torch.equal(begins(patient, 3), begins(patient, 4))


def test_what_can_be_given_is_checked_on_a_copy():
    training = make()
    patient = seen(training)
    patient.check(RELU)
    assert isinstance(training.model[1], nn.Tanh)
    with pytest.raises(EditError, match="clears gradients"):
        patient.check((*RELU, Dose("zero-grad")))


def test_a_prescription_is_a_training_to_go_on_with():
    training = make()
    state = torch.get_rng_state()
    written = seen(training).written(RELU)
    assert (written.edits, written.digests, written.texts, written.diff) == ((), {}, {}, "")
    assert isinstance(written.training.model[1], nn.ReLU)
    assert torch.equal(weight(written.training), weight(training)), "it isn't trained"
    assert torch.equal(torch.get_rng_state(), state)
    written.training.run()


def test_jobs_have_what_executors_need():
    patient = seen()
    one, other = patient.job(RELU, seed=3, limit=2.0), patient.job(seed=3)
    assert (one.seed, one.limit, one.edits, one.record) == (3, 2.0, (), RECORD)
    assert one.key != other.key
    assert one.key != seen().job(RELU, seed=3).key, "each visit for itself"
    assert TrainingPatient(make).job(survey=True).survey, "before anything was seen"


def test_remedies_propose_for_it():
    program = seen().proposing(Record.of({}, layers=RECORD.program.layers, losses=RECORD.program.losses))
    verdict = Verdict("sick", ())
    assert activation.propose(program, verdict)[0] == {"to": "relu"}
    assert output_loss.propose(program, verdict)[0] == {"output": "linear", "loss": "cross_entropy"}
    assert standardize_input.propose(program, verdict), "by the inputs of the surveyed run"
    with pytest.raises(EditError, match="no loss was seen"):
        _ = seen().proposing(Record.of({})).loss


def test_what_is_none_is_refused():
    with pytest.raises(MisuseError, match="what is to be cured is a int"):
        TrainingPatient(3)
    with pytest.raises(MisuseError, match="the function gives a Sequential, but must give a Training"):
        TrainingPatient(lambda: make().model)
    training = make()
    training.penalty = lambda _: training.model[0].weight.sum()
    with pytest.raises(MisuseError, match="penalty uses a model"):
        TrainingPatient(training)
