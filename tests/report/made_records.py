"""Records as large, and as hostile, as a page has to bear."""

from __future__ import annotations

import numpy as np

from unstuck.evidence import Data, Event, Layer, LossCall, Model, Optimizer, Parameter, Record, Series, Task
from unstuck.report._heatmap import MORE, SIGNALS
from unstuck.verdict import Evidence, Finding, Verdict

OF_PARAMETERS = (
    "update_ratio",
    "grad_rms",
    "grad_zero",
    "grad_nonfinite",
    "weight_rms",
    "weight_nonfinite",
    "stale_rms",
)
NASTY = "</script><img src=x onerror=alert(1)>&\"'\x1b[31m\u202egnp.x\u2066 {{7*7}} "


def large(num_layers: int, steps: int) -> tuple[Verdict, Record]:
    """A sick run in which every signal was measured everywhere, at a hundred steps, and the loss at all of them."""
    random = np.random.default_rng(0)
    names = [f"encoder.blocks.{i // 4}.{('query', 'key', 'value', 'out')[i % 4]}" for i in range(num_layers)]
    seen = np.unique(np.linspace(0, steps - 1, 100 if num_layers <= 100 else 20).astype(int))
    series: dict[tuple[str, str], Series] = {}
    for signal in (*SIGNALS, *MORE):
        share = signal not in ("back_rms", "grad_rms", "update_ratio", "act_std", "act_max", "weight_rms", "stale_rms")
        drawn = random.random((num_layers, len(seen))) if share else 10 ** random.normal(-3, 2, (num_layers, len(seen)))
        suffix = ".weight" if signal in OF_PARAMETERS else ""
        series |= {(signal, f"{name}{suffix}"): Series(seen, row) for name, row in zip(names, drawn, strict=True)}
    every = np.arange(steps)
    for name in ("loss", "score", "grad_norm", "step_seconds"):
        series[name, ""] = Series(every, 2 + random.normal(0, 0.3, steps))
    series["lr", ""] = series["lr", "0.0"] = Series(every, 0.1 * np.cos(every / steps))
    checks = every[99::100]
    series |= {("eval_loss", ""): Series(checks, random.random(len(checks)))}
    record = Record.of(
        series,
        layers=[
            Layer(
                name,
                "linear",
                "Linear",
                f"model.py:{i}",
                names[i - 1 : i],
                (f"{name}.weight",),
                (8, 512),
                model="model",
            )  # pyright: ignore[reportArgumentType]
            for i, name in enumerate(names)
        ],
        parameters=[Parameter(f"{name}.weight", (512, 512), (name,)) for name in names],
        models=[Model("model", "Transformer", 10**9)],
        optimizers=[Optimizer("SGD", settings={"lr": 0.1}, steps=steps)],
        losses=[LossCall("cross_entropy", "train.py:3", names[-1])],
        task=Task("classification", 10, "accuracy", 2.3, 0.1),
        events=[Event(int(step), kind) for step in range(0, steps, 100) for kind in ("epoch", "eval")],
        meta={"script": "train.py", "steps": steps, "seconds": 100.0},
    )
    finding = Finding(
        "vanishing-gradient", "vanishing-gradient", "error", 0.9, "the gradient vanishes", tuple(names[: num_layers // 2]),
        tuple(Evidence("back_rms", name, int(seen[-1]), 1e-9) for name in (names[0], names[-1])), ("initialization",),
    )  # fmt: skip
    return Verdict("sick", (finding,)), record


def hostile() -> tuple[Verdict, Record]:
    """Markup, marks of direction and ten thousand letters wherever a program's own text goes; NaN and Inf in every series."""
    names = [f"{NASTY}{i}" for i in range(3)] + ["x" * 10_000, "\u05e9\u05dc\u05d5\u05dd.0", ""]
    broken = [float("nan"), float("inf"), -float("inf"), 1.0]
    signals = [*SIGNALS, *MORE]
    series = {(signal, name): broken for signal in signals for name in names}
    series |= {
        (name, ""): broken for name in ("loss", "score", "grad_norm", "lr", "step_seconds", "eval_loss", "batch_size")
    }
    series["lr", NASTY] = broken
    series["loss_part", NASTY * 200] = [0.2, 0.3, 0.1, 0.1]
    record = Record.of(
        series,
        vectors={
            ("lag_grad", NASTY): [broken * 3],
            ("label_count", ""): [broken],
            ("prediction_count", ""): [[0.0, 0.0]],
            ("input_mean", NASTY): [broken],
        },
        layers=[Layer(name, NASTY, NASTY, NASTY * 100, names[:1], (name,), (1,), model=NASTY) for name in names],  # pyright: ignore[reportArgumentType]
        parameters=[Parameter(name, (1,), trainable=False) for name in names],
        models=[Model(NASTY * 100, NASTY)],
        optimizers=[Optimizer(NASTY, NASTY, {NASTY: NASTY, "lr": float("nan")})],
        losses=[LossCall(NASTY, NASTY, NASTY, (NASTY,), (NASTY,))],
        task=Task(NASTY, 2, NASTY),
        data=Data(loader=NASTY),
        features=[NASTY],
        not_found=[NASTY],
        events=[
            Event(1, NASTY, NASTY, {NASTY: NASTY}),
            Event(1, "exception", "", {"type": NASTY, "message": NASTY}),
            Event(1, "probe", "", {"name": NASTY, NASTY: [float("nan")] * 50}),
            Event(2, "epoch"), Event(3, "eval"),
        ],
        meta={"script": NASTY, "argv": [NASTY], "status": NASTY, "started": NASTY, "unstuck": NASTY, "device": NASTY},
    )  # fmt: skip
    finding = Finding(
        "dead-units", NASTY, "error", 1.0, NASTY, tuple(names), tuple(Evidence("back_rms", name, 2, float("nan")) for name in names),
        (NASTY,), (Finding("dead-units", "dead-units", "note", 0.0, NASTY, (), (Evidence(NASTY, NASTY, 0, 0.0),)),),
    )  # fmt: skip
    return Verdict("sick", (finding,), None, {"record": NASTY}), record
