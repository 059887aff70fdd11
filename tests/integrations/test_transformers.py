"""Hugging Face Trainer: the callback finds what `unstuck run` finds, and is closed also where the trainer says nothing of an error."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from unstuck.errors import SickError

pytestmark = pytest.mark.slow
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    from unstuck.integrations.transformers import UnstuckCallback

PROGRAM = """
import sys
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

kind = sys.argv[1]


class Counting(torch.utils.data.Dataset):
    def __init__(self, size):
        start, step = torch.randint(0, 16, (size, 1)), torch.randint(1, 3, (size, 1))
        self.tokens = (start + step * torch.arange(12)) % 16

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        middle = [m for _ in range(7) for m in (nn.Linear(32, 32), nn.Sigmoid())]
        self.net = nn.Sequential(nn.Linear(96, 32), nn.Sigmoid(), *middle)
        self.head = nn.Linear(32, 2)

    def forward(self, input_ids, labels=None):
        logits = self.head(self.net(self.embed(input_ids).flatten(1)))
        step = (labels[:, 1] - labels[:, 0]).remainder(16) - 1
        return {"loss": nn.functional.cross_entropy(logits, step), "logits": logits}


set_seed(0)
config = GPT2Config(
    n_layer=2, n_head=2, n_embd=32, vocab_size=16, n_positions=16, bos_token_id=0, eos_token_id=0,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
)
model = Deep() if kind == "sigmoid" else GPT2LMHeadModel(config)
args = TrainingArguments(
    "out", num_train_epochs=6, per_device_train_batch_size=32, report_to=[], save_strategy="no", eval_strategy="epoch",
    use_cpu=True, disable_tqdm=True, lr_scheduler_type="constant", optim="adamw_torch" if kind == "healthy" else "sgd",
    learning_rate={"healthy": 5e-3, "sigmoid": 0.1, "rate": 5.0}[kind], max_grad_norm=1.0 if kind == "healthy" else 0.0,
)
callbacks = []
if len(sys.argv) > 2:
    from unstuck.integrations.transformers import UnstuckCallback

    callbacks = [UnstuckCallback(json=sys.argv[2], report=False, budget=0.0, probe_budget=0.0)]
Trainer(model, args, train_dataset=Counting(512), eval_dataset=Counting(128), callbacks=callbacks).train()
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
    assert causes["rate"] == ["learning-rate-too-high"]  # and not the sum, which is divided by what it runs over


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 512

    def __getitem__(self, index):
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return {"x": x, "labels": (x[0] > 0).long()}


class Net(nn.Module):
    def __init__(self, at_step=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        self.at_step, self.steps = at_step, 0

    def forward(self, x, labels=None):
        loss = nn.functional.cross_entropy(self.net(x), labels)
        self.steps += 1
        return {"loss": self.at_step(loss) if self.at_step is not None and self.steps > 20 else loss}


@pytest.fixture
def train(tmp_path):
    """Trains for 64 steps with a callback, unless something happens before."""

    def run(callback, at_step=None):
        args = TrainingArguments(
            str(tmp_path / "out"), num_train_epochs=4, per_device_train_batch_size=32, report_to=[], save_strategy="no",
            use_cpu=True, disable_tqdm=True, learning_rate=0.02, lr_scheduler_type="cosine",
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = Trainer(Net(at_step), args, train_dataset=Data(), callbacks=[callback])
            trainer.train()
        return trainer

    return run


def untouched():
    return (nn.Module.__call__, torch.Tensor.backward, torch.autograd.backward)


def fails(loss):
    raise ValueError("of the script")


def test_the_report_comes_at_the_end_and_torch_is_as_it_was(train, tmp_path, capsys):
    before = untouched()
    callback = UnstuckCallback(runs=tmp_path, probe_budget=0.0, html=tmp_path / "report.html")
    assert callback.run is None and callback.verdict is None
    train(callback)
    assert untouched() == before
    assert "HEALTHY" in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()
    record = callback.run.record
    assert (record.steps, record.meta["status"]) == (64, "finished")
    assert record.program.optimizers[0].schedule == "LambdaLR"  # made before the training began
    assert record.program.optimizers[0].clipping == "norm 1.0"


def test_an_error_that_the_script_catches_leaves_the_watch_to_the_next_training(train, tmp_path):
    before = untouched()
    first, second = (UnstuckCallback(runs=tmp_path, report=False, probe_budget=0.0) for _ in range(2))
    with pytest.raises(ValueError, match="of the script"):
        train(first, fails)
    train(second)
    assert untouched() == before
    assert (first.run.record.meta["status"], first.run.record.steps) == ("interrupted", 20)
    assert (second.run.record.meta["status"], second.run.record.steps) == ("finished", 64)


def test_an_error_that_ends_the_program_is_told(tmp_path):
    program = tmp_path / "program.py"
    line = "        logits = self.head"
    fails = (
        f"        self.steps = getattr(self, 'steps', 0) + 1\n        assert self.steps <= 20, 'of the script'\n{line}"
    )
    program.write_text(PROGRAM.replace(line, fails).replace("report=False, ", ""))
    done = subprocess.run(
        [sys.executable, str(program), "sigmoid", "verdict.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "AssertionError: of the script" in done.stderr
    assert "failed with AssertionError: of the script" in " ".join(done.stdout.split())
    assert (tmp_path / "verdict.json").exists()


def test_a_notebooks_cell_that_ends_by_an_error_ends_the_watch(train, tmp_path, monkeypatch):
    class Events(dict):
        def unregister(self, name, function):
            assert self.pop(name) == function

    cell = type("Result", (), {"error_in_exec": ValueError("of the script")})
    events = Events()
    events.register = events.__setitem__
    shell = type("Shell", (), {"events": events})
    notebook = type("IPython", (), {"get_ipython": staticmethod(lambda: shell)})
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    callback = UnstuckCallback(runs=tmp_path, report=False)
    before = untouched()
    with pytest.raises(ValueError, match="of the script"):
        train(callback, fails)
    events["post_run_cell"](cell)
    assert untouched() == before and not events
    assert callback.run.record.meta["status"] == "failed"


def test_stops_at_numbers_that_are_none_where_asked(train, tmp_path):
    asked = UnstuckCallback(runs=tmp_path, report=False, stop_on="error", probe_budget=0.0)
    assert 20 < train(asked, lambda loss: loss * float("nan")).state.global_step < 64
    assert asked.verdict.findings[0].cause == "non-finite"


def test_fails_after_the_training_where_asked(train, tmp_path):
    callback = UnstuckCallback(runs=tmp_path, report=False, fail_on="error", probe_budget=0.0)
    with pytest.raises(SickError, match="non-finite"):
        train(callback, lambda loss: loss * float("nan"))
    assert callback.run.record.steps == 64
