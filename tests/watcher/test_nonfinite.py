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
