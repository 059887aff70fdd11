"""Which children are too sick to go on; records are written by hand."""

import pytest

from unstuck.search import sickness as module
from unstuck.search.sickness import hopeless, sickness
from unstuck.trials.job import Outcome


@pytest.fixture
def run(tmp_path):
    """Runs a training of digits-like noise, and gives its record."""
    torch = pytest.importorskip("torch")
    from unstuck import watch

    def made(rate, *, steps=40, scale=1.0, name="a"):
        torch.manual_seed(0)
        x = torch.randn(64, 4)
        y = (x[:, 0] > 0).long()
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        with watch(model, optimizer, runs=tmp_path / name, probe_budget=0.0) as watched:
            for _ in range(steps):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(x * scale), y) * (1.0 if scale == 1.0 else float("nan"))
                loss.backward()
                optimizer.step()
        return watched

    return made


def test_one_that_learns_goes_on_whatever_is_found(run):
    assert sickness(run(0.5).record) == ""


def test_a_loss_that_is_not_finite_is_the_end(run):
    assert sickness(run(0.5, scale=2.0).record) == "non-finite"


def test_a_script_that_broke_need_not_end(run):
    assert hopeless(run(0.5, scale=2.0).path, Outcome("failed")) == "its loss is not finite"


def test_one_that_is_well_may_end_also_where_there_is_no_record_yet(run, tmp_path):
    assert hopeless(run(0.5).path, Outcome("failed")) == ""
    assert hopeless(tmp_path / "none.sqlite", Outcome("failed")) == ""


def test_runs_are_compared_by_steps_only_where_their_batches_are_of_one_size(run, monkeypatch):
    monkeypatch.setattr(module, "behind", lambda path, best: "far behind")
    one = run(0.5)
    alike = Outcome("finished", record=str(one.path))
    assert hopeless(one.path, alike) == "far behind"
    monkeypatch.setattr(module, "_batch_size", lambda path: 16.0)
    assert hopeless(one.path, alike) == ""
