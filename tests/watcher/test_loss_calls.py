"""What the calls of a step tell of a loss."""

import pytest
import torch

from unstuck.watcher.loss_calls import ancestors, chain, joined, kind_of, mean_value, meeting, num_terms, tail, turns_of
from unstuck.watcher.trace import Call, LayerState, LossSeen


def call(op, *inputs, order=0, parameters=()):
    layer = LayerState(order, (op, order), op)
    layer.parameters = list(parameters)
    return Call(layer, list(inputs), order)


def seen(name, output, target=None, *, by=None, site="train.py:1", **settings):
    return LossSeen(name, by, None, output, target, settings, site, torch.tensor(6.0))


@pytest.fixture
def made():
    """Calls of `loss(softmax(linear(relu(linear))))`, in order."""
    first = call("linear", order=0, parameters=[0])
    second = call("relu", first, order=1)
    third = call("linear", second, order=2, parameters=[1])
    fourth = call("softmax", third, order=3)
    return [first, second, third, fourth, call("mean", fourth, order=4)]


def test_the_graph_of_calls(made):
    assert sorted(c.order for c in ancestors(made[3])) == [0, 1, 2, 3]
    assert ancestors(None) == {}
    assert tail(made[4]) == made[3:], "the last layer with parameters is left out"
    assert chain(made[3]) == ("linear", "softmax")
    assert chain(Call(None, [], 0)) == ()


@pytest.mark.parametrize(
    ("name", "output", "target", "kind"),
    [
        ("cross_entropy", (4, 3), torch.tensor([0, 1, 2, 0]), ("class index", 3)),
        ("cross_entropy", (3,), torch.tensor(1), ("class index", 3)),
        ("cross_entropy", (2, 3), torch.tensor([[0.0, 1, 0], [1, 0, 0]]), ("one-hot", 3)),
        ("cross_entropy", (2, 3), torch.tensor([[0.2, 0.8, 0], [0.5, 0.5, 0]]), ("probability", 3)),
        ("binary_cross_entropy", (4, 1), torch.tensor([[0.0], [1], [1], [0]]), ("binary", 2)),
        ("binary_cross_entropy", (4, 1), torch.tensor([[0.3], [0.6], [1], [0]]), ("binary", 2)),
        ("multilabel_margin_loss", (2, 5), torch.zeros(2, 5, dtype=torch.long), ("multi-label", 5)),
        ("mse_loss", (4, 1), torch.tensor([0.3, 0.6, 1, 0]), ("real", 0)),
        ("mse_loss", (4, 3), torch.tensor([[0.0], [1], [1], [0]]), ("real", 0)),
        ("kl_div", (4, 3), torch.rand(4, 3), ("probability", 3)),
        ("triplet_margin_loss", (4, 3), torch.rand(4, 3), ("none", 0)),
    ],
)
def test_kinds_of_targets(name, output, target, kind):
    assert kind_of(name, torch.zeros(output), target) == kind


def test_what_is_added_up():
    target = torch.tensor([0, -100, 2, 1])
    assert num_terms(seen("cross_entropy", torch.zeros(4, 3), target)) == 3
    assert num_terms(seen("cross_entropy", torch.zeros(4, 3, 5), torch.rand(4, 3, 5))) == 20
    assert num_terms(seen("mse_loss", torch.zeros(4, 3), torch.zeros(4, 3))) == 12


@pytest.mark.parametrize(
    ("target", "settings", "mean"),
    [
        (torch.tensor([0, -100, 2, 1]), {"reduction": "sum"}, 2.0),
        (torch.tensor([0, 0, 2, 1]), {"reduction": "sum", "ignore_index": 0}, 3.0),
        (torch.full((4, 2), -100), {"reduction": "sum"}, 6.0),
        (torch.zeros(4, 2), {"reduction": "sum"}, 1.5),
        (torch.zeros(4, 2), {"reduction": "mean"}, 6.0),
        (None, {"reduction": "sum"}, 6.0),
    ],
)
def test_the_mean_of_a_sum_of_six(target, settings, mean):
    assert mean_value(seen("cross_entropy", torch.zeros(4, 2), target, **settings)) == mean


def test_calls_of_a_loop_go_together():
    output, target = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
    one, other, head = call("linear", order=0), call("linear", order=1), call("linear", order=2)
    other.layer = one.layer
    first, second = (seen("cross_entropy", output + i, target + i, by=by) for i, by in enumerate((one, other)))
    found = [
        first,
        second,
        seen("cross_entropy", output, target, by=head),
        seen("cross_entropy", output, target, by=other, site="train.py:2"),
        seen("cross_entropy", torch.zeros(2, 4), target, by=other),
        seen("cross_entropy", output, None, by=other),
        seen("cross_entropy", output, target),
    ]
    assert turns_of(found, first) == [first, second]
    outputs, targets = joined([first, second])
    assert outputs.tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
    assert targets is not None and targets.tolist() == [0, 0, 1, 1]


def test_losses_of_one_output_are_no_loop():
    by, output, target = call("linear"), torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
    first, second = seen("cross_entropy", output, target, by=by), seen("cross_entropy", output, target, by=by)
    assert turns_of([first, second], second) == [second]


def meets(op, output, data, *, source=None, subtracts=False):
    source = source or call("linear", order=0)
    made = call(op, source, order=1)
    made.output, made.data, made.subtracts = output, data, subtracts
    return meeting([source, made])


def test_an_index_tells_classes():
    rows, classes = torch.arange(4), torch.tensor([2, 0, 1, 1])
    found = meets("gather", torch.zeros(4, 3), [rows, classes])
    assert found is not None and found.kind == "class index" and torch.equal(found.target, classes)
    assert meets("gather", torch.zeros(4, 3), [torch.tensor([True, False, True, True])]) is None, "a mask"


def test_a_difference_tells_a_target():
    found = meets("add", torch.zeros(4, 3), [torch.tensor(2.0), torch.rand(4, 3)], subtracts=True)
    assert found is not None and (found.kind, found.target.shape) == ("real", (4, 3))
    assert meets("add", torch.zeros(4, 3), [torch.rand(4, 3)]) is None, "a sum"
    assert meets("add", torch.zeros(4, 3), [torch.rand(5, 3)], subtracts=True) is None


def test_a_product_with_the_logarithm_tells_what_it_is_taken_of():
    p, target = torch.full((2, 2), 0.5), torch.eye(2)
    softmax = call("softmax", order=0)
    log = call("log", softmax, order=1)
    found = meets("mul", p.log(), [target], source=log)
    assert found is not None and (found.kind, found.source, found.takes_log) == ("one-hot", softmax, True)
    assert torch.equal(found.output, p.log().exp())
    plain = meets("mul", p, [target])
    assert plain is not None and not plain.takes_log
    assert meets("mul", p, [torch.tensor([[0.3, 2.0], [4.0, -1.0]])]) is None, "weights"
