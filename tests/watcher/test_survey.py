"""Where in the user's files things are made and called."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import unstuck
from unstuck.evidence import Record
from unstuck.watcher.patches import Patches
from unstuck.watcher.session import Session
from unstuck.watcher.survey import Survey

PLAIN = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(8, 12),  # at inner.0
            nn.ReLU(),  # at inner.1
        )
        self.head = nn.Linear(12, 3)  # at head

    def forward(self, x):
        return self.head(self.inner(x))

x = torch.randn(32, 8)
y = x[:, :3].argmax(1)
test = DataLoader(TensorDataset(x, y), batch_size=32)  # at test loader
loader = DataLoader(TensorDataset(x, y), batch_size=16)  # at loader
net = Net()  # at net
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)  # at optimizer
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5)  # at schedule
for epoch in range(2):
    net.train()  # at train
    for a, b in loader:
        optimizer.zero_grad()  # at zero_grad
        loss = nn.functional.cross_entropy(net(a), b)
        loss.backward()  # at backward
        optimizer.step()  # at step
    schedule.step()
    net.eval()  # at eval
    with torch.no_grad():
        for a, b in test:
            net(a)
"""
FUNCTIONS = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import parts

def loader(rows, batch):
    return DataLoader(TensorDataset(rows), batch_size=batch)  # at loader

def train(net, optimizer, batches):
    for (a,) in batches:
        net.zero_grad()  # at zero_grad
        net(a).square().mean().backward()  # at backward
        optimizer.step()  # at step

def main():
    rows = torch.randn(32, 8)
    test = loader(rows, 32)
    net = parts.network()
    optimizer = torch.optim.Adam(net.parameters())  # at optimizer
    for (a,) in test:
        net(a)
    train(net, optimizer, loader(rows, 16))

if __name__ == "__main__":
    main()
"""
PARTS = """
from torch import nn

def network():
    return nn.Sequential(  # at net
        nn.Linear(8, 4),  # at 0
    )
"""


@pytest.fixture
def surveyed(tmp_path, monkeypatch):
    """Runs a script in this process under a survey and gives its record, and the line of a mark in a file."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "parts", raising=False)

    def run(text, parts=""):
        texts = {"script.py": text, "parts.py": parts}
        for name, its in texts.items():
            (tmp_path / name).write_text(its)
        session = Session(tmp_path / "record.sqlite", budget=1.0, probe_budget=0.1)
        session.attach()
        session.survey = Survey()
        session.survey.attach(session.patches)
        torch.manual_seed(0)
        try:
            names = runpy.run_path(str(tmp_path / "script.py"), run_name="__main__")
            monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(**names))  # as it is when a script ends
        finally:
            session.probe_budget = 0.0  # batches are kept, but no experiments are made
            session.close()
        sys.modules.pop("parts", None)
        record = Record.read(tmp_path / "record.sqlite")
        assert not record.happened("watcher-error"), record.happened("watcher-error")

        def at(mark, file="script.py"):
            lines = [i for i, line in enumerate(texts[file].splitlines(), 1) if line.endswith(f"# at {mark}")]
            return str(tmp_path / file), lines[0]

        return record, at

    return run


def sites(record, what):
    return [e.data for e in record.happened("site") if e.data["what"] == what]


def places(record, what):
    return [(s["file"], s["line"]) for s in sites(record, what)]


def test_a_plain_script(surveyed):
    record, at = surveyed(PLAIN)
    modules = {s["path"]: (s["file"], s["line"]) for s in sites(record, "module")}
    assert {path: modules[path] for path in ("", "inner.0", "inner.1", "head")} == {
        "": at("net"), "inner.0": at("inner.0"), "inner.1": at("inner.1"), "head": at("head"),
    }  # fmt: skip
    assert {(s["name"], s["root"]) for s in sites(record, "module") if s["path"] in ("", "head")} == {
        ("Net", "Net"),
        ("Linear", "Net"),
    }
    for what in ("backward", "step", "zero_grad", "train", "eval", "schedule"):
        assert places(record, what) == [at(what)], what
    (optimizer,) = sites(record, "optimizer")
    assert (optimizer["file"], optimizer["line"]) == at("optimizer")
    assert (optimizer["name"], optimizer["index"]) == ("SGD", 0)
    trained = {(s["file"], s["line"]): s["trained"] for s in sites(record, "loader")}
    assert trained == {at("loader"): True, at("test loader"): False}


def test_functions_and_imported_files_though_all_is_gone_at_the_end(surveyed):
    record, at = surveyed(FUNCTIONS, PARTS)
    modules = {s["path"]: (s["file"], s["line"]) for s in sites(record, "module")}
    assert modules == {"": at("net", "parts.py"), "0": at("0", "parts.py")}
    for what in ("backward", "step", "zero_grad", "optimizer"):
        assert places(record, what) == [at(what)], what
    (loader,) = sites(record, "loader")  # one line makes that which is trained on, and another
    assert ((loader["file"], loader["line"]), loader["trained"]) == (at("loader"), True)


def test_backward_by_autograd_and_gradients_without_backward(surveyed):
    text = PLAIN.replace("loss.backward()", "torch.autograd.backward(loss)")
    record, at = surveyed(text)
    assert places(record, "backward") == [at("backward")]
    assert {s["path"] for s in sites(record, "module")} >= {"", "head"}


def test_two_optimizers_in_the_order_in_which_they_step(surveyed):
    text = PLAIN.replace(
        "schedule = ", "other = torch.optim.Adam(net.head.parameters())  # at other\nschedule = "
    ).replace("        optimizer.step()  # at step", "        other.step()\n        optimizer.step()  # at step")
    record, at = surveyed(text)
    assert [(s["file"], s["line"]) for s in sorted(sites(record, "optimizer"), key=lambda s: s["index"])] == [
        at("other"),
        at("optimizer"),
    ]


def test_a_second_network_is_told_at_the_end(surveyed):
    later = "late = nn.Linear(8, 1)  # at late\ntorch.optim.SGD(late.parameters(), lr=0.1)\nlate(x).mean().backward()\n"
    record, at = surveyed(PLAIN + later)
    assert at("late") in places(record, "module")


def test_the_inputs_and_the_variable_that_holds_them(surveyed):
    loop = """
import torch
from torch import nn
data = 3 + 2 * torch.randn(64, 8)
net = nn.Linear(8, 3)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
for i in range(8):
    a = data[8 * i : 8 * i + 8]
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(a), a[:, :3].argmax(1)).backward()
    optimizer.step()
"""
    record, _ = surveyed(loop)
    (event,) = record.happened("inputs")
    torch.manual_seed(0)
    data = 3 + 2 * torch.randn(64, 8)
    assert event.data["variable"] == "data"
    assert event.data["shape"] == [64, 8]
    assert event.data["mean"] == pytest.approx(data.mean(0).tolist(), rel=1e-4)
    assert event.data["std"] == pytest.approx(data.std(0, correction=0).tolist(), rel=1e-4)
    assert event.data["all_mean"] == pytest.approx(float(data.mean()), rel=1e-4)


def test_inputs_of_a_part_are_those_of_the_part_and_no_variable_holds_them(surveyed):
    loop = """
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
data = torch.cat([torch.full((40, 8), 3.0), torch.full((60, 8), 100.0)])
part = Subset(TensorDataset(data, torch.arange(100) % 3), range(40))
net = nn.Linear(8, 3)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
loader = DataLoader(part, batch_size=8, shuffle=True)
for a, b in loader:
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(a), b).backward()
    optimizer.step()
"""
    record, _ = surveyed(loop)
    (event,) = record.happened("inputs")
    assert (event.data["shape"], event.data["variable"]) == ([40, 8], "")
    assert event.data["mean"] == [3.0] * 8 and event.data["all_std"] == 0


def test_files_beside_ours_are_the_users():
    survey = Survey()
    folder = Path(unstuck.__file__).parent
    assert not survey._is_users(str(folder / "doctor.py"))
    assert not survey._is_users(torch.__file__)
    assert not survey._is_users("<stdin>")
    assert not survey._is_users(str(folder / "nowhere.py"))
    assert survey._is_users(__file__)


def test_a_folder_whose_name_begins_as_ours_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setattr("unstuck.watcher.survey._LIBRARIES", (f"{tmp_path}/lib/",))
    for name in ("lib", "library"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").touch()
    assert not Survey()._is_users(str(tmp_path / "lib" / "train.py"))
    assert Survey()._is_users(str(tmp_path / "library" / "train.py"))


def attached():
    patches = Patches()
    Survey().attach(patches)
    return patches


def test_modules_that_cannot_be_hashed_harm_nobody():
    class Odd(nn.Module):
        __hash__ = None

    patches = attached()
    try:
        Odd()
    finally:
        patches.undo()


def test_torch_is_as_before_when_it_is_detached():
    def there():
        return (
            nn.Module.__init__, nn.Module.train, nn.Module.zero_grad, torch.Tensor.backward, torch.autograd.backward,
            torch.optim.Optimizer.__init__, torch.optim.Optimizer.zero_grad, DataLoader.__init__,
        )  # fmt: skip

    before = there()
    patches = attached()
    assert not set(before) & set(there())
    patches.undo()
    assert there() == before
