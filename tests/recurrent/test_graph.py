"""Derivatives of every operation beside autograd, and what makes two nodes one."""

import pytest
import torch

from unstuck.recurrent._graph import Graph, Op, gradient, lower
from unstuck.recurrent._torch import compute


def value(graph, place, loads):
    known = {}
    for p in graph.reachable([place]):
        node = graph.nodes[p]
        known[p] = loads[node.source] if node.op is Op.LOAD else compute(node, [known[a] for a in node.args])
    return known[place]


def expressions():
    def sums(g, a, b):
        return g.apply(Op.SUB, g.add(a, b), g.mul(a, g.const(3.0)))

    def products(g, a, b):
        return g.mul(g.mul(a, b), a)

    def gates(g, a, b):
        return g.mul(g.apply(Op.SIGMOID, a), g.apply(Op.TANH, b))

    def rectified(g, a, b):
        return g.mul(g.apply(Op.RELU, g.apply(Op.SUB, a, b)), b)

    def norm(g, a, b):
        centred = g.apply(Op.SUB, a, g.apply(Op.MEAN, a))
        variance = g.add(g.apply(Op.MEAN, g.mul(centred, centred)), g.const(1e-5))
        return g.mul(g.mul(centred, g.apply(Op.RSQRT, variance)), b)

    return [sums, products, gates, rectified, norm]


@pytest.mark.parametrize("expression", expressions(), ids=lambda e: e.__name__)
def test_derivatives_equal_those_of_autograd(expression):
    graph = Graph()
    a, b = graph.load("a"), graph.load("b")
    end = expression(graph, a, b)
    generator = torch.Generator().manual_seed(0)
    loads = {(n,): torch.randn(3, 5, dtype=torch.float64, generator=generator).requires_grad_() for n in "ab"}
    loads["seed",] = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    expected = torch.autograd.grad(value(graph, end, loads), [loads["a",], loads["b",]], loads["seed",])
    found = gradient(graph, {end: graph.load("seed")})
    for place, true in zip((a, b), expected, strict=True):
        torch.testing.assert_close(value(graph, found[place], loads), true, rtol=1e-12, atol=1e-14)


def test_a_gradient_through_relu_stops_where_it_is_zero_and_keeps_what_is_not_a_number():
    graph = Graph()
    end = graph.apply(Op.RELU, graph.load("a"))
    found = gradient(graph, {end: graph.load("seed")})[graph.load("a")]
    a = torch.tensor([-1.0, 0.0, 2.0, float("nan")])
    result = value(graph, found, {("a",): a, ("seed",): torch.full((4,), 7.0)})
    assert result.tolist() == [0.0, 0.0, 7.0, 7.0]  # as torch.nn.functional.relu


def test_equal_nodes_are_one_and_neutral_numbers_vanish():
    graph = Graph()
    a = graph.load("a")
    assert graph.apply(Op.TANH, a) == graph.apply(Op.TANH, graph.load("a"))
    assert (
        graph.mul(a, graph.const(1.0))
        == graph.add(graph.const(0.0), a)
        == graph.apply(Op.SUB, a, graph.const(0.0))
        == a
    )
    assert graph.nodes[graph.mul(graph.const(2.0), graph.const(3.0))].value == 6.0


def test_lowering_stops_at_what_is_known():
    graph, other = Graph(), Graph()
    end = graph.apply(Op.SIGMOID, graph.apply(Op.TANH, graph.load("a")))
    known = {graph.apply(Op.TANH, graph.load("a")): other.load("kept")}
    lower(graph, other, known, [end])
    assert [n.op for n in other.nodes] == [Op.LOAD, Op.SIGMOID]
    assert known[end] == 1
