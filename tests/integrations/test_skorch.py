"""skorch: the callback finds what `unstuck run` finds, is cloned as a parameter, and leaves torch as it was."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError, SickError

pytestmark = pytest.mark.slow
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    skorch = pytest.importorskip("skorch")
    from sklearn.base import clone

    from unstuck.integrations.skorch import UnstuckCallback

PROGRAM = """
import sys
import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

kind = sys.argv[1]
torch.manual_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(640, 16)).astype("float32")
y = (x @ rng.normal(size=(16, 3))).argmax(1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        act, depth = (nn.Sigmoid, 8) if kind == "sigmoid" else (nn.ReLU, 2)
        middle = [m for _ in range(depth - 1) for m in (nn.Linear(32, 32), act())]
        self.body = nn.Sequential(nn.Linear(16, 32), act(), *middle, nn.Linear(32, 3))

    def forward(self, x):
        return self.body(x)


callbacks = []
if len(sys.argv) > 2:
    from unstuck.integrations.skorch import UnstuckCallback

    callbacks = [UnstuckCallback(json=sys.argv[2], report=False, budget=0.0, probe_budget=0.0)]
net = NeuralNetClassifier(Net, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.SGD, lr=500.0 if kind == "rate" else 0.1,
                          batch_size=32, max_epochs=15, verbose=0, iterator_train__shuffle=True, callbacks=callbacks)
net.fit(x, y)
"""


def test_it_finds_what_the_unmodified_script_shows(both_ways, assert_same):
    found = both_ways(PROGRAM, "healthy", "sigmoid", "rate")
    for script, callback in found.values():
        assert_same(script, callback)
    causes = {kind: [f["cause"] for f in callback["findings"]] for kind, (_, callback) in found.items()}
    assert not [f for f in found["healthy"][1]["findings"] if f["severity"] == "error"]
    assert causes["sigmoid"][0] == "vanishing-gradient"
    assert "body.0" in found["sigmoid"][1]["findings"][0]["layers"]
    assert causes["rate"][0] == "learning-rate-too-high"


def fitted(callback, rate=0.1, epochs=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8)).astype("float32")
    net = skorch.NeuralNetClassifier(
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), criterion=nn.CrossEntropyLoss, lr=rate, batch_size=16,
        max_epochs=epochs, verbose=0, train_split=None, callbacks=[callback],
    )  # fmt: skip
    return net.fit(x, (x[:, 0] > 0).astype(int))


def test_each_fit_is_a_training_and_torch_is_as_before(tmp_path):
    called = nn.Module.__call__
    callback = UnstuckCallback(report=False, probe_budget=0.0, html=tmp_path / "page.html")
    net = fitted(callback)
    assert callback.run.record.steps == 8
    assert callback.verdict is not None
    assert (tmp_path / "page.html").exists()
    net.partial_fit(np.zeros((64, 8), "float32"), np.zeros(64, int))
    assert callback.run.record.steps == 8
    assert nn.Module.__call__ is called


def test_its_options_are_parameters():
    callback = clone(UnstuckCallback(report=False, budget=0.1, fail_on="error"))
    assert (callback.report, callback.budget, callback.fail_on) == (False, 0.1, "error")
    callback.set_params(budget=0.2)
    assert callback.get_params()["budget"] == 0.2
    with pytest.raises(MisuseError, match="fail_on is 'fatal'"):
        UnstuckCallback(fail_on="fatal").initialize()


def test_a_net_is_pickled_without_the_watch():
    callback = UnstuckCallback(report=False, probe_budget=0.0)
    copy = pickle.loads(pickle.dumps(fitted(callback)))
    assert dict(copy.callbacks_)["UnstuckCallback"].run is None
    assert callback.run is not None


def test_it_stops_and_fails_where_that_is_asked_for():
    callback = UnstuckCallback(report=False, probe_budget=0.0, stop_on="error", fail_on="error")
    with pytest.raises(SickError, match="non-finite|learning-rate-too-high"):
        fitted(callback, rate=1e20, epochs=100)
    assert callback.run.record.steps < 400
    assert not torch.overrides._get_current_function_mode_stack()
