from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstuck.curvature.objective import Objective, size_of
from unstuck.errors import MisuseError
from unstuck.recurrent.layers import LSTM


def quadratic(*sizes: int) -> tuple[Objective, Tensor, list[Tensor]]:
    """Mean of (x - w)^2 / 2 over samples: its gradient is w - mean(x), over all samples alike."""
    w = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    batches = [torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=torch.float64) for size in sizes]
    return Objective(lambda x: ((x - w) ** 2).mean() / 2, [w], batches), w, batches


def test_the_mean_is_over_samples_and_not_over_batches():
    objective, w, batches = quadratic(1, 10, 100)
    x = torch.cat(batches)
    # float64 sums of 111 numbers
    assert objective.value() == pytest.approx(float(((x - w.detach()) ** 2).mean() / 2), rel=1e-12)
    assert float(objective.gradient()) == pytest.approx(float(w.detach() - x.mean()), rel=1e-12)
    assert [float(g) for g in objective.gradients()] == pytest.approx(
        [float(w.detach() - b.mean()) for b in batches], rel=1e-12
    )


def test_sizes_can_be_given():
    w = torch.ones(1)
    objective = Objective(lambda x: x * w.sum(), [w], [1.0, 5.0], sizes=[3.0, 1.0])
    assert objective.weights == [0.75, 0.25]
    assert objective.value() == pytest.approx(2.0, rel=1e-6) and float(objective.gradient()) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "batch, size",
    [
        (torch.zeros(5, 2), 5), (torch.tensor(3.0), 1), ((torch.zeros(4), torch.zeros(7)), 4), (["a", torch.zeros(3)], 3),
        ({"text": "a", "x": torch.zeros(6, 1)}, 6), ([(torch.zeros(2), 1), torch.zeros(9)], 2), (None, 1), ("abc", 1), ([], 1),
    ],
)  # fmt: skip
def test_the_size_of_a_batch_is_the_length_of_its_first_tensor(batch, size):
    assert size_of(batch) == size


def snapshot(module: nn.Module) -> list:
    parts = list(module.modules())
    tensors = [*module.parameters(), *module.buffers()]
    return [
        [p.training for p in parts],
        [p.p for p in parts if isinstance(p, nn.Dropout)] + [p.dropout for p in parts if isinstance(p, nn.RNNBase)],
        [(id(t), t._version, t.requires_grad, id(t.grad)) for t in tensors],
        [t.detach().clone() for t in tensors],
        torch.get_rng_state().clone(),
        torch.is_grad_enabled(),
    ]


def same(before: list, after: list) -> bool:
    return (
        before[:3] == after[:3]
        and all(torch.equal(a, b) for a, b in zip(before[3], after[3], strict=True))
        and torch.equal(before[4], after[4])
        and before[5] == after[5]
    )


class Mixed(nn.Module):
    """All that changes as it is evaluated: running statistics, dropout of three kinds, a frozen parameter, one without use."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(4, 2)
        self.layer = nn.LSTM(3, 4, num_layers=2, dropout=0.5, batch_first=True)
        self.unused = nn.Parameter(torch.ones(3))
        self.head.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.layer(self.norm(x))[0][:, -1]))


@pytest.fixture
def mixed() -> tuple[Mixed, Tensor]:
    torch.manual_seed(0)
    module = Mixed()
    x = torch.randn(8, 6, 3)
    module(x).sum().backward()
    module.drop.eval()
    return module, x


@pytest.mark.parametrize("mode", ["as-is", "train", "eval", "no-dropout"])
def test_nothing_is_changed_for_good(mixed, mode):
    module, x = mixed
    objective = Objective(lambda b: module(b).square().mean(), module, [x[:5], x[5:]], mode=mode)
    before = snapshot(module)
    with torch.no_grad():
        objective.value(), objective.gradient()
    assert same(before, snapshot(module))


def test_nothing_is_changed_by_a_loss_that_fails(mixed):
    module, x = mixed

    def loss(batch: Tensor) -> Tensor:
        module(batch)
        raise KeyError("no such label")

    objective = Objective(loss, [*module.parameters()], [x], modules=[module], mode="train")
    before = snapshot(module)
    for ask in (objective.value, objective.gradient):
        with pytest.raises(KeyError):
            ask()
    assert same(before, snapshot(module))
    with pytest.raises(KeyError), objective.moved() as move:
        move(torch.ones(objective.size))
        objective.value()
    assert all(torch.equal(a, b) for a, b in zip(before[3], snapshot(module)[3], strict=True))


def test_modes_are_what_they_say():
    torch.manual_seed(0)
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    x = torch.randn(16, 3) + 5
    module(x)  # running statistics that are neither those of the batch nor as they were made
    module[1].eval()

    def value(mode: str) -> float:
        return Objective(lambda b: module(b).square().mean(), module, [x], mode=mode).value()  # pyright: ignore

    def by_hand(norm: bool, drop: bool) -> float:
        module[0].train(norm), module[1].train(drop)
        kept = {k: v.clone() for k, v in module.state_dict().items()}
        torch.manual_seed(0)
        found = float(module(x).square().mean().detach())
        module.load_state_dict(kept)
        module.train(), module[1].eval()
        return found

    # the same operations in the same order: equal but for a sum in float64
    assert value("as-is") == pytest.approx(by_hand(True, False), rel=1e-6)
    assert value("no-dropout") == pytest.approx(by_hand(True, False), rel=1e-6)
    assert value("train") == pytest.approx(by_hand(True, True), rel=1e-6)
    assert value("eval") == pytest.approx(by_hand(False, False), rel=1e-6)
    assert len({value(mode) for mode in ("train", "eval", "no-dropout")}) == 3


def test_recurrent_layers_of_ours_drop_nothing_without_dropout():
    torch.manual_seed(0)
    module, x = LSTM(3, 4, 2, dropout=0.5, zoneout=0.3), torch.randn(6, 5, 3)

    def value(mode: str) -> float:
        return Objective(lambda b: module(b)[0].square().mean(), module, [x], mode=mode).value()  # pyright: ignore

    assert value("no-dropout") == value("eval") != value("train")
    assert module.training and module.dropout == 0.5


def test_dropout_draws_the_same_mask_at_every_call_and_another_for_each_batch():
    w = torch.ones(50, requires_grad=True)
    objective = Objective(lambda _: F.dropout(w, 0.5).sum(), [w], [0, 1])
    first, second = (list(objective.gradients()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)) and not torch.equal(*first)
    with torch.no_grad():
        assert objective.value() == pytest.approx(float(sum(f.sum() for f in first)) / 2)
    assert "same random numbers" in objective.stated
    other = Objective(lambda _: F.dropout(w, 0.5).sum(), [w], [0, 1], seed=7)
    assert not torch.equal(next(other.gradients()), first[0])


def test_modes_that_change_between_calls_are_followed():
    module = nn.Sequential(nn.Dropout(0.5), nn.Linear(30, 1)).eval()
    x, state = torch.ones(4, 30), torch.get_rng_state()
    objective = Objective(lambda b: module(b).square().mean(), module, [x])
    plain = objective.value()
    module.train()
    assert objective.value() == objective.value() != plain
    assert torch.equal(torch.get_rng_state(), state)


def test_a_module_stands_for_what_is_trained_of_it(mixed):
    module, x = mixed
    objective = Objective(lambda b: module(b).square().mean(), module, [x])
    assert objective.size == sum(p.numel() for p in module.parameters() if p.requires_grad)
    end = objective.gradient()[15:23]
    assert not objective.gradient()[:3].any()  # `unused` comes first, and the loss doesn't depend on it
    assert end.any()  # the weight of the head
    one = Objective(lambda b: module(b).square().mean(), [module.head.weight], [x], modules=[module])
    torch.testing.assert_close(one.gradient(), end, rtol=0, atol=0)


def test_frozen_tensors_can_be_asked_for_and_stay_frozen(mixed):
    module, x = mixed
    objective = Objective(lambda b: module(b).sum() / len(b), [module.head.bias], [x], modules=[module])
    torch.testing.assert_close(objective.gradient(), torch.ones(2))  # d(sum of outputs)/d(bias), per sample
    assert not module.head.bias.requires_grad


def test_tied_parameters_count_once():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    module, x = nn.Sequential(first, second), torch.randn(4, 3)
    objective = Objective(lambda b: module(b).sum(), [*module.parameters(), first.weight], [x])
    assert objective.size == 9
    module(x).sum().backward()
    torch.testing.assert_close(objective.gradient(), first.weight.grad.reshape(-1))  # pyright: ignore


def test_a_shared_buffer_stays_shared():
    first, second = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    second.running_mean = first.running_mean
    module = nn.Sequential(first, second)
    seen = []
    objective = Objective(
        lambda b: (module(b).sum(), seen.append(first.running_mean is second.running_mean))[0], module, [torch.randn(4, 2)]
    )  # fmt: skip
    objective.value()
    assert seen == [True] and first.running_mean is second.running_mean and not first.running_mean.any()


def test_precisions_may_be_mixed():
    a, b = torch.ones(2, dtype=torch.bfloat16), torch.ones(3, dtype=torch.float32)
    loss = lambda: a.float().square().sum() + b.square().sum()  # noqa: E731
    assert Objective(loss, [a]).dtype == torch.float32
    objective = Objective(loss, [a, b])
    assert objective.gradient().tolist() == [2.0] * 5 and objective.gradient().dtype == torch.float32
    c = torch.ones(1, dtype=torch.float64)
    objective = Objective(lambda: loss() + c.square().sum(), [a, b, c])
    assert objective.dtype == torch.float64
    parts = objective.split(torch.arange(6.0, dtype=torch.float64))
    assert [p.dtype for p in parts] == [torch.bfloat16, torch.float32, torch.float64]
    assert objective.flatten(parts).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_moving_and_coming_back():
    objective, w, _ = quadratic(3)
    value, here = objective.value(), w.detach().clone()
    with objective.moved() as move:
        move(torch.tensor([2.0], dtype=torch.float64))
        assert float(w.detach()) == float(here) + 2 and objective.value() != value
        move(torch.tensor([-1.0], dtype=torch.float64))
        assert float(w.detach()) == float(here) - 1
    assert torch.equal(w, here)
    objective.move(torch.tensor([0.5], dtype=torch.float64))
    assert float(w.detach()) == float(here) + 0.5 and torch.equal(objective.at(), w.detach())


@pytest.mark.parametrize(
    "arguments, options, words",
    [
        ([[]], {}, "nothing to differentiate"),
        ([nn.Linear(2, 2).requires_grad_(False)], {}, "nothing to differentiate"),
        ([[torch.zeros(0)]], {}, "nothing to differentiate"),
        ([[torch.ones(2, dtype=torch.long)]], {}, "one is int64"),
        ([[torch.ones(2, dtype=torch.complex64)]], {}, "one is complex64"),
        ([[torch.ones(2, requires_grad=True) * 2]], {}, "computed from others"),
        ([[torch.ones(2)], []], {}, "no batches"),
        ([[torch.ones(2)], [1, 2]], {"sizes": [1.0]}, "1 sizes were given for 2 batches"),
        ([[torch.ones(2)], [1]], {"sizes": [0.0]}, "above zero"),
        ([[torch.ones(2)], [1]], {"sizes": [float("nan")]}, "above zero"),
        ([[torch.ones(2)]], {"mode": "evaluate"}, "no mode 'evaluate'; there are as-is, train, eval, no-dropout"),
    ],
)
def test_what_makes_no_sense_is_said(arguments, options, words, unchecked):
    with pytest.raises(MisuseError, match=words):
        Objective(lambda *_: torch.zeros(()), *arguments, **options)


@pytest.mark.parametrize("loss, words", [(torch.zeros(3), r"shape \(3,\)"), (1.0, "float")])
def test_a_loss_is_one_number(loss, words):
    with pytest.raises(MisuseError, match=words):
        Objective(lambda: loss, [torch.ones(2)]).value()


def test_a_loss_that_depends_on_nothing_has_no_slope():
    assert Objective(lambda: torch.tensor(3.0), [torch.ones(2)]).gradient().tolist() == [0.0, 0.0]


def test_the_first_batch_alone():
    objective, w, batches = quadratic(3, 5)
    assert float(objective.first().gradient()) == pytest.approx(float(w.detach() - batches[0].mean()), rel=1e-12)
    lone = Objective(lambda: w.sum(), [w])
    assert lone.first().value() == lone.value()


class Averaging(nn.Module):
    """Reads a buffer, and writes it: in place, or by putting another in its place."""

    def __init__(self, *, replaced):
        super().__init__()
        self.weight, self.replaced = nn.Parameter(torch.ones(3)), replaced
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        mean = 0.5 * self.mean + 0.5 * x.mean(dim=0)
        self.mean = mean if self.replaced else self.mean.copy_(mean)
        return ((x - self.mean) * self.weight).square()


@pytest.mark.parametrize("replaced", [True, False])
def test_what_a_call_writes_into_a_buffer_is_gone_at_the_next(replaced):
    torch.manual_seed(0)
    module, x = Averaging(replaced=replaced), torch.randn(5, 3) + 1
    objective = Objective(lambda b: module(b).mean(), module, [x, x])
    with objective.fixed():
        first, second = objective.loss(0), objective.loss(1)
        assert torch.equal(first, second) and first.item() == pytest.approx(objective.value(), abs=0)
        first.backward()  # a graph lives on beside the new buffers
    assert not module.mean.any()


def test_spectral_normalisation_in_training_gives_the_same_loss_twice():
    torch.manual_seed(0)
    module = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, 1))
    x = torch.randn(5, 6)
    objective = Objective(lambda: module(x).square().mean(), module, mode="train")
    with objective.fixed():
        assert torch.equal(objective.loss(0), objective.loss(0))
