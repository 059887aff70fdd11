"""Graphs that reach back past the step."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.watcher.carried import LOOKS, MOST_TOLD, CarriedGraphs


def steps(carried, count, *, detach=True, turns=False):
    """A state handed on for some steps, updated by hand so that torch lets the graph grow; what was told."""
    weight = torch.randn(4, 4, requires_grad=True)
    state, told = torch.zeros(2, 4), []
    for step in range(count):
        carried.begins(step)
        state = torch.tanh(state @ weight + 1)
        told.append(carried.look(state.sum(), {}))
        state.sum().backward(retain_graph=True)
        if detach or (turns and step % 2):
            state = state.detach()
    return told


def test_graphs_of_one_step_are_silent():
    assert steps(CarriedGraphs(), 8) == [None] * 8


def test_each_step_goes_further_back():
    told = steps(CarriedGraphs(), 6, detach=False)
    assert told[0] is None
    assert [data["steps"] for _, data in told[1:]] == [1, 2, 3, 4, 5]
    assert [data["nodes"] for _, data in told[1:]] == [3, 6, 9, 12, 15]  # matmul, add and tanh a step
    assert told[1][1]["made_by"] == "TanhBackward0"


def test_unseen_steps_count_from_the_next_that_was_seen():
    carried, weight, state, told = CarriedGraphs(), torch.randn(4, 4, requires_grad=True), torch.zeros(2, 4), []
    for step in range(9):
        if step in (0, 1, 4, 8):
            carried.begins(step)
        state = torch.tanh(state @ weight)
        if step in (0, 1, 4, 8):
            told.append(carried.look(state.sum(), {}))
    assert [data["steps"] for _, data in told[1:]] == [1, 4, 8]


def test_it_stops_looking_when_nothing_is_found():
    carried = CarriedGraphs()
    steps(carried, LOOKS)
    assert steps(carried, 5, detach=False) == [None] * 5


def test_it_stops_telling_in_time():
    told = steps(CarriedGraphs(), MOST_TOLD + 5, detach=False)
    assert sum(found is not None for found in told) == MOST_TOLD


def test_one_step_back_is_told_twice_at_most():
    told = steps(CarriedGraphs(), 12, detach=False, turns=True)
    assert [data["steps"] for _, data in filter(None, told)] == [1, 1]


def test_what_seems_older_than_the_first_step_is_of_another_thread():
    weight = torch.randn(4, 4, requires_grad=True)
    other = weight * 2
    carried = CarriedGraphs()
    carried.begins(0)
    assert carried.look((other @ weight).sum(), {}) is None
    assert steps(carried, 5, detach=False) == [None] * 5


def test_a_loss_without_a_graph_is_silent():
    carried = CarriedGraphs()
    carried.begins(0)
    assert carried.look(torch.zeros(()), {}) is None


def recurrent(detach, *, retain=False, by_hand=False, count=12):
    """Trains a recurrent network window by window, its state handed on."""

    def training():
        rnn, head = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 1)
        parameters = [*rnn.parameters(), *head.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.01)
        x, h = torch.randn(4, 5 * count, 3), None
        for window in x.split(5, 1):
            out, h = rnn(window, h)
            if detach:
                h = h.detach()
            loss = F.mse_loss(head(out), window.mean(2, keepdim=True))
            optimizer.zero_grad()
            loss.backward(retain_graph=retain)
            if by_hand:
                for parameter in parameters:
                    parameter.data -= 0.01 * parameter.grad
            else:
                optimizer.step()

    return training


def test_a_detached_state_is_no_event(watched):
    assert watched(recurrent(detach=True)).happened("carried-graph") == []


def test_a_state_that_is_handed_on_is_told_before_torch_refuses(watched):
    def training():
        with pytest.raises(RuntimeError, match="a second time"):
            recurrent(detach=False)()

    [event] = watched(training).happened("carried-graph")
    assert (event.step, event.data["steps"]) == (1, 1)


def test_a_graph_that_grows_is_told_with_the_layer_that_took_the_state(watched):
    events = watched(recurrent(detach=False, retain=True, by_hand=True)).happened("carried-graph")
    assert [e.data["steps"] for e in events[1:]] == sorted({e.data["steps"] for e in events[1:]})
    assert events[-1].data["steps"] > 3
    assert {e.layer.split(" ")[0] for e in events} == {"rnn"}
    nodes = [e.data["nodes"] for e in events]
    assert nodes == sorted(nodes)
    assert nodes[-1] > nodes[0]
