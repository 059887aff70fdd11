"""What every test of this room needs: small networks of many kinds, and their Hessians by the slow obvious way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unstuck.curvature.objective import Objective

SIZES = (7, 4, 1)  # of batches, unequal on purpose


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without checks of annotations, which would come before ours."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Recurrent(nn.Module):
    """A recurrent layer, read at its last step."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer, self.head = kind(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Attentive(nn.Module):
    """One layer of a transformer, averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(4, 2, 5, 0.0, "gelu", batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), (5,)),
    "cnn": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)),
        (1, 6, 6),
    ),
    "pooled": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        (1, 6, 6),
    ),
    "transformer": (Attentive, (4, 4)),
    "lstm": (lambda: Recurrent(nn.LSTM), (5, 3)),
    "gru": (lambda: Recurrent(nn.GRU), (5, 3)),
}


@pytest.fixture
def build() -> Callable[..., tuple[Objective, nn.Module]]:
    """Builds the cross-entropy of one of the networks over three unequal batches."""

    def build(name: str, *, dtype: torch.dtype = torch.float32, **options) -> tuple[Objective, nn.Module]:
        make, shape = NETS[name]
        torch.manual_seed(3)
        module = make().to(dtype)
        generator = torch.Generator().manual_seed(4)
        batches = [
            (torch.randn(size, *shape, generator=generator).to(dtype), torch.randint(3, (size,), generator=generator))
            for size in SIZES
        ]
        return Objective(lambda batch: F.cross_entropy(module(batch[0]), batch[1]), module, batches, **options), module

    return build


@pytest.fixture
def hessian_of() -> Callable[[Objective], Tensor]:
    """The dense Hessian of an objective's weighted mean, a row at a time by autograd, in the precision of its tensors."""

    def hessian_of(objective: Objective) -> Tensor:
        total = sum(objective.sizes)
        with objective.fixed(), sdpa_kernel(SDPBackend.MATH):
            loss = sum(size / total * objective.loss(i) for i, size in enumerate(objective.sizes))
            grads = torch.autograd.grad(loss, objective.params, create_graph=True, allow_unused=True)
            flat = torch.cat([
                (torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(grads, objective.params, strict=True)
            ])  # fmt: skip
            rows = []
            for entry in flat:
                row = (
                    torch.autograd.grad(entry, objective.params, retain_graph=True, allow_unused=True)
                    if entry.requires_grad
                    else [None] * len(objective.params)
                )
                rows.append(torch.cat([
                    (torch.zeros_like(p) if r is None else r).reshape(-1) for r, p in zip(row, objective.params, strict=True)
                ]))  # fmt: skip
        return torch.stack(rows).double()

    return hessian_of


@pytest.fixture(scope="session")
def truths() -> dict[str, Tensor]:
    """Dense Hessians by the name of the network: they take long, and are the same for all tests."""
    return {}


@pytest.fixture
def truth(build, hessian_of, truths) -> Callable[[str], Tensor]:
    """The Hessian, in float64, of one of the networks as it is built."""

    def truth(name: str) -> Tensor:
        if name not in truths:
            truths[name] = hessian_of(build(name, dtype=torch.float64)[0])
        return truths[name]

    return truth


@pytest.fixture
def twin() -> Callable[[nn.Module], nn.Module]:
    """A copy of a module in float64."""
    return lambda module: copy.deepcopy(module).double()


@pytest.fixture
def symmetric() -> Callable[..., Tensor]:
    """A symmetric matrix with given eigenvalues and random eigenvectors."""

    def symmetric(values: Tensor, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
        made = basis * values.double() @ basis.T
        return (made + made.T) / 2

    return symmetric
