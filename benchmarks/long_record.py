"""How long it takes to open the record of a long run: from the file to the painted page.

A record is made as the watcher would leave it after so many steps: by the store's own writer, sampled when the watcher's own
cadence says so, on a clock that is made up (a step of 10 ms, 40 ms where it is sampled). Loss, score and rate have a value at
every step, with spikes and a NaN among them; 21 signals of layers and parameters have one at every sampled step. It is then
read, judged, rendered, and opened in Chromium (where Playwright and Chromium are installed), each in a process of its own.

    python benchmarks/long_record.py
    python benchmarks/long_record.py --runs 1000000x100 --keep FOLDER --json FILE
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from measure import machine, machine_line, table, write_json
from unstuck.evidence import Data, Event, Layer, LossCall, Model, Optimizer, Parameter, Program, Task
from unstuck.store import Writer
from unstuck.watcher.cadence import Cadence

STEP_SECONDS, SAMPLE_SECONDS, OWN_SECONDS, NORM_SECONDS = 0.010, 0.040, 30e-6, 60e-6
STEPS_AN_EPOCH = 1000
SPIKES = 12
ROW = (("loss", ""), ("grad_norm", ""), ("lr", ""), ("batch_size", ""), ("score", ""), ("step_seconds", ""))
OF_LAYERS = ("act_mean", "act_std", "act_max", "act_zero", "act_nonfinite", "act_negative", "act_between", "back_rms",
             "back_max", "back_zero", "back_nonfinite")  # fmt: skip
OF_RELU = ("dead_share", "dead_window")
OF_PARAMETERS = ("grad_rms", "grad_max", "grad_zero", "grad_nonfinite", "weight_rms", "weight_max", "weight_nonfinite",
                 "update_ratio", "stale_rms")  # fmt: skip
SHARES = frozenset({"act_zero", "act_negative", "back_zero", "grad_zero", "dead_share", "act_between"})
NOTHING = frozenset({"act_nonfinite", "back_nonfinite", "grad_nonfinite", "weight_nonfinite", "stale_rms"})


def make(path: Path, *, steps: int, layers: int, seed: int = 0) -> dict[str, int]:
    """Writes the record of one long run.

    Args:
        path: The file to make.
        steps: Updates.
        layers: Layers, every second of them linear with two parameters.
        seed: Of all numbers in it.

    Returns:
        `samples`: sampled steps; `columns`: numbers in each.
    """
    random = np.random.default_rng(seed)
    writer = Writer(path, meta={"script": "train.py", "argv": [], "budget": 0.02, "torch": "2.13.0", "device": "cpu"})
    program = _program(layers, steps)
    writer.program(program.to_json())
    columns, levels, spreads = _columns(program, random)
    samples = _train(writer, _dense(steps, random), columns, levels, spreads, random)
    writer.program(program.to_json())
    writer.flush(60)
    writer.close(status="finished", steps=steps, seconds=steps * STEP_SECONDS, overhead=0.018, exit_code=0)
    return {"samples": samples, "columns": len(columns)}


def _train(
    writer: Writer,
    rows: np.ndarray,
    columns: tuple[tuple[str, str], ...],
    levels: np.ndarray,
    spreads: np.ndarray,
    random: np.random.Generator,
) -> int:
    """Gives a training's numbers to the writer, step by step; how many steps were sampled."""
    cadence, samples = Cadence(0.02), 0
    steps, stride = len(rows), 1
    for step in range(steps):
        sampled = cadence.wants(step)
        row = rows[step].tolist()
        if step % stride:
            row[1] = np.nan
        writer.row(step, ROW, row)
        if step % STEPS_AN_EPOCH == 0:
            _epoch(writer, step, row)
        if sampled:
            samples += 1
            drift = 1 - 0.9 * step / steps
            numbers = (levels * np.exp(spreads * random.normal(size=len(levels))) * drift).astype("f4")
            way = slice(
                None, None, 1 if step else -1
            )  # the first sample has a layout of its own, as it holds more in real runs
            writer.sample(step, columns[way], numbers[way])
            for name, size in (("label_count", 10), ("prediction_count", 10), ("input_mean", 3), ("input_std", 3)):
                writer.vector(step, name, "" if "count" in name else "net.0", random.random(size))
        seconds, own = (SAMPLE_SECONDS, SAMPLE_SECONDS - STEP_SECONDS) if sampled else (STEP_SECONDS, OWN_SECONDS)
        cadence.ended(seconds, own, sampled=sampled)
        if step % 20_000 == 0 or (sampled and samples % 50 == 0):
            stride = cadence.norm_stride(NORM_SECONDS)
            writer.flush(60)
    return samples


def _epoch(writer: Writer, step: int, row: list[float]) -> None:
    writer.event(Event(step, "epoch", data={"loader": "loader", "epoch": step // STEPS_AN_EPOCH}))
    if step:
        writer.event(Event(step, "eval", data={"passes": 1, "batches": 40, "train_mode": False, "samples": 1000}))
        writer.sample(step, (("eval_loss", ""), ("eval_score", "")), [row[0] * 1.1, row[4] * 0.95])


def _dense(steps: int, random: np.random.Generator) -> np.ndarray:
    """What every step has, shape `(steps, 6)`: a loss that falls, with spikes, and one NaN."""
    at = np.arange(steps)
    loss = 0.3 + 2.0 * np.exp(-5 * at / steps) + random.normal(0, 0.05, steps)
    loss[random.integers(1, steps, SPIKES)] *= random.uniform(5, 50, SPIKES)
    loss[steps // 2 + 1] = np.nan
    norm = 0.5 * np.exp(random.normal(0, 0.3, steps))
    rate = 1e-3 * (0.5 + 0.5 * np.cos(np.pi * at / steps))
    score = np.clip(0.9 - 0.8 * np.exp(-5 * at / steps) + random.normal(0, 0.03, steps), 0, 1).round(2)
    seconds = STEP_SECONDS * np.exp(random.normal(0, 0.05, steps))
    return np.stack([loss, norm, rate, np.full(steps, 64.0), score, seconds], axis=1)


def _program(num_layers: int, steps: int) -> Program:
    layers, parameters = [], []
    for i in range(num_layers):
        name, is_linear = f"net.{i}", i % 2 == 0
        names = (f"{name}.weight", f"{name}.bias") if is_linear else ()
        role = "output" if i == num_layers - 1 else "hidden"
        before = (f"net.{i - 1}",) if i else ()
        op, module = ("linear", "Linear") if is_linear else ("relu", "ReLU")
        layers.append(Layer(name, op, module, f"train.py:{10 + i}", before, names, (64, 64), role, "net"))
        for parameter, shape in zip(names, ((64, 64), (64,)), strict=False):
            start = {"mean": 0.0, "std": 0.1, "max": 0.4, "zero_share": 0.0, "identical_rows": 0.0, "fan_in": 64.0}
            parameters.append(Parameter(parameter, shape, (name,), initial=start))
    size = 4160 * len(parameters) // 2
    last, settings = layers[-1].name, {"lr": 1e-3, "betas": (0.9, 0.999)}
    optimizer = Optimizer("Adam", "torch.optim.adam", settings, steps, 1, size, schedule="CosineAnnealingLR")
    call = LossCall("cross_entropy", "train.py:5", last, ("linear",), (), (64, 10), (64,), "class index", 10, "mean",
                    {"min": -5.0, "max": 5.0, "mean": 0.0, "std": 1.0}, {"min": 0.0, "max": 9.0, "unique": 10}, True, steps)  # fmt: skip
    return Program(
        models=(Model("net", "Sequential", size, input_shape=(64, 64)),),
        layers=tuple(layers),
        parameters=tuple(parameters),
        optimizers=(optimizer,),
        losses=(call,),
        task=Task("classification", 10, "accuracy", 2.302, 0.11),
        data=Data(64, "loader", "DataLoader", steps // STEPS_AN_EPOCH, STEPS_AN_EPOCH, True, 64 * STEPS_AN_EPOCH, steps // STEPS_AN_EPOCH),
    )  # fmt: skip


def _columns(
    program: Program, random: np.random.Generator
) -> tuple[tuple[tuple[str, str], ...], np.ndarray, np.ndarray]:
    """What a sampled step has: names, levels, and how much they vary."""
    columns = [(s, p.name) for p in program.parameters for s in OF_PARAMETERS]
    columns += [(s, layer.name) for layer in program.layers for s in OF_LAYERS]
    columns += [(s, layer.name) for layer in program.layers if layer.op == "relu" for s in OF_RELU]
    usual = {
        "update_ratio": 1e-3,
        "back_rms": 1e-4,
        "back_max": 1e-3,
        "grad_rms": 1e-3,
        "grad_max": 1e-2,
        "weight_rms": 0.1,
    }
    levels = np.array([0.0 if s in NOTHING else 0.3 if s in SHARES else usual.get(s, 1.0) for s, _ in columns])
    levels[[s == "dead_share" for s, _ in columns]] = 0.02
    spreads = np.where(levels > 0, 0.15, 0.0)
    return tuple(columns), levels * np.exp(random.normal(0, 0.05, len(columns))), spreads


# ---------------------------------------------------------------------- from the file to the page

OPEN = """
import json, resource, sys, time
start = time.process_time()
from unstuck import store
times = {}
def lap(name):
    global start
    now = time.process_time()
    times[name], start = now - start, now
record = store.read(sys.argv[1])
lap("read")
from unstuck.doctor import diagnose
verdict = diagnose(record)
lap("judge")
from unstuck.report import html
text = html.render(verdict, record)
lap("render")
with open(sys.argv[2], "w", encoding="utf-8") as page:
    page.write(text)
lap("write")
store.summary(sys.argv[1])
lap("summary")
store.course(sys.argv[1])
lap("course")
times["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
times["page"] = len(text.encode()) / 1e6
print(json.dumps(times))
"""
PAINTED = (
    """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"""
)
SCROLL = """() => new Promise(done => {
  const gaps = []; let before = performance.now(), at = 0;
  const height = document.documentElement.scrollHeight - innerHeight;
  const step = now => {
    gaps.push(now - before); before = now; at += 1;
    scrollTo(0, height * at / 90);
    if (at < 90) requestAnimationFrame(step);
    else { gaps.sort((a, b) => a - b); done([gaps[45], gaps[85]]); }
  };
  requestAnimationFrame(step);
})"""


def measure(folder: Path, *, rounds: int) -> dict[str, float]:
    """What opening a run's record takes, the median of a few rounds.

    Args:
        folder: Folder of the run.
        rounds: How often it is opened.

    Returns:
        Seconds of the processor by phase; `memory` and `page` in MB; where there is a browser, milliseconds until the page is
        loaded and painted, and between frames while it is scrolled.
    """
    page = folder / "page.html"
    found = []
    for _ in range(rounds):
        command = [sys.executable, "-c", OPEN, str(folder), str(page)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    times = {name: float(np.median([one[name] for one in found])) for name in found[0]}
    return times | _in_browser(page, rounds=rounds)


def _in_browser(page: Path, *, rounds: int) -> dict[str, float]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return {}
    found = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(rounds + 1):  # the first one starts Chromium's own processes
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.as_uri())
            painted = tab.evaluate(PAINTED)
            loaded = tab.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
            middle, slow = tab.evaluate(SCROLL)
            found.append({"loaded": loaded, "painted": painted, "frame": middle, "slow frame": slow})
            tab.close()
        browser.close()
    return {name: float(np.median([one[name] for one in found[1:]])) for name in found[0]}


def main() -> None:
    """Makes the records and prints what opening them takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="10000x100,1000000x100,10000x10000", help="steps x layers, comma-separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--keep", type=Path, help="keep the records in this folder, and take those that are there already"
    )
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    facts, found = machine(), {}
    with tempfile.TemporaryDirectory() as place:
        for run in options.runs.split(","):
            folder = (options.keep or Path(place)) / run
            found[run] = {**_made(folder, run), **measure(folder, rounds=options.rounds)}
    print(machine_line(facts), "\n")
    print(table(HEAD, [_cells(run, numbers) for run, numbers in found.items()]))
    write_json(options.json, {"machine": facts, "runs": found})


def _made(folder: Path, run: str) -> dict[str, float]:
    file = folder / "record.sqlite"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        steps, layers = map(int, run.split("x"))
        make(file, steps=steps, layers=layers)
    return {"file": file.stat().st_size / 1e6}


HEAD = ("steps x layers", "record, MB", "summary, ms", "course, s", "read, s", "judge, s", "render, s", "page, MB", "memory, MB",
        "loaded, ms", "painted, ms", "all, s", "frame, ms (95%)")  # fmt: skip


def _cells(run: str, numbers: dict[str, float]) -> list[str]:
    opened = sum(numbers[name] for name in ("read", "judge", "render")) + numbers.get("painted", 0.0) / 1e3
    seconds = [f"{numbers[name]:.2f}" for name in ("course", "read", "judge", "render")]
    shown = [f"{numbers[name]:.0f}" if name in numbers else "–" for name in ("loaded", "painted")]
    frames = f"{numbers['frame']:.0f} ({numbers['slow frame']:.0f})" if "frame" in numbers else "–"
    return [run.replace("x", " x "), f"{numbers['file']:.1f}", f"{1e3 * numbers['summary']:.0f}", *seconds, f"{numbers['page']:.2f}",
            f"{numbers['memory']:.0f}", *shown, f"{opened:.2f}", frames]  # fmt: skip


if __name__ == "__main__":
    main()
