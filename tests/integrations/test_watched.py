"""What callbacks share: when a watch opens and closes, who tells, and what stops a training."""

import sys

import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError, SickError
from unstuck.integrations import _watched
from unstuck.integrations._watched import Watched
from unstuck.verdict import Finding, Verdict


def train(steps=12, *, broken_from=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(32, 3)
    for step in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), x[:, :1])
        (loss * float("nan") if broken_from is not None and step >= broken_from else loss).backward()
        optimizer.step()


@pytest.fixture
def watched(tmp_path):
    """A watch without experiments, closed in the end."""
    made = []

    def make(**options):
        made.append(Watched(**{"runs": tmp_path, "probe_budget": 0.0} | options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_tells_once_and_only_when_the_training_has_ended(watched, capsys):
    one = watched()
    one.begin()
    train()
    assert one.open and one.tell() is None
    one.close()
    assert one.untold and not one.open and not capsys.readouterr().out
    assert one.tell().run["steps"] == 12
    assert "12 steps" in capsys.readouterr().out
    assert one.tell() is None and one.end() is None and not capsys.readouterr().out


def test_only_the_first_process_tells_but_each_has_a_record(watched, tmp_path, capsys):
    one = watched(json=tmp_path / "verdict.json", fail_on="note")
    one.begin(rank=1)
    train(broken_from=3)
    assert one.end() is None
    assert one.run.record.steps == 12
    assert not capsys.readouterr().out and not (tmp_path / "verdict.json").exists()


def test_the_report_bears_the_programs_name(watched, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train_net.py", "--fast"])
    one = watched(report=False)
    one.begin()
    one.close()
    assert one.run.record.meta["script"] == "train_net.py"
    assert one.run.path.parent.name.endswith("-train_net")


def test_a_watch_that_was_left_open_is_closed_by_the_next(watched):
    call = nn.Module.__call__
    one, other = watched(report=False), watched(report=False)
    one.begin()
    train(5)
    other.begin()
    train(7)
    other.end()
    assert nn.Module.__call__ is call and _watched._current is None
    assert (one.run.record.steps, one.run.record.meta["status"]) == (5, "interrupted")
    assert (other.run.record.steps, other.run.record.meta["status"]) == (7, "finished")


def test_fails_where_asked_but_not_over_an_error_of_the_trainings_own(watched):
    one = watched(report=False, fail_on="error")
    one.begin()
    train(broken_from=3)
    with pytest.raises(SickError, match=r"non-finite \(error\)"):
        one.end()
    one.begin()
    train(broken_from=3)
    assert one.end(ValueError("of the script")).verdict == "sick"


def test_a_report_that_cannot_be_written_does_not_end_the_program(watched, tmp_path):
    (tmp_path / "there").mkdir()
    one = watched(report=False, html=tmp_path / "there" / "report.html", fail_on="error")
    (tmp_path / "there").rmdir()
    one.begin()
    train()
    with pytest.warns(RuntimeWarning, match=r"could not report on .*record\.sqlite: .*no folder"):
        assert one.end() is None


def test_stops_once_it_is_broken_and_says_so_until_the_end(watched):
    one = watched(report=False, stop_on="error")
    one.begin()
    train(4)
    assert not one.stops()
    train(8, broken_from=0)
    assert one.stops() and one.stops() and one.stops()
    one.close()
    assert not one.stops()
    silent = watched(report=False)
    silent.begin()
    train(8, broken_from=0)
    assert not silent.stops()


@pytest.mark.parametrize(("severity", "broken"), [("error", True), ("warning", False), ("note", False)])
@pytest.mark.parametrize("explained", [False, True])
def test_broken_is_what_an_error_is_or_leads_to(severity, broken, explained):
    finding = Finding("non-finite", "non-finite", "note" if explained else severity, 0.97, "NaN")
    cause = Finding("learning-rate-too-high", "learning-rate-too-high", severity, 0.9, "high", explains=(finding,))
    assert _watched._is_broken(Verdict("sick", (cause if explained else finding,))) is broken


def test_trackers_are_given_to_the_first_process_alone(watched, monkeypatch):
    given = []
    monkeypatch.setattr("unstuck.watching.Watch.log_to", lambda self, tracker: given.append(tracker))
    for rank, log_to in ((0, "one"), (0, ["two", "three"]), (1, "four")):
        one = watched(log_to=log_to, report=False)
        one.begin(rank=rank)
        one.close()
    assert given == ["one", "two", "three"]


@pytest.mark.slow
def test_layers_of_what_was_compiled_before_are_seen(watched):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    compiled, optimizer, x = (
        torch.compile(model, backend="eager"),
        torch.optim.SGD(model.parameters(), lr=0.1),
        torch.randn(32, 3),
    )

    def step():
        optimizer.zero_grad()
        nn.functional.mse_loss(compiled(x), x[:, :1]).backward()
        optimizer.step()

    step()
    one = watched(report=False)
    one.begin()
    for _ in range(8):
        step()
    one.end()
    assert [layer.op for layer in one.run.record.program.layers[:3]] == ["linear", "relu", "linear"]
    assert len(one.run.record.places("grad_rms")) == 4


@pytest.mark.parametrize(("options", "says"), [
    ({"fail_on": "fatal"}, "fail_on is 'fatal'"),
    ({"stop_on": "warning"}, "stop_on is 'warning'"),
    ({"html": "/nowhere/report.html"}, "no folder '/nowhere'"),
    ({"json": "/"}, "it is a folder"),
])  # fmt: skip
def test_options_are_checked_at_once(options, says):
    with pytest.raises(MisuseError, match=says):
        Watched(**options)
