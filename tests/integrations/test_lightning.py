"""Lightning: the callback finds what `unstuck run` finds, ends with the training in whatever way, and leaves torch as it was."""

import csv
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import unstuck
from unstuck.errors import MisuseError, SickError

pytestmark = pytest.mark.slow
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pl = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.loggers import CSVLogger
    from lightning.pytorch.profilers import SimpleProfiler

    from unstuck.integrations.lightning import UnstuckCallback

PROGRAM = """
import sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lightning.pytorch as pl

kind = sys.argv[1]


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        act, depth = (nn.Sigmoid, 8) if kind == "sigmoid" else (nn.ReLU, 2)
        middle = [m for _ in range(depth - 1) for m in (nn.Linear(32, 32), act())]
        self.net = nn.Sequential(nn.Linear(16, 32), act(), *middle, nn.Linear(32, 3))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=50.0 if kind == "rate" else 0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 100)]


pl.seed_everything(0)
x = torch.randn(640, 16)
y = (x @ torch.randn(16, 3)).argmax(1)
train = DataLoader(TensorDataset(x[:512], y[:512]), batch_size=32, shuffle=True)
val = DataLoader(TensorDataset(x[512:], y[512:]), batch_size=32)
callbacks = []
if len(sys.argv) > 2:
    from unstuck.integrations.lightning import UnstuckCallback

    callbacks = [UnstuckCallback(json=sys.argv[2], report=False, budget=0.0, probe_budget=0.0)]
trainer = pl.Trainer(
    max_epochs=6, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, callbacks=callbacks,
)
trainer.fit(Net(), train, val)
"""


def test_finds_what_unstuck_run_finds(both_ways, assert_same):
    found = both_ways(PROGRAM, "healthy", "sigmoid", "rate")
    for script, callback in found.values():
        assert_same(script, callback)
    causes = {
        kind: [f["cause"] for f in script["findings"] if f["severity"] == "error"]
        for kind, (script, _) in found.items()
    }
    assert causes["healthy"] == []
    assert "vanishing-gradient" in causes["sigmoid"]
    assert "learning-rate-too-high" in causes["rate"]


class Net(pl.LightningModule):
    def __init__(self, at_step=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        self.at_step = at_step

    def training_step(self, batch, index):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        return self.at_step(loss) if self.at_step is not None and self.global_step == 20 else loss

    def validation_step(self, batch, index):
        self.net(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)


@pytest.fixture
def fit(tmp_path):
    """Trains for 128 steps with a callback, unless something happens before."""

    def run(callback, at_step=None, *, logger=False, profiler=None):
        torch.manual_seed(0)
        x = torch.randn(512, 4)
        y = (x @ torch.randn(4, 3)).argmax(1)
        train = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = pl.Trainer(
                max_epochs=8, accelerator="cpu", logger=logger, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, callbacks=callback, log_every_n_steps=64, default_root_dir=tmp_path,
                profiler=profiler,
            )  # fmt: skip
            trainer.fit(Net(at_step), train, DataLoader(TensorDataset(x[:64], y[:64]), batch_size=32))
        return trainer

    return run


def untouched():
    return (nn.Module.__call__, torch.Tensor.backward, torch.autograd.backward, DataLoader.__iter__)


def test_the_report_comes_at_the_end_and_torch_is_as_it_was(fit, tmp_path, capsys):
    before = untouched()
    callback = UnstuckCallback(runs=tmp_path, probe_budget=0.0, json=tmp_path / "verdict.json")
    assert callback.run is None and callback.verdict is None
    fit(callback)
    assert untouched() == before
    assert "HEALTHY" in capsys.readouterr().out
    assert (tmp_path / "verdict.json").exists()
    assert callback.verdict.verdict == "healthy"
    record = callback.run.record
    assert (record.steps, record.meta["status"]) == (128, "finished")
    assert record.program.models[0].kind == "Net"


def test_the_sanity_check_is_no_evaluation(fit, tmp_path):
    callback = UnstuckCallback(runs=tmp_path, probe_budget=0.0, report=False, budget=1.0)
    fit(callback)
    record = callback.run.record
    assert min(event.step for event in record.happened("eval")) == 16  # after the first of eight epochs
    assert len(record.happened("epoch")) == 8  # the first pass over the loader was seen to begin


@pytest.mark.parametrize(("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_an_error_ends_the_watch_and_is_told(fit, tmp_path, capsys, error, status):
    def raises(loss):
        raise error("of the script")

    before = untouched()
    callback = UnstuckCallback(runs=tmp_path, fail_on="note")
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        fit(callback, raises)
    assert untouched() == before
    assert (callback.run.record.meta["status"], callback.run.record.steps) == (status, 20)
    assert "record" in capsys.readouterr().out


def test_stops_at_numbers_that_are_none_where_asked(fit, tmp_path):
    asked = UnstuckCallback(runs=tmp_path, report=False, stop_on="error", probe_budget=0.0)
    assert 20 < fit(asked, lambda loss: loss * float("nan")).global_step < 64
    assert asked.verdict.findings[0].cause == "non-finite"
    silent = UnstuckCallback(runs=tmp_path, report=False, probe_budget=0.0)
    assert fit(silent, lambda loss: loss * float("nan")).global_step == 128


def test_fails_after_the_training_where_asked(fit, tmp_path):
    callback = UnstuckCallback(runs=tmp_path, report=False, fail_on="error", probe_budget=0.0)
    with pytest.raises(SickError, match="non-finite"):
        fit(callback, lambda loss: loss * float("nan"))
    assert callback.run.record.steps == 128


def test_logs_the_verdict_in_numbers(fit, tmp_path):
    logger = CSVLogger(tmp_path)
    fit(UnstuckCallback(runs=tmp_path, report=False, log=True, probe_budget=0.0), logger=logger)
    last = list(csv.DictReader(Path(logger.log_dir, "metrics.csv").read_text().splitlines()))[-1]
    assert (float(last["unstuck/errors"]), float(last["unstuck/warnings"]), last["step"]) == (0, 0, "128")
    assert 0 < float(last["unstuck/overhead"]) < 1


def test_hooks_are_called_for_each_batch_only_where_they_do_something(fit, tmp_path):
    class Mine(UnstuckCallback):
        batches = 0

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.batches += 1

    def called(callback):
        profiler = SimpleProfiler()
        fit(callback, profiler=profiler)
        actions = {name: len(times) for name, times in profiler.recorded_durations.items()}
        name = type(callback).__qualname__
        return {a.rpartition(".")[2]: n for a, n in actions.items() if f"]{name}." in a and n > 100}

    options = {"runs": tmp_path, "report": False, "probe_budget": 0.0}
    mine = Mine(**options)
    assert called(UnstuckCallback(**options)) == {}
    assert called(UnstuckCallback(**options, stop_on="error")) == {"on_train_batch_end": 128}
    assert called(mine) == {"on_train_batch_start": 128}
    assert mine.batches == 128


def test_options_are_checked_before_anything_is_trained(tmp_path):
    with pytest.raises(MisuseError, match="fail_on is 'fatal'"):
        UnstuckCallback(fail_on="fatal")
    with pytest.raises(MisuseError, match="no folder"):
        UnstuckCallback(html=tmp_path / "nowhere" / "report.html")
    with pytest.raises(MisuseError, match="stop_on is 'warning'"):
        UnstuckCallback(stop_on="warning")


def test_works_inside_a_watched_block(fit, tmp_path):
    with unstuck.watch(runs=tmp_path / "outer", probe_budget=0.0) as outer:
        callback = UnstuckCallback(runs=tmp_path, report=False, probe_budget=0.0)
        fit(callback)
    assert callback.run.record.steps == outer.record.steps == 128
    assert callback.verdict.verdict == outer.verdict.verdict == "healthy"
