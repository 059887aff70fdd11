"""Made-up runs for the reports: what a watcher would have written of them, and what a doctor would have said."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unstuck.evidence import Data, Event, Layer, LossCall, Model, Optimizer, Parameter, Record, Series, Task
from unstuck.verdict import Evidence, Finding, Verdict

Case = tuple[Verdict, Record]
NASTY = "</script><img src=x onerror=alert(1)>&\"'\x1b[31m"


def vanishing(steps: int = 938, depth: int = 20) -> Case:
    """A deep sigmoid net whose first layers get no gradient, so that the loss stays at chance."""
    random = np.random.default_rng(0)
    seen = np.unique(np.concatenate([np.arange(0, 10), np.arange(0, steps, 20)]))
    layers, parameters, series = [], [], {}
    last = ""
    for i in range(depth):
        linear, sigmoid = f"net.{2 * i}", f"net.{2 * i + 1}"
        output = i == depth - 1
        weight, bias = f"{linear}.weight", f"{linear}.bias"
        width = 10 if output else 64
        layers.append(
            Layer(linear, "linear", "Linear", "train.py:14", (last,) if last else (), (weight, bias), (64, width),
                  "output" if output else "hidden", "model")
        )  # fmt: skip
        last = linear
        gradient = 10 ** (-16.1 + 0.82 * i)
        for name in (linear, sigmoid)[: 1 if output else 2]:
            drift = 10 ** random.normal(0, 0.08, len(seen))
            series["back_rms", name] = Series(seen, gradient * drift * (1 if name == linear else 1.6))
            series["act_std", name] = Series(seen, (0.6 if name == linear else 0.02) * drift)
        series["update_ratio", weight] = Series(seen, 0.1 * gradient * 10 ** random.normal(0, 0.1, len(seen)))
        series["grad_rms", weight] = Series(seen, gradient * 10 ** random.normal(0, 0.1, len(seen)))
        parameters += [
            Parameter(weight, (width, 784 if i == 0 else 64), (linear,), initial={"std": 0.07}),
            Parameter(bias, (width,), (linear,)),
        ]
        if not output:
            layers.append(
                Layer(sigmoid, "sigmoid", "Sigmoid", "train.py:15", (linear,), (), (64, 64), "hidden", "model")
            )
            last = sigmoid
            share = np.clip(random.normal(0.01 + 0.3 * math.exp(-i / 3), 0.01, len(seen)), 0, 1)
            series["act_saturated", sigmoid] = Series(seen, share)
    loss = 2.3026 + 0.02 * np.exp(-np.arange(steps) / 9) + random.normal(0, 0.006, steps)
    norm = np.full(steps, np.nan)
    norm[seen] = 0.46 * 10 ** random.normal(0, 0.05, len(seen))
    rate = np.full(steps, 0.1)
    series |= {
        ("loss", ""): Series.of(loss),
        ("grad_norm", ""): Series.of(norm),
        ("lr", ""): Series.of(rate),
        ("lr", "0.0"): Series.of(rate),
        ("batch_size", ""): Series.of(np.full(steps, 64.0)),
        ("score", ""): Series.of(np.clip(0.105 + random.normal(0, 0.035, steps), 0, 1)),
        ("eval_loss", ""): Series.of([2.3030, 2.3024], [469, 937]),
        ("eval_score", ""): Series.of([0.0980, 0.1135], [469, 937]),
    }
    record = Record.of(
        series,
        meta={
            "script": "examples/train.py", "argv": ["--depth", str(depth)], "status": "finished", "exit_code": 0,
            "seconds": 12.1, "steps": steps, "overhead": 0.013, "budget": 0.02, "started": "2025-03-04T10:22:31",
            "python": "3.11.7", "torch": "2.13.0", "unstuck": "0.1.0", "device": "cpu",
        },
        models=[Model("model", "Sequential", 128_842, True, (), (64, 784), "train")],
        layers=layers,
        parameters=parameters,
        optimizers=[
            Optimizer("SGD", "torch.optim.sgd", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0}, steps, 1, 128_842)
        ],
        losses=[
            LossCall("cross_entropy", "train.py:31", layers[-1].name, ("linear",), (), (64, 10), (64,), "class index",
                     10, "mean", {"min": -0.31, "max": 0.4}, {"min": 0, "max": 9, "unique": 10}, True, steps)
        ],
        task=Task("classification", 10, "accuracy", 2.302, 0.112),
        data=Data(64, "loader", "DataLoader", 1, 938, True, 60_032, 2),
        events=[Event(0, "epoch", data={"loader": "train", "epoch": 0}),
                Event(469, "eval", data={"passes": 1, "batches": 157, "train_mode": False, "samples": 10_000})],
        not_found=["no learning rate scheduler was used", "the device's memory was not measured"],
    )  # fmt: skip
    symptom = Finding(
        "undertrained", "stalled", "warning", 0.71,
        "the loss went from 2.32 to 2.30 in 938 steps, which is chance (2.30)",
        evidence=(Evidence("loss", "", 937, 2.301),),
    )  # fmt: skip
    saturated = Finding(
        "saturated-activation", "saturated", "warning", 0.66,
        "31% of the outputs of net.1 are within 1% of a bound", ("net.1", "net.3"),
        (Evidence("act_saturated", "net.1", 920, 0.31),), ("normalization",),
    )  # fmt: skip
    root = Finding(
        "vanishing-gradient", "vanishing-gradient", "error", 0.93,
        "the gradient of net.0 is 1.7e-16 of that of net.38, and sigmoid layers pass on a quarter at most",
        tuple(f"net.{2 * i}" for i in range(10)),
        (Evidence("back_rms", "net.0", 0, 7.9e-17), Evidence("back_rms", "net.38", 0, 0.46)),
        ("initialization", "activation", "normalization"), (symptom, saturated),
    )  # fmt: skip
    other = Finding(
        "unnormalized-input", "input-scale", "note", 0.55,
        "input features have a mean of 33.3 and a deviation of 78.6", ("net.0",),
        (Evidence("input_mean", "net.0", 0, 33.3), Evidence("input_std", "net.0", 0, 78.6)), ("standardize-input",),
    )  # fmt: skip
    return Verdict("sick", (root, other), None, _run(record, ("accuracy", 0.105, 0.1135))), record


def healthy(blocks: int = 40, steps: int = 5000) -> Case:
    """A transformer language model that learns as it should."""
    random = np.random.default_rng(1)
    seen = np.arange(0, steps, 100)
    time = np.arange(steps)
    layers, parameters, series = [], [], {}
    names = ["embed", *(f"blocks.{i}.{part}" for i in range(blocks) for part in ("attn", "mlp")), "head"]
    for i, name in enumerate(names):
        role = "output" if name == "head" else "hidden"
        op = "embedding" if name == "embed" else "attention" if name.endswith("attn") else "linear"
        layers.append(
            Layer(
                name, op, "", "model.py:40", tuple(names[i - 1 : i]), (f"{name}.weight",), (8, 256, 512), role, "model"
            )
        )
        parameters.append(Parameter(f"{name}.weight", (512, 512), (name,)))
        noise = 10 ** random.normal(0, 0.06, len(seen))
        series["back_rms", name] = Series(seen, 2e-5 * (1 + 2 * np.exp(-i / 30)) * noise)
        series["act_std", name] = Series(seen, (0.7 + 0.01 * i) * noise)
        series["update_ratio", f"{name}.weight"] = Series(seen, 9e-4 * noise * (1.05 - seen / steps))
    loss = 1.9 + 8.9 * np.exp(-time / 400) + 0.5 * np.exp(-time / 3000) + random.normal(0, 0.09, steps)
    rate = 3e-4 * np.minimum(1, time / 200) * (0.55 + 0.45 * np.cos(np.pi * time / steps))
    norm = np.full(steps, np.nan)
    norm[::5] = 0.4 + 2 * np.exp(-time[::5] / 300) + np.abs(random.normal(0, 0.06, len(time[::5])))
    checks = np.arange(499, steps, 500)
    series |= {
        ("loss", ""): Series.of(loss),
        ("score", ""): Series.of(np.exp(loss)),
        ("eval_loss", ""): Series.of(loss[checks] + 0.1, checks),
        ("eval_score", ""): Series.of(np.exp(loss[checks] + 0.1), checks),
        ("grad_norm", ""): Series.of(norm),
        ("lr", ""): Series.of(rate),
        ("lr", "0.0"): Series.of(rate),
        ("lr", "0.1"): Series.of(rate * 0.3),
    }
    record = Record.of(
        series,
        meta={
            "script": "pretrain.py", "argv": [], "status": "finished", "exit_code": 0, "seconds": 4210.0,
            "steps": steps, "overhead": 0.0008, "started": "2025-03-04T10:22:31", "torch": "2.13.0", "device": "cuda:0",
        },
        models=[Model("model", "GPT", 85_000_000, True, ("OptimizedModule",), (8, 256), "train")],
        layers=layers,
        parameters=parameters,
        optimizers=[Optimizer("AdamW", "torch.optim.adamw", {"lr": 3e-4, "betas": (0.9, 0.95), "weight_decay": 0.1},
                              steps, 2, 85_000_000, False, 4.0, "LambdaLR", True, "norm 1.0")],
        losses=[LossCall("cross_entropy", "pretrain.py:88", "head", ("linear",), (), (2048, 50257), (2048,),
                         "class index", 50257, "mean", trains=True, calls=4 * steps)],
        task=Task("tokens", 50257, "perplexity", 7.1, 1200.0),
        data=Data(8, "input", "", 0, 0, None, 0, 10),
        features=["torch.compile", "autocast"],
        not_found=["no DataLoader was used, so epochs are unknown"],
    )  # fmt: skip
    return Verdict("healthy", (), None, _run(record, ("perplexity", 50000.0, 8.1))), record


def nan_run(steps: int = 120) -> Case:
    """A recurrent net that explodes and ends in NaN at step 77."""
    random = np.random.default_rng(2)
    loss = 1.4 * np.exp(-np.arange(steps) / 40) + 0.2 + random.normal(0, 0.02, steps)
    loss[76] = 339.0
    loss[77:] = np.nan
    seen = np.concatenate([np.arange(0, 70, 10), np.arange(70, 80)])
    norm = np.full(steps, np.nan)
    norm[seen] = 0.8 + random.random(len(seen)) * 0.2
    norm[72:78] = [3.0, 14.0, 92.0, 1e4, 1.5e7, np.inf]
    norm[78:80] = np.nan
    lags = np.arange(60)
    growing = seen[:10]
    record = Record.of(
        {
            ("loss", ""): Series.of(loss),
            ("grad_norm", ""): Series.of(norm),
            ("lr", ""): Series.of(np.full(steps, 0.01)),
            ("back_rms", "rnn"): Series(seen, np.where(seen < 77, 1e-3 * 1.4 ** np.maximum(0, seen - 60), np.nan)),
            ("back_rms", "head"): Series(seen, np.where(seen < 77, 1e-3, np.nan)),
            ("act_std", "rnn"): Series(seen, np.where(seen < 77, 1.0 + 0.1 * np.maximum(0, seen - 70), np.inf)),
            ("act_nonfinite", "rnn"): Series(seen, (seen >= 77) * 1.0),
            ("dead_share", "rnn"): Series(seen, np.linspace(0, 0.4, len(seen))),
            ("update_ratio", "rnn.weight_hh_l0"): Series(seen, np.where(seen < 77, 1e-3, np.nan)),
        },
        vectors={("lag_grad", "rnn"): [(1.3**lags * (1 + 0.01 * i)).tolist() for i in range(len(growing))]},
        meta={"script": "rnn.py", "status": "failed", "exit_code": 1, "seconds": 3.2, "steps": steps, "overhead": 0.02},
        models=[Model("net", "Net", 12_345)],
        layers=[
            Layer("rnn", "rnn", "RNN", "rnn.py:9", (), ("rnn.weight_hh_l0",), (32, 60, 128), calls=1),
            Layer("rnn.py:12 relu", "relu", "", "rnn.py:12", ("rnn",), (), (32, 128)),
            Layer("head", "linear", "Linear", "rnn.py:13", ("rnn.py:12 relu",), ("head.weight",), (32, 1), "output"),
        ],
        parameters=[Parameter("rnn.weight_hh_l0", (128, 128), ("rnn",)), Parameter("head.weight", (1, 128), ("head",))],
        optimizers=[Optimizer("hand-written", "", {"lr": 0.01}, steps, 1, 12_345)],
        losses=[LossCall("hand-written", "rnn.py:30", "head", ("linear",), ("sub", "pow", "mean"), (32, 1), (32, 1))],
        events=[
            Event(75, "burst", data={"why": "the loss doubled"}),
            Event(77, "non-finite", "rnn", {"what": "activation", "op": "rnn", "before": 3.1e18, "how": "overflow"}),
            Event(120, "exception", data={"type": "ValueError", "message": "loss is NaN\nstopping"}),
        ],
        task=Task("regression", 0, "", 1.0, math.nan),
    )
    exploding = Finding(
        "exploding-gradient", "exploding-gradient", "error", 0.88,
        "the gradient grows by 1.3 a time step over 60 steps of rnn, to 6.9e+06 of that at the last", ("rnn",),
        (Evidence("lag_grad", "rnn", 76, 6.9e6), Evidence("grad_norm", "", 76, 1.5e7)), ("clip-gradients", "gating"),
        (Finding("non-finite", "non-finite", "error", 0.99, "the output of rnn became Inf at step 77 (overflow)",
                 ("rnn",), (Evidence("act_nonfinite", "rnn", 77, 1.0), Evidence("loss", "", 77, math.nan))),),
    )  # fmt: skip
    return Verdict("sick", (exploding,), None, _run(record, ("", math.nan, math.nan))), record


def empty() -> Case:
    """Nothing was seen."""
    why = "no backward pass was seen: the script ended after 0.4 s without training"
    record = Record(meta={"script": "hello.py", "status": "finished", "exit_code": 0, "seconds": 0.4})
    return Verdict("unknown", (), why, {}), record


def bare() -> Case:
    """A verdict and a record without anything in them."""
    return Verdict("unknown"), Record()


def huge(count: int = 300, steps: int = 20_000) -> Case:
    """Three hundred layers, twenty thousand steps, hostile names, many findings."""
    random = np.random.default_rng(3)
    seen = np.arange(0, steps, 20)
    names = [f"backbone.stages.{i // 10}.blocks.{i % 10}.conv" for i in range(count - 1)] + [NASTY]
    series: dict[tuple[str, str], Series] = {}
    for i, name in enumerate(names):
        noise = 10 ** random.normal(0, 0.2, len(seen))
        series["back_rms", name] = Series(seen, 10 ** (-6 + 5 * i / count) * noise)
        series["act_std", name] = Series(seen, 10 ** (i / count) * noise)
        series["update_ratio", f"{name}.weight"] = Series(seen, 1e-3 * noise)
        series["dead_share", name] = Series(seen, np.clip(i / count + random.normal(0, 0.05, len(seen)), 0, 1))
        series["act_saturated", name] = Series(seen, np.clip(random.normal(0.1, 0.05, len(seen)), 0, 1))
    series["back_rms", names[5]] = Series(seen, np.zeros(len(seen)))
    loss = 5 * np.exp(-np.arange(steps) / 5000) + np.abs(random.normal(0, 0.3, steps))
    series["loss", ""] = Series.of(loss)
    series["score", ""] = Series.of(np.clip(1 - loss / 6, 0, 1))
    series["grad_norm", ""] = Series.of(10 ** random.normal(0, 0.5, steps))
    series["lr", ""] = Series.of(0.1 * 0.5 ** (np.arange(steps) // 5000))
    record = Record.of(
        series,
        meta={
            "script": NASTY,
            "argv": [NASTY],
            "status": "killed",
            "exit_code": -9,
            "seconds": 90_000,
            "overhead": 0.4,
        },
        models=[Model(NASTY, NASTY, 1_234_567_890)],
        layers=[Layer(n, "conv", "Conv2d", NASTY, (), (f"{n}.weight",), (32, 64, 56, 56)) for n in names],
        parameters=[Parameter(f"{n}.weight", (64, 64, 3, 3), (n,)) for n in names],
        optimizers=[Optimizer(NASTY, NASTY, {NASTY: NASTY})],
        losses=[LossCall(NASTY, NASTY, NASTY)],
        task=Task("classification", 1000, NASTY),
        events=[Event(i, "watcher-error", NASTY, {"where": NASTY, "error": NASTY}) for i in range(500)],
        not_found=[NASTY, "a " * 200, *("nothing of this kind" for _ in range(10))],
    )
    symptoms = tuple(
        Finding("vanishing-gradient", NASTY, "warning", 0.5, f"{NASTY} " * 9, tuple(names[: 9 + i])) for i in range(12)
    )
    nested = Finding("learning-rate-too-low", "rate", "warning", 0.7, "under it", explains=symptoms[:3])
    root = Finding(
        "dead-units", NASTY, "error", 0.999, f"all units of {NASTY} are dead " * 8, tuple(names),
        tuple(Evidence("dead_share", n, 19_980, i / count) for i, n in enumerate(names)), (NASTY,) * 12,
        (nested, *symptoms),
    )  # fmt: skip
    others = tuple(
        Finding("batch-too-small", "noise", severity, 0.3, "noise " * 40)
        for severity in ("warning", "note")
        for _ in range(10)
    )
    return Verdict("sick", (root, *others), None, _run(record, (NASTY, 0.1, 0.9))), record


def bent(steps: int = 400) -> Case:
    """A small network that rests at a saddle, with all that can be told of its curvature."""
    at = np.linspace(-2.5, 8.5, 240)
    bells = [(0.96, 0.0), (0.02, 8.0), (0.02, -2.0)]
    height = sum(w * np.exp(-((at - m) ** 2) / 0.02) / math.sqrt(0.02 * math.pi) for w, m in bells)
    seen = [0, 50, 100, 200, 300, 400]
    top = np.array([2.0, 5.0, 7.0, 8.0, 8.5, 8.0])
    parts = [
        {"part": "point", "kind": "saddle", "says": "a saddle: an eigenvalue is below zero beyond its error; eigenvalues from -2 to 8",
         "top": 8.0, "bottom": -2.0, "top_error": 1e-3, "bottom_error": 2e-3, "gradient": 1e-6, "noise": 2e-6, "rounding": 1e-7,
         "loss": 2.303, "gain": 1e-9, "flatness": 0.3, "tolerance": 1e-3, "converged": True, "tops": [8.0, 3.0, 1.0],
         "tops_errors": [1e-3, 1e-3, 1e-3], "typical": 0.04, "way": "reused", "way_error": 2e-5, "passed_over": {}, "batches": 8,
         "samples": 256.0, "size": 1234, "stated": "modules in the modes they were trained in"},
        {"part": "rate", "stable_rate": 0.25, "rate": 0.1, "edge": 0.4, "sharpness": 8.0, "sharpness_error": 0.01, "bound": 2.0,
         "method": "gradient descent", "by_hand": False, "critical": None, "best": 1.0, "gain": 0.1, "start_critical": 3.0},
        {"part": "escape", "eigenvalue": -2.0, "length": 1.5, "before": 2.303, "after": 1.9, "gain": 0.403, "predicted": 2.25,
         "taken": True, "held_before": 2.302, "held_after": 1.95, "held_batches": 8},
        {"part": "trace", "value": 12.5, "error": 0.2, "probes": 6},
        {"part": "noise", "scale": 90.0, "signal": 0.1, "noise": 9.0, "batch_size": 32, "gradients": 8},
        {"part": "sharpness", "sam": 0.01, "adaptive": 0.002, "keskar": 0.3, "radius": 0.05, "epsilon": 1e-3},
        *({"part": "layer", "layer": f"net.{2 * i}", "size": 300 * (i + 1), "top": 10.0 ** (i - 2), "top_error": 1e-4, "bottom": -0.01,
           "bottom_error": 1e-5, "trace": 10.0 ** (i - 1), "trace_error": 0.01} for i in range(3)),
        {"part": "density", "at": at.tolist(), "height": height.tolist(), "size": 1234, "vectors": 5, "exact": False, "low": -2.0,
         "high": 8.0, "positive": 0.02, "zero": 0.96, "negative": 0.02, "error": 0.01, "tolerance": 1e-3},
        {"part": "stalls", "spans": [[120, 399]]},
        {"part": "cost", "products": 420, "each": 0.01},
        {"part": "trace", "failed": "RuntimeError: no memory"},
    ]  # fmt: skip
    record = Record.of(
        {
            ("loss", ""): Series.of(np.full(steps, 2.303)),
            ("hessian_top", ""): Series.of(top, seen),
            ("hessian_bottom", ""): Series.of(-top / 4, seen),
            ("sharpness", ""): Series.of(top, seen),
            ("stable_rate", ""): Series.of(2 / top, seen),
            ("edge", ""): Series.of(0.1 * top / 2, seen),
        },
        meta={"script": "saddle.py", "status": "finished", "seconds": 3.0, "steps": steps, "overhead": 0.01, "curvature_seconds": 2.5},
        models=[Model("net", "Sequential", 1234)],
        task=Task("classification", 10, "accuracy", 2.303, 0.1),
        events=[Event(steps, "curvature", "", part) for part in parts],
    )  # fmt: skip
    return Verdict(
        "unknown", (), "it does not learn, but no rule knows why", _run(record, ("accuracy", 0.1, 0.1))
    ), record


def _run(record: Record, score: tuple[str, float, float]) -> dict[str, Any]:
    name, first, last = score
    return {
        "steps": record.steps,
        "seconds": record.meta.get("seconds"),
        "overhead": record.meta.get("overhead"),
        "score": {"name": name, "first": first, "last": last},
        "record": "runs/20250304-102231-train/record.sqlite",
    }


CASES: dict[str, Callable[[], Case]] = {
    "vanishing": vanishing, "healthy": healthy, "nan": nan_run, "empty": empty, "bare": bare, "huge": huge,
    "bent": bent,
}  # fmt: skip


@pytest.fixture(scope="session")
def cases() -> SimpleNamespace:
    """Every made-up run, made once: `cases.vanishing` is its verdict and record."""
    return SimpleNamespace(**{name: make() for name, make in CASES.items()}, NASTY=NASTY)


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, cases: SimpleNamespace) -> Case:
    """Each made-up run in turn."""
    return getattr(cases, request.param)


# ---------------------------------------------------------------------- batch sizes

BATCH_OWN = {
    "size": 32, "num_samples": 6000, "updates": 900, "step_seconds": 0.003, "optimizer": "SGD", "adaptive": False, "rate": 0.1,
    "by_hand": False, "reduction": "mean", "batch_norms": [], "dropout": False, "clipping": "", "samples": 512, "threads": 1,
    "device": "cpu",
}  # fmt: skip
BATCH_CHOICE = {
    "own": 32, "recommended": 128, "fastest": 128, "why": "", "beyond": 0, "critical": 210.0, "known": True, "besides": 0.0,
    "stable": 16.0, "most": 1500.0, "lines": [{"fixed": 0.001, "each": 2e-5, "upto": None}],
}  # fmt: skip


def batch_size(number: int, time: float, low: float, high: float, **given: Any) -> dict[str, Any]:
    return {
        "part": "size", "size": number, "seconds": 0.002, "updates": 32 / number * 1.2, "samples": 1.2, "time": time, "low": low,
        "high": high, "rate": number / 38.4, "is_capped": False, "fits": True, "update_seconds": 0.001 + 2e-5 * number,
        "update_error": 1e-5, "epoch_seconds": 0.4, "bytes": 1e6 + 1e4 * number, "repeated": False, **given,
    }  # fmt: skip


BATCH_SIZES = [
    batch_size(16, 1.9, 1.7, 2.1),
    batch_size(32, 1.0, 1.0, 1.0, rate=1.0, updates=1.0),
    batch_size(64, 0.62, 0.55, 0.7),
    batch_size(128, 0.45, 0.36, 0.58),
]
BATCH_NOISE = [
    {"part": "noise", "step": 0, "scale": 45.0, "low": 40.0, "high": 52.0, "noise": 9.0, "signal": 0.2, "samples": 512,
     "parts": 64, "known": True},
    {"part": "noise", "step": 450, "scale": 800.0, "low": 500.0, "high": 2000.0, "noise": 4.0, "signal": 5e-3, "samples": 512,
     "parts": 64, "known": True},
    {"part": "noise", "step": 900, "scale": None, "low": 900.0, "high": None, "noise": 2.0, "signal": -1e-3, "samples": 512,
     "parts": 64, "known": False},
]  # fmt: skip


def batch_record(
    *, own: dict[str, Any] | None = None, choice: dict[str, Any] | None = None, sizes: Any = None, more: Any = ()
) -> Record:
    """A run of `unstuck batch`, with other numbers in some parts."""
    parts = [
        {"part": "own", **BATCH_OWN, **(own or {})}, *BATCH_NOISE, {"part": "rate", "critical": 8.0, "start_critical": 16.0, "rate": 0.1},
        {"part": "memory", "size": 50_000, "limit": 8e9, "fixed": 1e6, "each": 1e4, "tried": False, "device": "cpu"},
        *(sizes or BATCH_SIZES), {"part": "choice", **BATCH_CHOICE, **(choice or {})}, *more,
    ]  # fmt: skip
    events = tuple(Event(900, "batch", "", part) for part in parts)
    made = replace(Record.of(), events=events)
    return replace(made, meta={**made.meta, "script": "train.py", "batch_seconds": 9.5, "steps": 900, "seconds": 3.0})


@pytest.fixture
def batches() -> SimpleNamespace:
    """Makes runs of `unstuck batch`, and what they are made of."""
    return SimpleNamespace(record=batch_record, size=batch_size, sizes=BATCH_SIZES, own=BATCH_OWN)
