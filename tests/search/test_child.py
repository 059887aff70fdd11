"""A child goes on where it was broken off, as if it hadn't been."""

import copy
import json
import math

import pytest
import torch

from unstuck.errors import MisuseError, ScriptError
from unstuck.search.child import Child, Order, loaded, made, main, put_back, splits_of, state_of

FILE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from unstuck.training import Training

def space(draw):
    return {"width": draw.integer("width", 2, 8), "rate": draw.number("rate", 1e-3, 1e9, log=True)}

def training(chosen):
    torch.manual_seed(0)
    x = torch.randn(40, 3)
    model = nn.Sequential(nn.Linear(3, chosen["width"]), nn.Dropout(0.5), nn.Tanh(), nn.Linear(chosen["width"], 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=chosen["rate"])
    batches = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 27)
    return Training(model, nn.functional.cross_entropy, optimizer, batches, epochs=27, schedule=schedule)
"""
VALUES = {"width": 4, "rate": 0.01}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return str(path)


def weights(path):
    return torch.load(path, weights_only=False)["model"]


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
def test_stage_by_stage_is_what_all_at_once_is_to_the_last_bit(file, tmp_path):
    by_stages, at_once = Order(VALUES, 0, 0, str(tmp_path / "a")), Order(VALUES, -1, 0, str(tmp_path / "b"))
    for stage in (0, 1, 2):
        torch.manual_seed(99 + stage)  # a new process begins elsewhere
        main(file, Order(VALUES, stage, 0, by_stages.saved).text())
    main(file, at_once.text())
    assert same(weights(by_stages.after(2)), weights(at_once.after(-1)))


def test_one_that_was_broken_off_goes_on_after_the_epoch_that_it_had_made(file, tmp_path):
    order, whole = Order(VALUES, 0, 0, str(tmp_path / "a")), Order(VALUES, 0, 0, str(tmp_path / "b"))

    class Killed(BaseException):
        pass

    def kill(training, epoch):
        if training.steps_made == 2:
            raise Killed
        training.steps_made += 1

    training = made(loaded(file), order)
    training.steps_made = 1
    child = Child(training, order)
    training.on_epoch.append(lambda t, e: None)
    saved = child._saved
    child._saved = lambda t, e: (saved(t, e), kill(t, e))
    with pytest.raises(Killed):
        child.run()
    assert torch.load(order.between, weights_only=False)["epoch"] == 2
    begun = []
    again = Child(made(loaded(file), order), order)
    again.training.on_epoch.append(lambda t, e: begun.append(1))
    again.run()
    assert len(begun) == 1
    main(file, whole.text())
    assert same(weights(order.after(0)), weights(whole.after(0)))


AVERAGED = (
    FILE.replace(
        "from unstuck.training", "from unstuck.optim.weight_average import WeightAverage\nfrom unstuck.training"
    ).replace(
        "epochs=27,",
        "evaluation=[(x, (x[:, 0] > 0).long())], average=WeightAverage(model, decay=0.9), stopping=Stopping(), epochs=27,",
    )
    + """
class Stopping:
    def __init__(self):
        self.reset()

    def reset(self):
        self.losses = []

    def look(self, training, epoch):
        self.losses.append(epoch.evaluation)
        training.ended = len(self.losses) >= {most}

    def put_back(self, training):
        pass

    def state_dict(self):
        return {"losses": list(self.losses)}

    def load_state_dict(self, state):
        self.losses = state["losses"]
"""
)


def test_an_average_and_what_stops_it_go_on_with_it(file, tmp_path):
    (tmp_path / "mine.py").write_text(AVERAGED.replace("{most}", "99"))
    by_stages, at_once = Order(VALUES, 0, 0, str(tmp_path / "a")), Order(VALUES, -1, 0, str(tmp_path / "b"))
    for stage in (0, 1, 2):
        main(file, Order(VALUES, stage, 0, by_stages.saved).text())
    main(file, at_once.text())
    one, other = (torch.load(o, weights_only=False) for o in (by_stages.after(2), at_once.after(-1)))
    assert one["stopping"] == other["stopping"]
    assert len(one["stopping"]["losses"]) == 27
    assert one["average"]["updates"] == other["average"]["updates"] == 27 * 5
    assert same(one["average"]["averages"], other["average"]["averages"])


def test_one_that_has_ended_by_itself_makes_one_epoch_more_at_each_stage(file, tmp_path):
    (tmp_path / "mine.py").write_text(AVERAGED.replace("{most}", "2"))
    epochs = []
    for stage in (0, 1, 2):
        order = Order(VALUES, stage, 0, str(tmp_path / "a"))
        main(file, order.text())
        epochs.append(torch.load(order.after(stage), weights_only=False)["epoch"])
    assert epochs == [2, 3, 4]


def test_a_spoilt_file_is_begun_anew(file, tmp_path):
    order = Order(VALUES, 0, 0, str(tmp_path / "a"))
    order.between.write_bytes(b"half of it")
    main(file, order.text())
    assert order.after(0).exists()


def test_a_loss_that_is_not_finite_ends_it(file, tmp_path):
    order = Order({"width": 4, "rate": 1e9}, -1, 0, str(tmp_path / "a"))
    training = made(loaded(file), order)
    training.loss = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets) * math.nan
    epochs = []
    child = Child(training, order)
    training.on_epoch.append(lambda t, e: epochs.append(1))
    child.run()
    assert len(epochs) == 1
    assert not order.after(-1).exists()


def test_states_of_all_kinds_of_generators_go_back(file):
    training = made(loaded(file), Order(VALUES))
    state = copy.deepcopy(state_of(training))
    first = [p.clone() for p in training.model.parameters()], torch.rand(3)
    training.run()
    put_back(training, state)
    assert torch.equal(first[1], torch.rand(3))
    assert all(torch.equal(a, b) for a, b in zip(first[0], training.model.parameters(), strict=True))


def test_an_order_is_json():
    order = Order(VALUES, 1, 2, "here")
    assert Order(**json.loads(order.text())) == order


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("def space(draw): return 1\n", ScriptError, "no function 'training'"),
        (
            "def space(draw): return draw.integer('n', 1, 2)\ndef training(): pass\n",
            MisuseError,
            "must take what the space chose",
        ),
        (
            "def space(draw): return draw.integer('n', 1, 2)\ndef training(n): return n\n",
            MisuseError,
            "must give an unstuck.Training",
        ),
        (
            "def splits(): return []\ndef space(draw): return draw.integer('n', 1, 2)\ndef training(n, s): pass\n",
            MisuseError,
            "gives none",
        ),
    ],
)
def test_a_file_that_is_no_search_says_why(tmp_path, text, error, words):
    path = tmp_path / "odd.py"
    path.write_text(text)
    with pytest.raises(error, match=words.replace("(", r"\(")):
        made(loaded(str(path)), Order({"n": 1}))


def test_splits_are_those_of_the_file(tmp_path):
    path = tmp_path / "folds.py"
    path.write_text("def splits(): return ['a', 'b']\ndef space(draw): return 1\ndef training(n, split): pass\n")
    assert splits_of(loaded(str(path))) == ["a", "b"]


def test_a_file_that_is_not_there():
    with pytest.raises(ScriptError, match="no Python file"):
        loaded("nowhere.py")
