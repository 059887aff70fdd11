"""Keras on torch: the callback finds what `unstuck run` finds, and leaves torch and Keras as they were."""

import warnings

import numpy as np
import pytest
from torch import nn

from unstuck.errors import SickError

pytestmark = pytest.mark.slow
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras uses another backend", allow_module_level=True)
    from unstuck.integrations.keras import UnstuckCallback

PROGRAM = """
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np

kind = sys.argv[1]
keras.utils.clear_session()  # layers are counted anew
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(512, 16)).astype("float32")
y = (x @ rng.normal(size=(16, 3))).argmax(1)
act, depth = ("sigmoid", 8) if kind == "sigmoid" else ("relu", 2)
hidden = [keras.layers.Dense(32, activation=act) for _ in range(depth)]
model = keras.Sequential([keras.Input((16,)), *hidden, keras.layers.Dense(3)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.SGD(1000.0 if kind == "rate" else 0.1, momentum=0.5), loss)
callbacks = []
if len(sys.argv) > 2:
    from unstuck.integrations.keras import UnstuckCallback

    callbacks = [UnstuckCallback(json=sys.argv[2], report=False, budget=0.0, probe_budget=0.0)]
model.fit(x, y, batch_size=32, epochs=15, verbose=0, callbacks=callbacks, validation_split=0.25)
"""


def test_it_finds_what_the_unmodified_script_shows(both_ways, assert_same):
    found = both_ways(PROGRAM, "healthy", "sigmoid", "rate")
    for script, callback in found.values():
        assert_same(script, callback)
    assert not [f for f in found["healthy"][1]["findings"] if f["severity"] == "error"]
    finding = found["sigmoid"][1]["findings"][0]
    assert finding["cause"] == "vanishing-gradient"
    assert finding["layers"][0] == "dense"
    assert found["rate"][1]["findings"][0]["cause"] == "learning-rate-too-high"


def fitted(callback, rate=0.1, epochs=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8)).astype("float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model.fit(x, x[:, :1], batch_size=16, epochs=epochs, verbose=0, callbacks=[callback])


def test_each_fit_is_a_training_and_everything_is_as_before(tmp_path):
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    called, apply = nn.Module.__call__, BaseOptimizer.apply
    callback = UnstuckCallback(report=False, probe_budget=0.0, html=tmp_path / "page.html")
    for _ in range(2):
        fitted(callback)
        assert callback.run.record.steps == 8
        assert callback.verdict is not None
    assert (tmp_path / "page.html").exists()
    assert nn.Module.__call__ is called
    assert BaseOptimizer.apply is apply


def test_it_stops_and_fails_where_that_is_asked_for():
    callback = UnstuckCallback(report=False, probe_budget=0.0, stop_on="error", fail_on="error")
    with pytest.raises(SickError, match="non-finite|learning-rate-too-high"):
        fitted(callback, rate=1e20, epochs=100)
    assert callback.run.record.steps < 400
