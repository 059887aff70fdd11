import pytest
import torch

from unstuck.watcher.nonfinite import find_origin, nodes_of


def origin(loss):
    return find_origin(loss.grad_fn)


def test_finite_graphs_have_an_origin_only_at_their_end():
    w = torch.ones(3, requires_grad=True)
    nodes = nodes_of((w * 2).sum().grad_fn)
    assert [n.name() for n in nodes] == ["MulBackward0", "SumBackward0"]


@pytest.mark.parametrize(
    ("make", "what", "node", "before"),
    [
        (lambda w: ((w - w).log() * w).sum(), "activation", "LogBackward0", 0.0),
        (lambda w: (w * 100).exp().mean(), "activation", "ExpBackward0", None),
        (lambda w: (w * torch.tensor([1.0, float("nan"), 1.0])).sum(), "input", "MulBackward0", None),
        (lambda w: ((w * 1e20) ** 2).mean(), "activation", "PowBackward0", pytest.approx(1e20)),
    ],
)
def test_the_first_bad_op_is_found(make, what, node, before):
    found = origin(make(torch.ones(3, requires_grad=True)))
    assert (found.what, found.node, found.before) == (what, node, before)


def test_a_bad_weight_is_named():
    good, bad = torch.ones(3, requires_grad=True), torch.tensor([1.0, float("inf"), 1.0], requires_grad=True)
    found = origin(((good * 2) * bad).sum())
    assert found.what == "weight"
    assert found.parameter is bad


def test_masks_of_minus_infinity_are_no_fault():
    w = torch.ones(2, 2, requires_grad=True)
    masked = (w * 2).masked_fill(torch.tensor([[False, True], [False, False]]), float("-inf"))
    scores = masked.softmax(-1)
    found = origin((scores.log() * scores).sum())
    assert found.node == "LogBackward0"


@pytest.mark.parametrize(
    ("make", "node"),
    [
        (lambda x: x.log_softmax(1)[:0].mean(), "MeanBackward0"),
        (
            lambda x: torch.nn.functional.nll_loss(x.log_softmax(1)[:0], torch.zeros(0, dtype=torch.long)),
            "NllLossBackward0",
        ),
        (lambda x: torch.nn.functional.cross_entropy(x, torch.full((4,), -100)), "NllLossBackward0"),
        (lambda x: torch.nn.functional.mse_loss((x * 2)[:0], torch.zeros(0, 3)), "MseLossBackward0"),
    ],
)
def test_a_mean_over_nothing(make, node):
    loss = make(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_())
    assert not torch.isfinite(loss)
    found = origin(loss)
    assert (found.what, found.node, found.empty) == ("loss", node, True)


def test_a_sum_over_nothing_is_none():
    w = torch.ones(3, requires_grad=True)
    found = origin(w[:0].sum() + (w * 1e30).exp().mean())
    assert (found.node, found.empty) == ("ExpBackward0", False)


def test_ops_that_only_move_numbers_are_not_blamed():
    w, x, h = torch.full((2, 2), 1e20, requires_grad=True), torch.ones(1, 1), torch.ones(1, 1)
    for _ in range(3):
        h = (torch.cat([x, h], 1) @ w)[:, :1]  # 2e20, 2e40: from the second on it is more than float32 holds
    found = origin(h.sum())
    assert (found.what, found.node, found.before) == ("activation", "MmBackward0", pytest.approx(2e20))


def test_an_activation_that_passes_on_what_it_was_given_is_not_blamed():
    w = torch.full((2, 2), 1e20, requires_grad=True)
    found = origin(((torch.full((1, 2), 1e20) @ w).relu() * 2).sum())
    assert (found.what, found.node, found.before) == ("activation", "MmBackward0", pytest.approx(1e20))
