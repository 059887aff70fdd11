"""Keras on torch: its layers, parameters, optimizers and their rates are known by the names its users know."""

import warnings

import numpy as np
import pytest
import torch

import unstuck
from unstuck.watcher.keras import is_sketch

pytestmark = pytest.mark.slow
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras uses another backend", allow_module_level=True)
    from keras import layers


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8)).astype("float32")
    return x, x[:, :1]


def watched_fit(model, optimizer):
    model.compile(optimizer, "mse")
    with unstuck.watch(budget=0.0, probe_budget=0.0) as run:
        model.fit(*data(), batch_size=16, epochs=2, verbose=0)
    record = run.record
    assert not record.happened("watcher-error")
    return record


def test_layers_and_parameters_have_the_names_of_the_summary():
    inputs = keras.Input((8,))
    hidden = layers.Dense(16, activation="tanh", name="first")(inputs)
    both = layers.Add(name="both")([hidden, layers.Dense(16, name="second")(hidden)])
    model = keras.Model(inputs, layers.Dense(1, name="last")(both))
    record = watched_fit(model, keras.optimizers.SGD(0.1))
    assert [p.name for p in record.program.parameters] == [
        "first.kernel", "first.bias", "second.kernel", "second.bias", "last.kernel", "last.bias",
    ]  # fmt: skip
    names = list(record.layers)
    assert [n for n in names if n in ("first", "first tanh", "second", "last")] == [
        "first",
        "first tanh",
        "second",
        "last",
    ]
    assert record.layers["first"].parameters == ("first.kernel",)
    assert [m.kind for m in record.program.models] == ["Functional"]
    assert record.steps == 8


def test_layers_in_a_layer_of_ones_own_have_its_name_before_theirs():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.one, self.two = layers.Dense(8, name="one"), layers.Dense(8, name="two")

        def call(self, x):
            return x + self.two(keras.ops.relu(self.one(x)))

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.block, self.last = Block(), layers.Dense(1, name="last")

        def call(self, x):
            return self.last(self.block(x))

    record = watched_fit(Net(), "sgd")
    assert {"block.one", "block relu", "block.two", "last"} <= set(record.layers)


def test_an_optimizer_is_known_with_its_settings_and_its_rate_by_step():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1)])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    record = watched_fit(model, keras.optimizers.Adam(schedule, beta_1=0.8, clipnorm=1.0))
    (optimizer,) = record.program.optimizers
    assert (optimizer.kind, optimizer.module, optimizer.steps) == ("Adam", "keras.optimizers", 8)
    assert (optimizer.schedule, optimizer.clipping) == ("ExponentialDecay", "norm 1.0")
    assert optimizer.settings["beta1"] == 0.8
    assert optimizer.num_parameters == 9
    # the rate is read when the update is over, and is then that of the next one
    assert record.series("lr").values == pytest.approx([0.1 * 0.5 ** (step + 1) for step in range(8)], rel=1e-5)


def test_the_update_is_measured_around_the_optimizer():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1, use_bias=False, name="only")])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    x, y = data()
    weight = model.layers[0].kernel.value.detach().double().clone()
    with unstuck.watch(budget=0.0, probe_budget=0.0) as run:
        model.fit(x, y, batch_size=64, epochs=1, verbose=0)
    x, y = torch.tensor(x).double(), torch.tensor(y).double()
    gradient = 2 * x.T @ (x @ weight - y) / len(x)  # of the mean square, in closed form
    assert run.record.series("grad_rms", "only.kernel").first == pytest.approx(
        float(gradient.square().mean().sqrt()), rel=1e-4
    )
    ratio = 0.5 * gradient.square().mean().sqrt() / weight.square().mean().sqrt()
    assert run.record.series("update_ratio", "only.kernel").first == pytest.approx(float(ratio), rel=1e-3)


def test_calls_that_only_learn_shapes_are_told_from_others():
    assert is_sketch((keras.KerasTensor((2, 3)),))
    assert is_sketch(([keras.KerasTensor((2, 3))],))
    assert is_sketch((torch.empty(2, device="meta"),))
    assert not is_sketch((torch.zeros(2),))
    assert not is_sketch(([torch.zeros(2)],))
    assert not is_sketch(())
