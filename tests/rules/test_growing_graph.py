from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Event, Layer
from unstuck.rules.growing_graph import growing_graph

TWICE = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have been freed)"
)
CHANGED = "one of the variables needed for gradient computation has been modified by an inplace operation: [...]"


def carried(*seen, layer="rnn"):
    """Events of `(step, steps back, nodes)`."""
    return [Event(step, "carried-graph", layer, {"steps": back, "nodes": nodes}) for step, back, nodes in seen]


def crash(step, message):
    return Event(step, "exception", "", {"type": "RuntimeError", "message": message})


def failed(runs, steps, *events, **given):
    return runs.stuck(events=events, meta={"steps": steps, "status": "failed"}, **given)


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_graphs_of_one_step_are_silent(runs, state):
    assert growing_graph(getattr(runs, state)()) == []


def test_optimizers_that_take_turns_reach_one_step_back(runs):
    assert growing_graph(runs.learns(events=carried((1, 1, 5), (2, 1, 5)))) == []


@pytest.mark.parametrize(("back", "found"), [(1, 0), (2, 1)])
def test_two_steps_back(runs, back, found):
    assert len(growing_graph(runs.learns(events=carried((4, back, 20), (8, back, 40))))) == found


def test_one_such_step_is_silent(runs):
    assert growing_graph(runs.learns(events=carried((4, 3, 20)))) == []


@pytest.mark.parametrize(("nodes", "found"), [(25, 0), (27, 1)])
def test_it_must_grow(runs, nodes, found):
    assert len(growing_graph(runs.learns(events=carried((4, 3, 20), (8, 7, nodes))))) == found


def test_layers_and_times_are_told(runs):
    series = {("step_seconds", ""): np.linspace(0.01, 0.1, 100)}
    events = [*carried((2, 1, 10)), *carried((4, 3, 20), (8, 7, 40), (16, 15, 80), layer="rnn #2")]
    [finding] = growing_graph(runs.learns(series, events=events))
    assert (finding.severity, finding.layers) == ("warning", ("rnn #2",))
    assert "goes back 15 steps, through 80 nodes" in finding.says
    assert "times as long as at the start" in finding.says


@pytest.mark.parametrize("message", [TWICE, CHANGED])
def test_an_error_of_torch_proves_it(runs, message):
    [finding] = growing_graph(failed(runs, 1, *carried((1, 1, 3)), crash(1, message)))
    assert (finding.severity, finding.layers, finding.confidence) == ("error", ("rnn",), 0.95)


def test_an_error_later_has_another_reason(runs):
    assert growing_graph(failed(runs, 50, *carried((1, 1, 3)), crash(50, TWICE))) == []


def test_another_error_proves_nothing(runs):
    assert growing_graph(failed(runs, 1, *carried((1, 1, 3)), crash(1, "CUDA out of memory"))) == []


@pytest.mark.parametrize(("op", "steps", "found"), [("lstm", 1, 1), ("lstm", 0, 0), ("linear", 1, 0)])
def test_the_error_alone_counts_in_a_recurrent_network_after_its_first_step(runs, op, steps, found):
    findings = growing_graph(failed(runs, steps, crash(steps, TWICE), layers=[Layer("cell", op)]))
    assert len(findings) == found
    assert all(f.confidence < 0.7 for f in findings)
