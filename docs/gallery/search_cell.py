"""Recurrent cells searched for a model of characters, beside cells drawn at random, LSTM and GRU.

`examples/search/cell.py` says what is searched: trees of four linear maps of input and output, what is combined how and by which function
it goes, and where a cell state comes in and goes out. LSTM and GRU have as many parameters, as many updates, and a rate that was chosen
for them, of .003, .01, .03, .06 and .1. What one sees:

- **Most cells learn something, few learn much.** Of cells drawn at random the best is far ahead of the one in the middle.
- **What is found does better than LSTM and GRU here**: on this text, with these few updates, which says nothing of others.
- **As a whole the search does better than chance**, its best by little or nothing: seeds and text that nothing was chosen by tell.

Zoph & Le 2017, section 3.4, at next to none of its cost. With --runs FOLDER what was trained is kept, and is not trained again. The
figure was made with --evaluations 40; it is of Python 3.11's help texts, other versions' differ a little.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import search_cnn as cnn  # in this folder
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from search_cnn import COLOURS, RANDOM, SEARCHED, TYPICAL
from torch.utils.data import TensorDataset

from unstuck.report.pictures import BLUE, FAINT, GREEN, INK, PURPLE, VERMILION, save, styled
from unstuck.search.answer import Answer
from unstuck.search.child import Order, loaded
from unstuck.search.problems import TrainingProblem
from unstuck.search.recurrent_cell import CellTree, Node
from unstuck.search.space import Point

KNOWN = {"LSTM": "lstm", "GRU": "gru"}
LOOKS = {**COLOURS, "LSTM": GREEN, "GRU": PURPLE}
SIGNS, CURVES = {"add": "+", "mul": "×"}, {"identity": "", "tanh": "tanh", "sigmoid": "σ", "relu": "relu"}


TEST = 50_000  # characters
MOST = 40.0  # perplexity that is drawn: above, nothing was learned
STATE: dict[str, Any] = {
    "ha": "center", "va": "center", "color": VERMILION, "fontsize": 9.5, "bbox": {"pad": 1, "facecolor": "white", "edgecolor": "none"},
}  # fmt: skip


def judged(
    problem: TrainingProblem, executor: cnn.Processes, answer: Answer, seeds: Sequence[int]
) -> dict[str, list[float]]:
    """Test perplexities with fresh seeds, of what was found and of what is known."""
    assert answer.best is not None
    assert answer.control is not None
    folder, known = executor.log.folder, TrainingProblem(str(cnn.EXAMPLES / "known_cells.py"))
    points = {
        SEARCHED: (problem, answer.best.child.point), RANDOM: (problem, answer.control.child.point),
        TYPICAL: (problem, cnn.typical(answer.arms["control"]).point),
        **{name: (known, known.space.at({"cell": cell})) for name, cell in KNOWN.items()},
    }  # fmt: skip
    print("text to choose by, fresh seeds:")
    jobs = {name: [cnn.job(of, point, seed, folder) for seed in seeds] for name, (of, point) in points.items()}
    cnn.scores(executor, jobs)
    found = {
        name: [tested(of, point, Order({}, saved=str(cnn.weights(point, seed, folder))).after(-1)) for seed in seeds]
        for name, (of, point) in points.items()
    }
    for name, values in found.items():
        print(
            f"{name}: test perplexity "
            + ", ".join(f"{v:.3f}" for v in values)
            + f"; mean {statistics.fmean(values):.3f}"
        )
    return found


def tested(problem: TrainingProblem, point: Point, saved: Path) -> float:
    """Perplexity of a trained cell on the test."""
    model = loaded(problem.file).training(point.chosen).model
    model.load_state_dict(torch.load(saved, weights_only=False)["model"])
    return model.perplexity(*unseen().tensors)


@functools.cache
def unseen() -> TensorDataset:
    """The text behind that which is trained on and chosen by; of its characters those that are in there."""
    example = loaded(str(cnn.EXAMPLES / "cell.py"))
    joined = "\n".join(topics[name] for name in sorted(topics))
    numbers = {character: n for n, character in enumerate(sorted(set(joined[: example.CHARACTERS])))}
    behind = joined[example.CHARACTERS : example.CHARACTERS + TEST]
    return example.windows(torch.tensor([numbers[character] for character in behind if character in numbers]))


def told(answer: Answer, values: Mapping[str, Sequence[float]]) -> None:
    """Holds what was found against what is claimed."""
    example = loaded(str(cnn.EXAMPLES / "cell.py"))
    for maps in (3, 4):
        units = example.units(maps)
        assert 0.95 < maps * units * (example.EMBEDDING + units + 2) / example.PARAMETERS <= 1, "as many parameters"
    counts = Counter(example.text()[0].tolist())
    shares = [count / counts.total() for count in counts.values()]
    alone = math.exp(-sum(share * math.log(share) for share in shares))
    print(f"perplexity of characters by themselves, whatever stands before: {alone:.3g}")
    assert answer.score == "perplexity"
    assert max(min(values[SEARCHED]), min(values[RANDOM]), min(values["LSTM"]), min(values["GRU"])) < alone
    less = {other: cnn.difference(values, SEARCHED, other) for other in (RANDOM, TYPICAL, *KNOWN)}
    if len(answer.arms["search"]) >= 30:
        assert all(less[name].high < 0 for name in (TYPICAL, *KNOWN)), "what is found does better than LSTM and GRU"
    cnn.check_as_a_whole(answer)


def operation(axes: Axes, x: float, y: float, node: Node, colour: str) -> None:
    """A node, as "tanh(+)"."""
    curve, sign = CURVES[node.activation], SIGNS[node.combination]
    words = f"{curve}( {sign} )" if curve else f" {sign} "
    axes.text(
        x, y, words, ha="center", va="center", fontsize=10,
        bbox={"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": colour},
    )  # fmt: skip


def draw_cell(axes: Axes, tree: CellTree, title: str) -> None:
    """The tree from its leaves below to the output above; the cell state in red."""
    places: dict[int, tuple[float, float]] = {n: (float(n), 0.0) for n in range(tree.base)}
    for n in range(tree.base, len(tree.nodes)):
        below = [places[m] for m in tree.children(n)]
        places[n] = (sum(x for x, _ in below) / 2, max(y for _, y in below) + 1)
        for x, y in below:
            axes.plot([x, places[n][0]], [y, places[n][1]], color=FAINT, linewidth=1.2, zorder=0)
    for n, (x, y) in places.items():
        operation(axes, x, y, tree.nodes[n], BLUE)
        if n < tree.base:
            axes.text(x, y - 0.55, "$x_t$   $h_{t-1}$", ha="center", color=INK, fontsize=10)
    top = max(y for _, y in places.values())
    axes.annotate("$h_t$", places[len(places) - 1], (places[len(places) - 1][0], top + 0.45), ha="center", fontsize=11)
    if tree.memory:
        (x, y), curve = places[tree.memory.read_by], CURVES[tree.memory.node.activation]
        words = f"{SIGNS[tree.memory.node.combination]} $c_{{t-1}}$" + (f", then {curve}" if curve else "")
        axes.text(x, y + 0.24, words, **STATE)
        x, y = places[tree.memory.written_by]
        axes.text(x, y - 0.24, "$c_t$ = " + SIGNS[tree.nodes[tree.memory.written_by].combination], **STATE)
    axes.set(xlim=(-0.6, tree.base - 0.4), ylim=(-0.75, top + 0.7), title=title)
    axes.axis("off")


def draw(answer: Answer, values: Mapping[str, Sequence[float]], out: Path) -> None:
    """Progress, fresh seeds, and the cell that was found."""
    with styled():
        figure = Figure(figsize=(12, 4.8))
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.0, 1.0))
        cnn.draw_progress(left, answer, "Characters: as it went")
        lowest = min(cnn.first_score(child) for children in answer.arms.values() for child in children if child.status)
        left.set(yscale="log", ylabel="perplexity after a third of the epochs", ylim=(0.95 * lowest, MOST))
        cnn.draw_scores(middle, values, LOOKS, f"Test, {len(values[SEARCHED])} fresh seeds")
        middle.set(xscale="log", xlabel="perplexity on text nothing was chosen by,\nthe lower the better")
        for axes in (left.yaxis, middle.xaxis):
            axes.set_major_formatter(lambda value, _: f"{value:g}")
            axes.set_minor_formatter(lambda value, _: f"{value:g}")
        name, cell = cnn.better(answer, values)
        draw_cell(right, cell, f"The better one: {name}")
    save(figure, out)


def main(options: argparse.Namespace) -> None:
    """Searches, judges by fresh seeds, tells and draws."""
    if options.characters:
        os.environ["CHARACTERS"] = str(options.characters)  # children see it as well
    with cnn.work(options.runs) as executor:
        problem = TrainingProblem(str(cnn.EXAMPLES / "cell.py"))
        answer = cnn.searched(problem, executor, options)
        values = judged(problem, executor, answer, range(cnn.FRESH, cnn.FRESH + options.seeds))
    told(answer, values)
    draw(answer, values, options.out)


if __name__ == "__main__":
    main(
        cnn.arguments(
            __doc__ or "",
            __file__,
            add=lambda parser: parser.add_argument("--characters", type=int, help="of the text, for a quick look"),
        )
    )
