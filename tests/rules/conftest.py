"""Runs written by hand: a classifier of ten classes over 100 steps, in each of the states a run can be in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unstuck.evidence import Data, Layer, LossCall, Optimizer, Parameter, Record, Task

STEPS = 100
FALLING = np.exp(-np.arange(STEPS) / 10)
STATES: dict[str, tuple[np.ndarray, np.ndarray]] = {  # loss and accuracy by step
    "stuck": (np.full(STEPS, 2.303), np.full(STEPS, 0.1)),
    "learns": (1.2 + 1.1 * FALLING, 0.5 - 0.4 * FALLING),
    "well": (0.05 + 2.25 * FALLING, 0.98 - 0.88 * FALLING),
    "diverges": (np.append(2.303 * 10.0 ** np.arange(STEPS - 60), np.full(60, np.nan)), np.full(STEPS, 0.1)),
}


def classifier(loss: np.ndarray, score: np.ndarray) -> Callable[..., Record]:
    """Makes records of one state: `make({("act_zero", "relu"): [1, 1]}, layers=[...])`."""

    def make(series: Mapping[tuple[str, str], Any] | None = None, **given: Any) -> Record:
        program = {
            "task": Task("classification", 10, "accuracy", 2.303, 0.1),
            "data": Data(batch_size=32),
            "optimizers": [Optimizer("SGD", settings={"lr": 0.1}, steps=STEPS)],
            "losses": [loss_call()],
        }
        known = {("loss", ""): loss, ("score", ""): score, ("lr", ""): np.full(len(loss), 0.1)}
        return Record.of({**known, **(series or {})}, **{**program, **given})

    return make


def loss_call(name: str = "cross_entropy", **given: Any) -> LossCall:
    """A loss over logits of ten classes."""
    usual = {
        "site": "train.py:9", "layer": "out", "chain": ("linear",), "output_shape": (32, 10), "target_shape": (32,),
        "target_kind": "class index", "num_classes": 10, "output": {"sums_to_one": 0.0, "log_sums_to_one": 0.0, "min": -1, "max": 1},
        "target": {"min": 0, "max": 9, "std": 2.9, "mean": 4.5, "unique": 10, "integer": 1}, "calls": STEPS,
    }  # fmt: skip
    return LossCall(name, **{**usual, **given})


def regression(loss: Any, mean: float = 0.0, std: float = 1.0, **call: Any) -> dict[str, Any]:
    """What a record of a regression holds instead: pass it on as `**regression(...)`."""
    target = {"mean": mean, "std": std, "min": mean - 2 * std, "max": mean + 2 * std, "integer": 0}
    usual = {
        "output_shape": (32, 1),
        "target_shape": (32, 1),
        "target_kind": "real",
        "num_classes": 0,
        "target": target,
    }
    return {
        "series": {("loss", ""): np.asarray(loss, float), ("score", ""): []},
        "task": Task("regression", 0, "r2", std**2, 0.0, mean, std),
        "losses": [loss_call(**{"name": "mse_loss", **usual, **call})],
    }


def chain(*ops: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Any]:
    """Layers and parameters of a plain network: `chain("linear", "relu", "linear")` has layers linear0, relu1, linear2.

    Layers with weights have a matrix "linear0.weight" and a bias; the last layer is the output.
    """
    layers, parameters, before = [], [], ()
    for i, op in enumerate(ops):
        name, role = f"{op}{i}", "output" if i == len(ops) - 1 else "hidden"
        own = (f"{name}.weight", f"{name}.bias") if op in ("linear", "conv", "matmul", "lstm", "embedding") else ()
        layers.append(Layer(name, op, inputs=before, parameters=own, out_shape=(32, 16), role=role))
        if own:
            shape = (shapes or {}).get(name, (16, 16))
            usual = {
                "mean": 0.0,
                "std": 0.25,
                "max": 0.4,
                "zero_share": 0.0,
                "identical_rows": 0.0,
                "fan_in": float(shape[-1]),
            }
            parameters += [Parameter(own[0], shape, (name,), initial=usual), Parameter(own[1], shape[:1], (name,))]
        before = (name,)
    return {"layers": layers, "parameters": parameters}


@pytest.fixture
def runs() -> SimpleNamespace:
    """Makers of runs by state: `runs.stuck(...)`, `runs.learns(...)`, `runs.well(...)`, `runs.diverges(...)`."""
    return SimpleNamespace(
        **{name: classifier(*state) for name, state in STATES.items()},
        loss_call=loss_call, regression=regression, chain=chain, steps=STEPS, falling=FALLING, each=list(STATES),
    )  # fmt: skip
