"""What is true of all remedies, those of tomorrow too."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest

from unstuck import _discover
from unstuck.evidence import Optimizer, Task
from unstuck.program import edits_of
from unstuck.report._remedies import REMEDIES as WORDS
from unstuck.source import EditError, compiled, edited
from unstuck.verdict import CAUSES

REMEDIES = _discover.find("remedies")
CURES = (Path(__file__).parents[2] / "docs" / "cure.md").read_text().partition("## The remedies")[2]
MODULES = {
    "data": "p = 0.3\nx, y = torch.randn(64, 4), torch.randn(64, 1)  # the data",
    "net": (
        "net = nn.Sequential(\n    nn.Linear(4, 8),\n    nn.BatchNorm1d(8),\n    nn.Sigmoid(),\n    nn.Dropout(p),\n"
        "    nn.Linear(8, 1),\n    nn.Sigmoid(),\n)"
    ),
    "optimizer": "torch.optim.SGD(net[0].parameters(), lr=0.1, weight_decay=0.1)",
    "loss": "F.mse_loss(net(x), y, reduction='sum')",
}
CLASS = """
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader


class Net(nn.Module):
    def __init__(self, hidden=8):
        super().__init__()
        self.fc1 = nn.Linear(4, hidden)
        self.drop = nn.Dropout(p=0.5)
        self.fc2 = nn.Linear(hidden, 3)

    def forward(self, x):
        return F.softmax(self.fc2(self.drop(torch.tanh(self.fc1(x)))), dim=1)


def train(model, loader, criterion, optimizer):
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()


@torch.no_grad()
def evaluate(model, loader, criterion):
    model.eval()
    return sum(criterion(model(images), labels).item() for images, labels in loader)


def main(lr=0.1, epochs=10):
    model = Net()
    loader = DataLoader(load(), batch_size=256)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=lr)
    for epoch in range(1, epochs + 1):
        train(model, loader, criterion, optimizer)
        loss = evaluate(model, loader, criterion)
        print(epoch, loss)


if __name__ == "__main__":
    main()
"""
BY_HAND = """
import torch

torch.manual_seed(0)
lr = 0.1
x, y = torch.randn(64, 4), torch.randn(64, 3)
w1 = torch.randn(4, 8, requires_grad=True)
w2 = torch.randn(8, 3, requires_grad=True)
for step in range(100):
    rows = torch.randint(64, (256,))
    out = torch.tanh(x[rows] @ w1) @ w2
    loss = ((out - y[rows]) ** 2).sum() + 0.1 * w1.norm()
    loss.backward()
    with torch.no_grad():
        for w in (w1, w2):
            w -= lr * w.grad
            w.grad = None
"""
SPECIAL = {
    "gating": "recurrent",
    "smooth-loss": "of overlap",
    "residual": "as wide as what it is given",
    "evaluation-scale": "scaled",
    "target-scale": "scaled",
}
WRITTEN = ("modules", "class", "by hand")


@pytest.fixture(params=sorted(REMEDIES), ids=str)
def name(request):
    """Each remedy in turn."""
    return request.param


@pytest.fixture
def usual(script, by_hand):
    """Small scripts as people write them."""
    columns = {"output_shape": (64, 1), "target_shape": (64, 1), "target_kind": "real"}
    classes = {
        "output_shape": (64, 3),
        "target_shape": (64,),
        "target_kind": "class index",
        "chain": ("linear", "softmax"),
    }

    def make(written):
        known = {"inputs": {}, "batch": 256, "meta": {"steps": 100}}
        if written == "modules":
            sgd, task = (
                Optimizer("SGD", settings={"weight_decay": 0.1}),
                Task("regression", target_mean=3.0, target_std=9.0),
            )
            return script(**MODULES, loss_call=columns, optimizers=[sgd], task=task, **known)
        if written == "class":
            task = Task("classification", 3, label_share=(0.8, 0.1, 0.1))
            return script(CLASS, loss_call=classes, task=task, **known)
        return script(BY_HAND, loss_call={**columns, "output_shape": (256, 3)}, **by_hand, **known)

    return make


def module(name):
    """The file of a remedy."""
    return sys.modules[REMEDIES[name].__module__]


def treatments(name, made, found):
    """What is proposed for each cause, and the edits where these can be made."""
    proposed = [settings for cause in CAUSES for settings in module(name).propose(made, found(cause))]
    for settings in {json.dumps(s): s for s in proposed}.values():
        try:
            yield settings, REMEDIES[name](made, **settings)
        except EditError as error:
            assert str(error)
            assert not str(error).endswith(".")


def test_docstring(name):
    text = inspect.getdoc(REMEDIES[name])
    assert re.search(r"^Args:\n    script: ", text, re.M)
    assert re.search(r"^Returns:\n    The edits\.", text, re.M)
    assert text.splitlines()[0].endswith("."), "one sentence on the first line"
    assert module(name).__doc__
    assert module(name).propose.__doc__


def test_words(name):
    assert name in WORDS, "what a report says of it"
    assert f"`{name}`" in CURES, "what the documentation says of it"


def test_signature(name):
    first, *settings = inspect.signature(REMEDIES[name]).parameters.values()
    assert first.name == "script"
    assert all(s.kind is s.KEYWORD_ONLY for s in settings), "settings go by their names"
    assert list(inspect.signature(module(name).propose).parameters) == ["script", "verdict"]


@pytest.mark.parametrize("written", WRITTEN)
def test_proposed_settings_are_plain_and_fit(name, usual, found, written):
    made = usual(written)
    for cause in (None, *CAUSES):
        proposed = module(name).propose(made, found(*[cause] * (cause is not None)))
        assert len(proposed) <= 4, "each costs a run"
        for settings in proposed:
            assert json.loads(json.dumps(settings)) == settings
            inspect.signature(REMEDIES[name]).bind(made, **settings)


@pytest.mark.parametrize("written", WRITTEN)
def test_what_is_written_is_python_and_the_rest_stays(name, usual, found, written):
    made = usual(written)
    for settings, edits in treatments(name, made, found):
        assert edits, settings
        text = edited(made.main, edits)
        compiled(made.main, edits)
        before, after = made.main.text.splitlines(), text.splitlines()
        changed = [
            op for op in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes() if op[0] != "equal"
        ]
        assert changed, settings
        assert sum(op[2] - op[1] for op in changed) <= 5, "lines that are changed"
        most = 20 if settings.get("along") == "curvature" else 10  # a power iteration is a function of its own
        assert sum(op[4] - op[3] for op in changed) <= most, "lines that are written"
        assert all(line == line.rstrip() and len(line) < 200 for op in changed for line in after[op[3] : op[4]])


@pytest.mark.slow
@pytest.mark.parametrize("written", WRITTEN)
def test_it_proposes_the_same_again(name, usual, found, written):
    first, second = (list(treatments(name, usual(written), found)) for _ in range(2))
    assert first == second


def test_each_can_be_written_into_one_of_them(name, usual, found):
    some = any(list(treatments(name, usual(written), found)) for written in WRITTEN)
    assert some == (name not in SPECIAL), f"none is {SPECIAL.get(name)}"


@pytest.mark.parametrize("written", WRITTEN)
def test_two_that_are_given_together_are_both_there(name, usual, found, written):
    made = usual(written)
    (_, longer), *_ = treatments("train-longer", made, found)
    for _, edits in treatments(name, made, found):
        if name == "train-longer":
            continue
        text = edited(made.main, edits_of([longer, edits]))
        assert set(edited(made.main, edits).splitlines()) - set(text.splitlines()) <= set(made.main.text.splitlines())


def test_a_script_of_which_nothing_is_known(name, script, found):
    made = script("print('hello')\n", losses=[], optimizers=[])
    try:
        proposed = module(name).propose(made, found())
    except EditError:
        return
    for settings in proposed:
        with pytest.raises(EditError):
            REMEDIES[name](made, **settings)
