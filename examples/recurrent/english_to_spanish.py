"""From English to Spanish, on verses of the Bible: an encoder and an attention decoder, scored by BLEU.

The World English Bible (2015) and Reina-Valera (1909), verse by verse, both in the public domain. Each was translated from the
Hebrew and the Greek and not from the other, there are few verses, and minutes are short: expect about ten points of BLEU.

    apt-get install -y --no-install-recommends sword-text-web sword-text-sparv
    pip install --no-deps pysword
    python english_to_spanish.py --minutes 3
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unstuck.recurrent.encoder_decoder import EncoderDecoder

PADDING, START, STOP, UNKNOWN = range(4)
SWORD = Path("/usr/share/sword")
MODULES = {"english": "engWEB2015eb", "spanish": "spaRV1909eb"}
Tokens = list[str]
Verse = tuple[str, int, int]


def verses(name: str) -> dict[Verse, Tokens]:
    """Tokens in lower case by book, chapter and verse."""
    if importlib.util.find_spec("pysword") is None:
        sys.exit("the reader of the texts is missing: pip install --no-deps pysword")
    from pysword.modules import SwordModules

    modules = SwordModules(str(SWORD))
    if not SWORD.exists() or name not in modules.parse_modules():
        sys.exit("the texts are missing: apt-get install -y --no-install-recommends sword-text-web sword-text-sparv")
    bible = modules.get_bible_from_module(name)
    bible._decompressed_text = functools.lru_cache(8)(bible._decompressed_text)  # else it unzips a book for every verse
    found = {}
    for book in (book for books in bible.get_structure().get_books().values() for book in books):
        for chapter, count in enumerate(book.chapter_lengths, 1):
            for verse in range(1, count + 1):
                marked = bible.get(books=[book.name], chapters=[chapter], verses=[verse], clean=False)
                text = re.sub(r"<note.*?</note>|<title.*?</title>|<[^>]*>", " ", marked, flags=re.DOTALL).lower()
                found[book.name, chapter, verse] = re.findall(r"\w+(?:[’'-]\w+)*|[.,;:!?¡¿]", text)
    return found


def pairs(longest: int) -> list[tuple[Tokens, Tokens]]:
    """Verses that both have, and that are short enough in both."""
    english, spanish = (verses(name) for name in MODULES.values())
    both = ((english[verse], spanish[verse]) for verse in english if verse in spanish)
    return [pair for pair in both if all(0 < len(side) <= longest for side in pair)]


class Vocabulary:
    """Numbers for words that occur often enough."""

    def __init__(self, texts: list[Tokens], least: int) -> None:
        counts = Counter(token for text in texts for token in text)
        self.words = ["", "", "", "<unknown>", *sorted(word for word, count in counts.items() if count >= least)]
        self.numbers = {word: i for i, word in enumerate(self.words) if i > UNKNOWN}

    def rows(self, texts: list[Tokens], *, stop: bool) -> list[Tensor]:
        """The numbers of texts."""
        end = [STOP] if stop else []
        return [torch.tensor([self.numbers.get(token, UNKNOWN) for token in text] + end) for text in texts]


def bleu(given: list[Tokens], wanted: list[Tokens]) -> float:
    """Corpus BLEU of n-grams up to four, one reference each, no smoothing, from 0 to 100 (Papineni et al. 2002)."""
    matched, total = [0] * 4, [0] * 4
    for hypothesis, reference in zip(given, wanted, strict=True):
        for n in range(1, 5):
            own, there = (
                Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for text in (hypothesis, reference)
            )
            matched[n - 1] += (own & there).total()
            total[n - 1] += own.total()
    if not all(matched):
        return 0.0
    precision = sum(math.log(m / t) for m, t in zip(matched, total, strict=True)) / 4
    lengths = sum(map(len, given)), sum(map(len, wanted))
    return 100 * math.exp(precision + min(0, 1 - lengths[1] / lengths[0]))


def train(model: EncoderDecoder, data: list[tuple[Tensor, Tensor]], options: argparse.Namespace) -> None:
    """Adam on batches of verses of about the same length, with a rate that falls to zero when the time is over."""
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    rng, began, step, epoch = random.Random(options.seed), time.time(), 0, 0
    left = 1.0
    while left > 0:
        epoch += 1
        rng.shuffle(data)
        ordered = sorted(data, key=lambda pair: len(pair[0]))
        starts = list(range(0, len(ordered), options.batch))
        rng.shuffle(starts)
        mean = 0.0
        for count, start in enumerate(starts, 1):
            step += 1
            left = min(1 - (time.time() - began) / (60 * options.minutes), 1 - step / options.steps)
            optimizer.param_groups[0]["lr"] = options.rate * max(left, 0) * min(step / 100, 1)
            source, target = zip(*ordered[start : start + options.batch], strict=True)
            loss = model.loss(*padded(source), padded(target)[0], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
            mean += (loss.item() - mean) / count
            if left <= 0:
                break
        print(f"epoch {epoch}, step {step}: loss {mean:.3f}, {time.time() - began:.0f} s", flush=True)


def padded(rows: tuple[Tensor, ...] | list[Tensor]) -> tuple[Tensor, Tensor]:
    """One tensor, and the lengths."""
    return pad_sequence(list(rows), batch_first=True), torch.tensor([len(row) for row in rows])


def main(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    data = sorted(pairs(options.longest))
    random.Random(options.seed).shuffle(data)
    test, training = data[: options.test], data[options.test :]
    known = {" ".join(english) for english, _ in training}
    test = [pair for pair in test if " ".join(pair[0]) not in known]  # some verses stand in two books
    english = Vocabulary([source for source, _ in training], 3)
    spanish = Vocabulary([target for _, target in training], 3)
    sizes = f"{len(english.words)} English and {len(spanish.words)} Spanish words"
    print(f"{len(training)} verses of at most {options.longest} words to train on, {len(test)} held out, {sizes}")
    model = EncoderDecoder(
        len(english.words), len(spanish.words), embedding_size=96, hidden_size=options.hidden, dropout=0.2
    )
    rows = english.rows([s for s, _ in training], stop=False), spanish.rows([t for _, t in training], stop=True)
    train(model, list(zip(*rows, strict=True)), options)
    wanted = [target for _, target in test]
    source, lengths = padded(english.rows([s for s, _ in test], stop=False))
    for width in (1, 5, 10):
        began = time.time()
        decoded = model.decode(source, lengths, max_length=options.longest + 5, width=width, length_penalty=1.0)
        given = [[spanish.words[token] for token in tokens] for tokens in decoded.sequences()]
        name = "greedy" if width == 1 else f"beam {width}"
        print(f"{name}: BLEU {bleu(given, wanted):.2f}, {time.time() - began:.1f} s")
    for (verse, reference), tokens in list(zip(test, given, strict=True))[:3]:
        print(f"  {' '.join(verse)}\n  -> {' '.join(tokens)}\n     ({' '.join(reference)})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3, help="time to train for, at most")
    parser.add_argument("--steps", type=int, default=4000, help="updates, at most")
    parser.add_argument("--longest", type=int, default=20, help="most tokens of a verse, in either language")
    parser.add_argument("--hidden", type=int, default=128, help="units of the decoder")
    parser.add_argument("--batch", type=int, default=32, help="verses in an update")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--test", type=int, default=500, help="verses held out")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
