"""When a function becomes a graph, and when it doesn't; on CUDA, that a graph gives the same."""

import contextlib
from unittest.mock import MagicMock

import pytest
import torch

from unstuck.recurrent._cuda_graphs import Captured, Graphs
from unstuck.recurrent._layout import Layout
from unstuck.recurrent._recurrence import Recurrence, _can_be_captured
from unstuck.recurrent.layers import GRU, LSTM

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


ONE, TWO = torch.tensor(1.0), torch.tensor(2.0)


class Capture:
    """Notes what is captured; its graphs give the negative of what they are given."""

    def __init__(self):
        self.captured = []

    def __call__(self, function, given):
        self.captured.append(given)
        return lambda given: [-t for t in function(given)]


def same(given):
    return list(given)


def test_a_function_is_captured_when_it_comes_for_the_second_time():
    capture = Capture()
    graphs = Graphs(capture)
    assert graphs.run("a", same, [ONE]) == [1]
    assert graphs.run("b", same, [TWO]) == [2] and capture.captured == []
    assert graphs.run("a", same, [TWO]) == [-2] and capture.captured == [[2]]
    assert graphs.run("a", same, [ONE]) == [-1] and capture.captured == [[2]]


def test_a_graph_in_use_stays_and_one_out_of_use_makes_room():
    capture = Capture()
    graphs = Graphs(capture, most=1)
    for _ in range(2):
        graphs.run("a", same, [ONE])
    for _ in range(5):
        assert graphs.run("b", same, [ONE]) == [1]
    assert graphs.run("a", same, [ONE]) == [-1]
    found = [graphs.run("b", same, [TWO]) for _ in range(30)]
    assert found[0] == [2] and found[-1] == [-2] and len(capture.captured) == 2
    assert graphs.run("a", same, [ONE]) == [1]


def test_where_capturing_fails_functions_run_as_they_are_and_one_warning_says_so():
    def capture(function, given):
        raise RuntimeError("out of memory")

    graphs = Graphs(capture)
    graphs.run("a", same, [ONE])
    with pytest.warns(UserWarning, match="run without CUDA graphs: out of memory"):
        assert graphs.run("a", same, [TWO]) == [2]
    assert graphs.run("a", same, [TWO]) == [2]
    assert graphs.run("b", same, [ONE]) == graphs.run("b", same, [ONE]) == [1]


def test_few_steps_and_other_kinds_of_tensors_are_not_captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    x, cell = torch.zeros(1), GRU(2, 2).cell
    long = Recurrence(cell, Layout((1,) * 20, 1), "auto", ())
    assert _can_be_captured(long, [x, None, torch.nn.Parameter(x)])
    for layout, backend in ((Layout((1,), 1), "auto"), (Layout((0,) * 20, 0), "auto"), (long.layout, "torch")):
        assert not _can_be_captured(Recurrence(cell, layout, backend, ()), [x])
    assert not _can_be_captured(long, [x, x.as_subclass(Named)])
    with torch.utils._python_dispatch.TorchDispatchMode():
        assert not _can_be_captured(long, [x])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not _can_be_captured(long, [x])


class Named(torch.Tensor):
    """A subclass, of which nobody knows what it does."""


class Pretended:
    """A CUDA graph that a processor runs: what was computed between its beginning and its end is computed again, at the same places."""

    def __init__(self):
        self.again = lambda: None

    def replay(self):
        self.again()


@pytest.fixture
def pretended(monkeypatch):
    """Makes a captured function, whose graph may be off by something."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: MagicMock())
    for name in ("Stream", "stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Pretended)

    def make(function, given, off=0.0):
        def once(tensors):
            found = function(tensors)
            if graphs:  # within the graph

                def again():
                    for into, new in zip(found, function(tensors), strict=True):
                        if into is not None:
                            into.copy_(new + off)

                graphs.pop().again = again
            return found

        graphs = []
        begun = contextlib.contextmanager(lambda graph, **_: (yield graphs.append(graph)))
        monkeypatch.setattr(torch.cuda, "graph", begun)
        return Captured(once, given)

    return make


def test_what_is_given_is_copied_there_and_what_is_found_is_copied_from_there(pretended):
    a, b = torch.randn(2, 3), torch.randn(3, 2).t()
    graph = pretended(lambda given: [given[0].exp(), None, given[2] + 1], [a, None, b])
    first = graph([a, None, b])
    second = graph([b, None, a])
    assert torch.equal(first[0], a.exp()) and torch.equal(first[2], b + 1) and first[1] is None
    assert torch.equal(second[0], b.exp()) and torch.equal(second[2], a + 1)


def test_what_is_not_a_number_is_no_difference(pretended):
    given = torch.tensor([1.0, float("nan")])
    assert pretended(lambda given: [given[0] * 2], [given])([given])[0][0] == 2


def test_a_graph_that_gives_something_else_is_refused(pretended):
    with pytest.raises(RuntimeError, match="gives something else"):
        pretended(lambda given: [given[0] * 2], [torch.ones(3)], off=0.1)


@on_cuda
def test_results_of_a_graph_stay_as_they_are_when_it_runs_again():
    a, b = (torch.randn(3, device="cuda") for _ in range(2))
    graph = Captured(lambda given: [given[0].exp(), None], [a])
    first = graph([a])
    second = graph([b])
    assert torch.equal(first[0], a.exp()) and torch.equal(second[0], b.exp()) and second[1] is None


@on_cuda
@pytest.mark.slow
@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_training_on_cuda_is_that_on_a_processor(kind):
    torch.manual_seed(0)
    here = kind(5, 7, 2, bidirectional=True)
    there = kind(5, 7, 2, bidirectional=True).cuda()
    there.load_state_dict(here.state_dict())
    torch.backends.cuda.matmul.allow_tf32 = False
    for _ in range(4):  # by tensor operations, captured, by the graph
        x = torch.randn(20, 3, 5)
        losses = [layer(x.to(p.device))[0].square().mean() for layer in (here, there) for p in [layer.weight_ih_l0]]
        assert abs(float(losses[0]) - float(losses[1])) < 1e-6
        for layer, loss in zip((here, there), losses, strict=True):
            layer.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in layer.parameters():
                    p -= 0.1 * p.grad
    for a, b in zip(here.parameters(), there.parameters(), strict=True):
        assert (a - b.cpu()).abs().max() < 1e-5
