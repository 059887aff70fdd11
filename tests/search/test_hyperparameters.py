"""The space of an unmodified script."""

import random

import pytest

from unstuck.errors import MisuseError, NotFoundError
from unstuck.search.hyperparameters import Varied, space_of
from unstuck.search.space import Space
from unstuck.trials.job import Job
from unstuck.trials.visit import Dose

pytestmark = pytest.mark.slow

SCRIPT = """
import argparse, torch
from torch import nn
parser = argparse.ArgumentParser()
parser.add_argument("--hidden", type=int, default=8)
args = parser.parse_args()
torch.manual_seed(0)
x = torch.randn(64, 4)
y = (x[:, 0] > 0).long()
model = nn.Sequential(nn.Linear(4, args.hidden), nn.ReLU(), nn.Linear(args.hidden, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)
for epoch in range(5):
    for xb, yb in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(xb), yb)
        loss.backward()
        optimizer.step()
"""


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory):
    """The script, surveyed once."""
    from unstuck.doctor import diagnose
    from unstuck.evidence import Record
    from unstuck.patients import ScriptPatient
    from unstuck.trials.executor import Log, Processes

    here = tmp_path_factory.mktemp("script")
    script = here / "train.py"
    script.write_text(SCRIPT)
    executor = Processes(Log(here / "visit"))
    try:
        [(_, outcome)] = executor.run([Job((str(script),), survey=True)])
    finally:
        executor.close()
    record = Record.read(outcome.record)
    patient = ScriptPatient([str(script)])
    patient.see(record)
    return patient, record, diagnose(record)


def variants(surveyed, over=None, vary=(), many=60):
    define, _ = space_of(*surveyed, over, vary)
    rng = random.Random(0)
    return [Space(define).random(rng).chosen for _ in range(many)]


def test_the_usual_ones_are_searched_and_each_variant_can_be_written(surveyed):
    patient = surveyed[0]
    for variant in variants(surveyed):
        patient.check(variant.treatment)
        assert next(d for d in variant.treatment if d.remedy == "optimizer").settings["weight_decay"] >= 0
    remedies = {d.remedy for v in variants(surveyed) for d in v.treatment}
    assert remedies == {"optimizer", "batch-size"}


def test_rate_alone_lies_around_the_scripts_own(surveyed):
    rates = [v.treatment[0].settings["rate"] for v in variants(surveyed, ["learning-rate"])]
    assert min(rates) < 0.01
    assert max(rates) > 1
    assert all(0.1 / 301 < r < 0.1 * 301 for r in rates)


def test_a_decay_that_the_script_has_is_no_change(surveyed):
    treatments = {v.treatment for v in variants(surveyed, ["weight-decay"])}
    assert () in treatments
    assert (Dose("weight-decay", {"value": 0.001}),) in treatments


def test_any_other_remedy_is_given_or_not(surveyed):
    doses = {str(v) for v in variants(surveyed, ["schedule", "gradient-clipping"])}
    assert {"as it is", "schedule (kind cosine)"} <= doses


def test_what_cannot_be_given_is_refused_with_the_reason(surveyed):
    with pytest.raises(MisuseError, match="can't be searched in"):
        variants(surveyed, ["evaluation-scale"])
    with pytest.raises(NotFoundError, match="did you mean 'dropout'"):
        variants(surveyed, ["droput"])


def test_arguments_stand_behind_the_scripts_own(surveyed):
    found = variants(surveyed, ["learning-rate"], [Varied.of("--hidden=4..64:log"), Varied.of("act=relu,tanh")])
    assert {v.arguments[0] for v in found} == {"--hidden"}
    assert {v.arguments[2] for v in found} == {"act=relu", "act=tanh"}
    assert all(4 <= int(v.arguments[1]) <= 64 for v in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--n=1..4", Varied("--n", (), 1, 4, whole=True)),
        ("--rate=1e-4..0.1:log", Varied("--rate", (), 1e-4, 0.1, log=True)),
        ("--p=0.0..0.5", Varied("--p", (), 0.0, 0.5)),
        ("model.act=relu,tanh", Varied("model.act", ("relu", "tanh"))),
    ],
)
def test_what_is_varied_is_understood(text, expected):
    assert Varied.of(text) == expected


@pytest.mark.parametrize("text", ["--n", "--n=", "=1..2", "--n=4..1", "--n=0..4:log", "--n=a,,b", "--n=1e-..2"])
def test_what_is_not_is_refused(text):
    with pytest.raises(MisuseError, match="must be an argument and its values"):
        Varied.of(text)
