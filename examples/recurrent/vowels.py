"""Who says a vowel, from sequences of 7 to 29 steps: GRUs that tell by their last states, and by the mean of their outputs.

Nine men speak, 270 times for training and 370 for the test (Kudo, Toyama and Shimbo 1999). Sizes, rate and noise are first guesses;
which of the two counts is told by cross-validation on the training set.

    pip install --no-deps sktime==1.2.0
    python vowels.py
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unstuck.recurrent.sequence_classifier import SequenceClassifier

Labelled = tuple[list[Tensor], Tensor]


def load(part: str) -> Labelled:
    """Sequences, shape `(time, 12)`, and their classes."""
    found = importlib.util.find_spec("sktime")  # the data lie in this package; it is not imported
    if found is None or found.origin is None:
        sys.exit("this example takes its data from sktime: pip install --no-deps sktime==1.2.0")
    text = (Path(found.origin).parent / "datasets/data/JapaneseVowels" / f"JapaneseVowels_{part}.ts").read_text()
    sequences, labels = [], []
    for line in text.split("@data")[1].split():
        *channels, label = line.split(":")
        sequences.append(torch.tensor([[float(value) for value in channel.split(",")] for channel in channels]).t())
        labels.append(int(label))
    return sequences, torch.tensor(labels) - min(labels)


def standardized(sequences: list[Tensor], known: list[Tensor]) -> list[Tensor]:
    """Each channel shifted and scaled by its mean and deviation over all steps of what is known."""
    steps = torch.cat(known)
    return [(sequence - steps.mean(dim=0)) / steps.std(dim=0) for sequence in sequences]


def padded(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    return pad_sequence(sequences, batch_first=True), torch.tensor([len(sequence) for sequence in sequences])


def trained(data: Labelled, reads: str, seed: int, options: argparse.Namespace) -> SequenceClassifier:
    """Adam, with a rate that falls to zero, on inputs with noise added."""
    torch.manual_seed(seed)
    sequences, labels = data
    model = SequenceClassifier(
        sequences[0].shape[1], options.hidden, int(labels.max()) + 1,
        cell="gru", bidirectional=True, reads=reads, dropout=0.3,
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    batches = -(-len(sequences) // 32)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, options.epochs * batches)
    for _ in range(options.epochs):
        for chosen in torch.randperm(len(sequences)).split(32):
            inputs, lengths = padded([sequences[i] for i in chosen.tolist()])
            logits = model(inputs + options.noise * torch.randn_like(inputs), lengths)
            loss = nn.functional.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: SequenceClassifier, data: Labelled) -> float:
    return (model(*padded(data[0])).argmax(dim=1) == data[1]).double().mean().item()


def validated(data: Labelled, reads: str, options: argparse.Namespace) -> float:
    """Mean accuracy on each fifth of the training set, of a network that was trained on the rest."""
    order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(options.seed))
    scores = []
    for fold in range(5):
        parts = order[torch.arange(len(order)) % 5 != fold], order[fold::5]
        inside, outside = (([data[0][i] for i in part.tolist()], data[1][part]) for part in parts)
        scores.append(accuracy(trained(inside, reads, options.seed, options), outside))
    return sum(scores) / 5


def main(options: argparse.Namespace) -> None:
    (known, labels), (new, answers) = (load(part) for part in ("TRAIN", "TEST"))
    training, test = (standardized(known, known), labels), (standardized(new, known), answers)
    validation = {}
    for reads in ("last", "mean"):
        score = accuracy(trained(training, reads, options.seed, options), test)
        validation[reads] = (validated(training, reads, options) if options.validate else 0.0, score)
        within = f", {validation[reads][0]:.3f} in cross-validation" if options.validate else ""
        print(f"{reads}: test accuracy {score:.3f}{within}", flush=True)
    # With equal validation, or without, the mean.
    best = "last" if validation["last"][0] > validation["mean"][0] else "mean"
    print(f"final test accuracy {validation[best][1]:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=32, help="units in each direction")
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate")
    parser.add_argument("--noise", type=float, default=0.2, help="deviation of what is added to standardized inputs")
    parser.add_argument("--validate", action=argparse.BooleanOptionalAction, default=True, help="cross-validation")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
