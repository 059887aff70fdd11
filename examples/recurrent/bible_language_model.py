"""How well the next word of the Bible can be told: an LSTM beside n-grams, in perplexity on chapters held out.

The World English Bible in lower case, words and punctuation marks, with a token at the end of each verse. Of every twenty chapters one
is the test and one is for choosing. Words that occur fewer than five times in training are one and the same `<unknown>`, which makes
the task easier, for all models alike.

The n-grams are interpolated with Kneser and Ney's smoothing (1995), as in Chen and Goodman 1999, with one discount for each order.

    apt-get install -y --no-install-recommends sword-text-web
    pip install --no-deps pysword
    python bible_language_model.py
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter, defaultdict

import torch
from english_to_spanish import MODULES, verses  # the reader of the texts, in this folder
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unstuck.recurrent.language_model import LanguageModel
from unstuck.recurrent.layers import detach

PADDING, END, UNKNOWN = range(3)
PART = 35  # tokens that a gradient goes through
Chapter = list[int]


def chapters() -> list[list[str]]:
    """Tokens of each chapter, `<end>` after each verse."""
    found: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for (book, chapter, _), tokens in verses(MODULES["english"]).items():
        found[book, chapter] += [*tokens, "<end>"] if tokens else []
    return [tokens for tokens in found.values() if tokens]


def numbered(texts: list[list[str]], training: list[list[str]], least: int) -> tuple[list[Chapter], list[str]]:
    """Texts as numbers, and the words that these stand for."""
    counts = Counter(token for text in training for token in text)
    counts["<end>"] = 0
    words = ["", "<end>", "<unknown>", *sorted(word for word, count in counts.items() if count >= least)]
    numbers = {word: n for n, word in enumerate(words)}
    return [[END, *(numbers.get(token, UNKNOWN) for token in text)] for text in texts], words


class NGrams:
    """Interpolated Kneser-Ney: what a context was followed by, discounted, and the rest by the context without its first word."""

    def __init__(self, texts: list[Chapter], order: int, vocab_size: int) -> None:
        self.uniform = 1 / vocab_size
        self.counts: list[defaultdict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        for text in texts:
            for place in range(1, len(text)):
                n = min(order - 1, place)
                self.counts[n][tuple(text[place - n : place])][text[place]] += 1
        # Of a shorter context it is counted after how many words it was followed by something.
        for n in reversed(range(order - 1)):
            for context, follow in self.counts[n + 1].items():
                for token in follow:
                    self.counts[n][context[1:]][token] += 1
        self.discounts = [self._discount(level) for level in self.counts]
        self.totals = [{context: follow.total() for context, follow in level.items()} for level in self.counts]

    @staticmethod
    def _discount(level: dict[tuple[int, ...], Counter[int]]) -> float:
        often = Counter(min(count, 3) for follow in level.values() for count in follow.values())
        return often[1] / max(often[1] + 2 * often[2], 1)  # with no rare words nothing is kept for others

    def probability(self, token: int, context: tuple[int, ...]) -> float:
        """Of a token after a context."""
        probability = self.uniform
        for n in range(min(len(self.counts), len(context) + 1)):
            seen = context[len(context) - n :]
            follow = self.counts[n].get(seen)
            if follow is None:
                return probability
            discount, total = self.discounts[n], self.totals[n][seen]
            rest = discount * len(follow) / total
            probability = max(follow[token] - discount, 0) / total + rest * probability
        return probability

    def probabilities(self, texts: list[Chapter]) -> Tensor:
        """Of all tokens but the first of each text, one after the other."""
        order = len(self.counts)
        return torch.tensor(
            [
                self.probability(text[place], tuple(text[max(place - order + 1, 0) : place]))
                for text in texts
                for place in range(1, len(text))
            ]
        )


def train(model: LanguageModel, texts: list[Chapter], choosing: list[Chapter], options: argparse.Namespace) -> None:
    """Adam, with a rate that falls to zero, on parts of one long text in many rows; states go on from part to part.

    Now and then a row forgets everything, so that the model learns how to begin.
    """
    text = torch.tensor([token for chapter in texts for token in chapter[1:]])
    rows = text[: len(text) // options.batch * options.batch].view(options.batch, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    began, step, states, place, mean = time.time(), 0, None, 0, 0.0
    while step < options.steps:
        step += 1
        optimizer.param_groups[0]["lr"] = options.rate * min(step / 100, 1 - (step - 1) / options.steps)
        costs, states = model.costs(rows[:, place : place + PART], rows[:, place + 1 : place + PART + 1], states)
        going = (torch.rand(options.batch, 1) < 0.95).float()
        states, loss = tuple(state * going for state in detach(states)), costs.mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean += (loss.item() - mean) / min(step, 200)
        place += PART
        if place + PART >= rows.shape[1]:
            states, place = None, 0
        if step % 500 == 0:
            chosen = math.exp(-probabilities(model, choosing).log().mean())
            says = f"perplexity {math.exp(mean):.1f} in training, {chosen:.1f} on chapters for choosing"
            print(f"step {step}: {says}, {time.time() - began:.0f} s", flush=True)


@torch.no_grad()
def probabilities(model: LanguageModel, texts: list[Chapter]) -> Tensor:
    """Of all tokens but the first of each text, one after the other; each text begins with no memory of another."""
    model.eval()
    padded = pad_sequence([torch.tensor(text) for text in texts], batch_first=True, padding_value=PADDING)
    costs, states = [], None
    for tokens, targets in zip(padded[:, :-1].split(PART, dim=1), padded[:, 1:].split(PART, dim=1), strict=True):
        found, states = model.costs(tokens, targets, states)
        costs.append(found)
    model.train()
    return (-torch.cat(costs, dim=1)[padded[:, 1:] != PADDING]).exp()


def perplexity(probabilities: Tensor) -> float:
    return math.exp(-probabilities.double().log().mean())


def main(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    texts = chapters()
    parts = [[text for n, text in enumerate(texts) if role(n) == part] for part in ("training", "choosing", "test")]
    counts = [sum(map(len, part)) for part in parts]
    together, words = numbered([text for part in parts for text in part], parts[0], options.least)
    training, rest = together[: len(parts[0])], together[len(parts[0]) :]
    choosing, test = rest[: len(parts[1])], rest[len(parts[1]) :]
    unknown = sum(text.count(UNKNOWN) for text in test) / counts[2]
    print(f"{counts[0]} tokens to train on, {counts[2]} for the test ({unknown:.1%} unknown), {len(words)} words")
    told = {}
    for order in (1, 2, 3, 4):
        grams = NGrams(training, order, len(words) - 1)
        told[order] = grams.probabilities(choosing), grams.probabilities(test)
        print(f"{order}-grams: test perplexity {perplexity(told[order][1]):.1f}", flush=True)
    model = LanguageModel(
        len(words), embedding_size=options.hidden, hidden_size=options.hidden,
        tied=True, dropout=options.dropout, padding=PADDING,
    )  # fmt: skip
    train(model, training, choosing, options)
    own = probabilities(model, choosing), probabilities(model, test)
    best = min(told, key=lambda order: perplexity(told[order][0]))
    weights = [n / 20 for n in range(21)]
    weight = min(weights, key=lambda w: perplexity(w * own[0] + (1 - w) * told[best][0]))
    mixed = perplexity(weight * own[1] + (1 - weight) * told[best][1])
    print(f"LSTM and {best}-grams, {weight:.2f} to {1 - weight:.2f}: test perplexity {mixed:.1f}")
    generator, begin = torch.Generator().manual_seed(options.seed), torch.tensor([[END]] * 3)
    for tokens in model.generate(begin, max_length=40, stop=END, generator=generator, temperature=0.8).sequences():
        print("  " + " ".join(words[token] for token in tokens))
    print(f"final test perplexity {perplexity(own[1]):.1f}")


def role(chapter: int) -> str:
    return {10: "choosing", 0: "test"}.get(chapter % 20, "training")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500, help="updates")
    parser.add_argument("--hidden", type=int, default=128, help="units, and numbers in a word's vector")
    parser.add_argument("--dropout", type=float, default=0.0, help="rate")
    parser.add_argument("--batch", type=int, default=20, help="rows of an update")
    parser.add_argument("--rate", type=float, default=5e-3, help="learning rate")
    parser.add_argument("--least", type=int, default=5, help="how often a word occurs that is not unknown")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
