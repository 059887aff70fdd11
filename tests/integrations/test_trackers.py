import logging
import sys
import time
import types

import numpy as np
import pytest
import torch
from torch import nn

import unstuck
from unstuck.errors import MisuseError, NotFoundError
from unstuck.evidence import Layer, Parameter, Record, Series
from unstuck.integrations import _tracker_kinds, trackers
from unstuck.integrations._growing import Growing
from unstuck.integrations._points import Names, points, thinned
from unstuck.store import Writer


class Kept:
    """A tracker that keeps what it is given."""

    def __init__(self):
        self.numbers, self.texts, self.pages = [], {}, []
        self.closed = False

    def scalars(self, values, step):
        self.numbers += [(step, name, value) for name, value in values.items()]

    def text(self, name, markdown):
        self.texts[name] = markdown

    def file(self, path):
        self.pages.append((path.name, path.read_text("utf-8")))

    def flush(self):
        pass

    def close(self):
        self.closed = True

    def series(self, name):
        return [(step, value) for step, found, value in self.numbers if found == name]


def of_two_layers():
    """A record of a network with two layers with weights and one between, three steps long."""
    return Record.of(
        {
            ("loss", ""): [3.0, float("nan"), 1.0],
            ("lr", ""): [0.1, 0.1, 0.05],
            ("lr", "0.0"): [0.1, 0.1, 0.05],
            ("back_rms", "net.0"): Series.of([0.5, 0.25], [0, 2]),
            ("back_rms", "net.1"): Series.of([0.5, 0.25], [0, 2]),
            ("update_ratio", "net.0.weight"): Series.of([0.01, 0.02], [0, 2]),
            ("update_ratio", "net.0.bias"): Series.of([0.03, 0.04], [0, 2]),
            ("dead_share", "net.1"): Series.of([0.75], [2]),
            ("step_seconds", ""): [0.1, 0.1, 0.1],
        },
        layers=[
            Layer("net.0", "linear", parameters=("net.0.weight", "net.0.bias")),
            Layer("net.1", "relu", inputs=("net.0",)),
        ],
        parameters=[Parameter("net.0.weight", (4, 4), ("net.0",)), Parameter("net.0.bias", (4,), ("net.0",))],
    )


def train(steps):
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    y = (x[:, 0] > 0).long()
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()


def test_what_is_sent_and_under_which_names():
    kept = Kept()
    trackers.export(of_two_layers(), kept)
    assert kept.series("unstuck/loss") == [(0, 3.0), (2, 1.0)]  # what is not finite can't be drawn
    assert kept.series("unstuck/learning_rate") == [(0, 0.1), (1, 0.1), (2, 0.05)]
    assert kept.series("unstuck/gradient/net.0") == [(0, 0.5), (2, 0.25)]
    assert kept.series("unstuck/update/net.0") == [(0, 0.01), (2, 0.02)]
    assert kept.series("unstuck/dead/net.1") == [(2, 0.75)]
    assert {name for _, name, _ in kept.numbers} == {
        "unstuck/loss", "unstuck/learning_rate", "unstuck/gradient/net.0", "unstuck/update/net.0", "unstuck/dead/net.1",
    }  # fmt: skip
    assert [step for step, *_ in kept.numbers] == sorted(step for step, *_ in kept.numbers)
    assert "unstuck/verdict" in kept.texts
    assert kept.closed
    ((name, page),) = kept.pages
    assert name == "unstuck.html"
    assert page.startswith("<!doctype html>")


def test_of_many_layers_those_are_sent_that_are_spread_over_the_depth():
    names = [f"fc{i}" for i in range(1000)]
    record = Record.of(
        {("back_rms", name): [1.0] for name in names},
        layers=[Layer(name, "linear", parameters=(f"{name}.weight",)) for name in names],
        parameters=[Parameter(f"{name}.weight", (2, 2), (name,)) for name in names],
    )
    series = {("back_rms", name): record.series("back_rms", name) for name in names}
    ((_, sent),) = points(series, Names(record.program), 10)
    assert len(sent) == 64
    assert {"unstuck/gradient/fc0", "unstuck/gradient/fc999"} <= set(sent)


def test_thinned_series_keep_their_spikes():
    values = np.zeros(10_000)
    values[[17, 5000]] = 1e6, -1e6
    thin = thinned(Series.of(values), 100)
    assert len(thin) <= 100
    assert {17, 5000} <= set(thin.steps.tolist())
    assert (np.diff(thin.steps) > 0).all()


def test_a_growing_record_is_read_once_and_whole(tmp_path):
    file = tmp_path / "record.sqlite"
    rng = np.random.default_rng(0)
    writer = Writer(file, meta={}, chunk=16)
    writer.program({"layers": []})
    growing = Growing(file)
    found = {}
    row, sample = (("loss", ""), ("grad_norm", "")), (("back_rms", "a"), ("back_rms", "b"))
    for step in range(500):
        writer.row(step, row, rng.normal(size=2).tolist())
        if step % 7 == 0:
            writer.sample(step, sample, rng.normal(size=2))
        if step % 37 == 0:
            writer.flush()
            for key, new in growing.new().items():
                found.setdefault(key, []).extend(zip(new.steps.tolist(), new.values.tolist(), strict=True))
    writer.close(status="finished", steps=500)
    for key, new in growing.new().items():
        found.setdefault(key, []).extend(zip(new.steps.tolist(), new.values.tolist(), strict=True))
    assert growing.new() == {}
    record = Record.read(file)
    assert set(found) == {*row, *sample}
    for key, numbers in found.items():
        whole = record.series(*key)
        assert numbers == list(zip(whole.steps.tolist(), whole.values.tolist(), strict=True))


@pytest.mark.slow
def test_a_training_is_sent_while_it_runs_and_at_its_end():
    kept = Kept()
    with unstuck.watch(probe_budget=0.0).log_to(kept) as run:
        train(15)
        until = time.monotonic() + 60
        while not kept.numbers and time.monotonic() < until:
            time.sleep(0.05)
        assert kept.numbers, "nothing came while the training ran"
        assert not kept.texts
        train(15)
    loss = run.record.series("loss")
    assert [step for step, _ in kept.series("unstuck/loss")] == loss.steps.tolist()  # few enough to be sent all
    assert [value for _, value in kept.series("unstuck/loss")] == pytest.approx(loss.values.tolist(), rel=1e-6)
    assert len(kept.numbers) == len({(step, name) for step, name, _ in kept.numbers})  # nothing twice
    assert run.verdict.verdict.upper() in kept.texts["unstuck/verdict"]
    assert len(kept.pages) == 1


def test_it_may_begin_in_the_middle_and_after_the_end():
    late, later = Kept(), Kept()
    with unstuck.watch(probe_budget=0.0) as run:
        train(5)
        run.log_to(late)
    run.log_to(later)
    assert len(late.series("unstuck/loss")) == len(later.series("unstuck/loss")) == 5


class Broken(Kept):
    def scalars(self, values, step):
        raise ConnectionError("no route to the tracker")


def test_a_tracker_that_raises_is_told_of_once_and_the_training_goes_on(caplog):
    broken, kept = Broken(), Kept()
    with (
        caplog.at_level(logging.WARNING, "unstuck"),
        unstuck.watch(probe_budget=0.0).log_to(broken).log_to(kept),
    ):
        train(5)
    assert [r.getMessage() for r in caplog.records] == [
        "unstuck sends nothing more to Broken: ConnectionError: no route to the tracker"
    ]
    assert broken.texts == {}
    assert len(kept.series("unstuck/loss")) == 5


def test_a_verdict_that_cant_be_had_ends_no_training(caplog, monkeypatch):
    def refuse(record):
        raise ArithmeticError("a rule went wrong")

    kept = Kept()
    monkeypatch.setattr("unstuck.doctor.diagnose", refuse)
    with caplog.at_level(logging.WARNING, "unstuck"), unstuck.watch(probe_budget=0.0).log_to(kept):
        train(5)
    assert [r.getMessage() for r in caplog.records] == [
        "unstuck sends nothing more to Kept: ArithmeticError: a rule went wrong"
    ]
    assert len(kept.series("unstuck/loss")) == 5


def test_what_is_no_tracker_is_refused():
    with pytest.raises(MisuseError, match="can't log to a int; there are aim, mlflow, tensorboard, wandb"):
        trackers.tracker(3)
    with pytest.raises(NotFoundError, match="there is no tracker 'tensorbored'"):
        trackers.tracker("tensorbored:logs")


def test_others_join_by_entry_point(monkeypatch):
    kept = Kept()
    entry = types.SimpleNamespace(name="mine", load=lambda: lambda given, where: kept if given in ("mine", 7) else None)
    monkeypatch.setattr(trackers, "entry_points", lambda group: [entry] if group == "unstuck.trackers" else [])
    assert trackers.tracker("mine") is kept
    assert trackers.tracker(7) is kept


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard.SummaryWriter(str(tmp_path / "theirs")) as writer:
        trackers.export(of_two_layers(), writer)
        writer.add_scalar("mine", 1.0, 0)  # it is still theirs
    trackers.export(of_two_layers(), f"tensorboard:{tmp_path / 'ours'}")
    for folder in ("theirs", "ours"):
        read = EventAccumulator(str(tmp_path / folder), size_guidance={"scalars": 0, "tensors": 0})
        read.Reload()
        assert [(e.step, e.value) for e in read.Scalars("unstuck/loss")] == [(0, 3.0), (2, 1.0)]
        assert [(e.step, e.value) for e in read.Scalars("unstuck/gradient/net.0")] == [(0, 0.5), (2, 0.25)]
        (text,) = read.Tensors("unstuck/verdict/text_summary")
        assert text.step == 2
        assert text.tensor_proto.string_val[0].decode() == of_verdict()
        assert (tmp_path / folder / "unstuck.html").read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.slow
def test_weights_and_biases(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="unstuck", mode="offline", dir=tmp_path)
    try:
        run.log({"mine": 1.0})
        trackers.export(of_two_layers(), wandb)
        summary = {
            name: run.summary[name] for name in ("unstuck/loss", "unstuck/step", "unstuck/gradient/net.0", "mine")
        }
        text = run.summary["unstuck/verdict"]
    finally:
        run.finish()
    assert summary == {"unstuck/loss": 1.0, "unstuck/step": 2, "unstuck/gradient/net.0": 0.25, "mine": 1.0}
    assert text == of_verdict()
    assert any(path.read_text("utf-8").startswith("<!doctype html>") for path in tmp_path.rglob("*.html"))


def of_verdict():
    kept = Kept()
    trackers.export(of_two_layers(), kept)
    return kept.texts["unstuck/verdict"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its database's driver
def test_mlflow(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    try:
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
        client = mlflow.MlflowClient()
        experiment = client.create_experiment("unstuck", artifact_location=(tmp_path / "artifacts").as_uri())
    except (ImportError, mlflow.MlflowException) as error:  # the small package has no store of its own
        pytest.skip(f"no local store: {error}")
    run = client.create_run(experiment)
    trackers.export(of_two_layers(), client, run.info.run_id)
    history = client.get_metric_history(run.info.run_id, "unstuck/loss")
    assert [(m.step, m.value) for m in history] == [(0, 3.0), (2, 1.0)]
    found = {a.path for a in client.list_artifacts(run.info.run_id, "unstuck")}
    assert found == {"unstuck/verdict.md", "unstuck/unstuck.html"}


def test_an_mlflow_client_needs_to_know_its_run():
    client = type("MlflowClient", (), {"__module__": "mlflow.tracking.client"})()
    with pytest.raises(MisuseError, match="needs the id of the run"):
        trackers.tracker(client)


class Run:
    """What Aim's `Run` has for this: `track(value, name, step, epoch, *, context)`, as its documentation says."""

    __module__ = "aim.sdk.run"

    def __init__(self):
        self.tracked = []

    def track(self, value, name=None, step=None, epoch=None, *, context=None):
        self.tracked.append((name, step, context, value))


def test_aim_by_a_stand_in_for_its_run(monkeypatch):
    aim = types.ModuleType("aim")
    aim.Text = lambda text: ("text", text)
    monkeypatch.setitem(sys.modules, "aim", aim)
    run = Run()
    trackers.export(of_two_layers(), run)
    assert ("unstuck/loss", 0, {}, 3.0) in run.tracked
    assert ("unstuck/gradient", 2, {"layer": "net.0"}, 0.25) in run.tracked
    name, step, context, (kind, _) = run.tracked[-1]
    assert (name, step, context, kind) == ("unstuck/verdict", None, None, "text")


def test_names_that_mlflow_takes():
    assert _tracker_kinds._allowed("unstuck/loss/train.py:31 (aux)") == "unstuck/loss/train.py_31 _aux_"
