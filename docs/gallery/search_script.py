"""The rate, the batch and the width of an unmodified script, searched, beside as many points drawn at random and the script as it stands.

`examples/search/train.py` trains a multilayer perceptron with the settings that somebody once typed. Nothing in it is written for a
search: its rate and its batch are found in the running script and set there, `--hidden` is an argument of its own. The command is

    unstuck search --over learning-rate,batch-size --vary=--hidden=16..256:log examples/search/train.py

and this program does the same. What one sees:

- **As it stands the script is far from what it could be.** Any search finds that, one at random too.
- **A large batch needs a high rate**, as it makes few updates in as many epochs: at the rate that was typed no batch of 128 or more gets
  half of the digits right.
- **As a whole the search does better than chance, its best does not**: with three settings, one of thirty random points is good enough.

The script has one set of pictures to be judged by, so the best are judged by fresh seeds, but by the same pictures as they were chosen by.
With --runs FOLDER what was run is kept, and is not run again. The figure was made with --evaluations 30.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import search_cnn as cnn  # in this folder
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from search_cnn import COLOURS, RANDOM, SEARCHED

from unstuck.evidence import Record
from unstuck.report.pictures import INK, ORANGE, save, styled
from unstuck.search.answer import Answer
from unstuck.search.hyperparameters import Varied
from unstuck.search.problems import ScriptProblem
from unstuck.trials.executor import Processes
from unstuck.trials.job import Job

SCRIPT = str(cnn.EXAMPLES / "train.py")
OWN = "as it stands"
LOOKS = {**COLOURS, OWN: INK}


def surveyed(executor: Processes) -> tuple[ScriptProblem, Record]:
    """What is searched, and the record of the script as it stands."""
    [(_, run)] = list(executor.run([Job((SCRIPT,), survey=True)]))
    problem = ScriptProblem(
        (SCRIPT,), run, over=["learning-rate", "batch-size"], vary=[Varied.of("--hidden=16..256:log")]
    )
    return problem, Record.read(run.record)


def told(answer: Answer, values: Mapping[str, Sequence[float]]) -> None:
    """Holds what was found against what is claimed."""
    gains = [cnn.difference(values, name, OWN) for name in (SEARCHED, RANDOM)]
    for gain in gains[: 1 if len(answer.arms["control"]) < 10 else 2]:  # a few points may all lie beside the band
        assert gain.mean > 0.1, "as it stands it is far from what it could be"
        assert gain.helps, "and that is no chance"
    cnn.difference(values, SEARCHED, RANDOM)
    runs = [c for children in answer.arms.values() for c in children]
    low = [c for c in runs if c.point.values["batch size"] >= 128 and c.point.values["rate"] <= 0.015]
    assert all(c.best < 0.5 for c in low), "a large batch needs a high rate"
    cnn.check_as_a_whole(answer)


def draw_points(axes: Axes, answer: Answer, own: tuple[float, float]) -> None:
    """Rate and batch of all runs, and how well they went."""
    children = [c for several in answer.arms.values() for c in several if np.isfinite(c.best)]
    rates, batches = ([c.point.values[name] for c in children] for name in ("rate", "batch size"))
    apart = np.random.default_rng(0).uniform(0.88, 1.14, len(children))  # so that no point hides another
    shades = axes.scatter(rates, batches * apart, c=[c.best for c in children], cmap="viridis", s=28, linewidths=0)
    axes.figure.colorbar(shades, ax=axes, label="accuracy")
    axes.plot(*own, "X", color=INK, markeredgecolor="white", markersize=13, label=OWN)
    assert answer.best is not None
    best = answer.best.child.point.values
    axes.plot(best["rate"], best["batch size"], "*", color=ORANGE, markeredgecolor=INK, markersize=17, label=SEARCHED)
    axes.set(xscale="log", xlabel="learning rate", ylabel="batch size", title="What was tried")
    axes.set_yscale("log", base=2)
    axes.set_yticks(sorted(set(batches)), [str(b) for b in sorted(set(batches))])
    axes.legend(loc="upper left", frameon=True, facecolor="white", edgecolor="none", framealpha=0.85)


def draw(answer: Answer, values: Mapping[str, Sequence[float]], own: tuple[float, float], out: Path) -> None:
    """Progress, what was tried, and fresh seeds."""
    with styled():
        figure = Figure(figsize=(12, 4.4))
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.0, 1.25, 1.0))
        cnn.draw_progress(left, answer, "As it went")
        left.set_ylabel("validation accuracy")
        draw_points(middle, answer, own)
        cnn.draw_scores(right, values, LOOKS, f"{len(values[SEARCHED])} fresh seeds")
        right.set_xlabel("validation accuracy")
    save(figure, out)


def main(options: argparse.Namespace) -> None:
    """Searches, judges by fresh seeds, tells and draws."""
    with cnn.work(options.runs) as executor:
        problem, record = surveyed(executor)
        own = float(record.series("lr").median()), float(record.series("batch_size").median())
        answer = cnn.searched(problem, executor, options)
        assert answer.best is not None
        assert answer.control is not None
        points = {SEARCHED: answer.best.child.point, RANDOM: answer.control.child.point, OWN: problem.own}
        for name, point in points.items():
            print(f"{name}: {point.chosen}")
        seeds = range(cnn.FRESH, cnn.FRESH + options.seeds)
        jobs = {
            n: [cnn.job(problem, point, seed, executor.log.folder) for seed in seeds] for n, point in points.items()
        }
        values = cnn.scores(executor, jobs)
    told(answer, values)
    draw(answer, values, own, options.out)


if __name__ == "__main__":
    main(cnn.arguments(__doc__ or "", __file__))
