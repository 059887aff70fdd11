"""Keras on torch: eight sigmoid layers, and the callback that says why the first of them don't learn."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported

import keras
import numpy as np

from unstuck.integrations.keras import UnstuckCallback

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(1024, 16)).astype("float32")
y = (x @ rng.normal(size=(16, 3))).argmax(1)
hidden = [keras.layers.Dense(32, activation="sigmoid") for _ in range(8)]
model = keras.Sequential([keras.Input((16,)), *hidden, keras.layers.Dense(3)])
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
unstuck = UnstuckCallback()
model.fit(x, y, batch_size=32, epochs=8, verbose=0, callbacks=[unstuck])
print("found:", unstuck.verdict.findings[0].cause)
