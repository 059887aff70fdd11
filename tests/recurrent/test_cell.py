"""What can be written as a cell, and what is refused with a reason."""

import pytest

from unstuck.errors import MisuseError
from unstuck.recurrent.cell import Step, sigmoid, tanh, trace
from unstuck.recurrent.cells.lstm import lstm


def simple(step):
    return {"h": tanh(step.gate("h"))}


def test_a_trace_keeps_maps_states_and_parameters_in_order():
    cell = trace(lstm, peephole=True)
    assert list(cell.states) == ["h", "c"] and cell.output == "h"
    assert [g.name for g in cell.inputs] == ["i", "f", "g", "o"]
    assert [(g.name, g.state, [m.name for m in g.gates]) for g in cell.groups] == [("hh", "h", ["i", "f", "g", "o"])]
    assert [v.name for v in cell.vectors] == ["peephole_i", "peephole_f", "peephole_o"]
    assert trace(lstm, peephole=True).key == cell.key != trace(lstm).key


def test_masks_are_there_in_training_only():
    assert [m.name for m in trace(simple, zoneout=0.1, drop_state=0.2).masks] == ["dropout_h", "zoneout_h"]
    assert trace(simple, zoneout=0.1, drop_state=0.2, training=False).masks == ()


@pytest.mark.parametrize(
    ("definition", "settings", "says"),
    [
        (lambda step: {"c": tanh(step.gate("c"))}, {}, "the output 'h' first"),
        (lambda step: {"h": 1.0}, {}, "the output 'h' first"),
        (lambda step: {"h": step.input("a") + step.input("a")}, {}, "mapped to 'a' twice"),
        (lambda step: {"h": step.hidden("a") + step.hidden("a")}, {}, "mapped to 'a' twice"),
        (lambda step: {"h": tanh(step.gate("h")) + step.state("c")}, {}, r"uses the states \['c'\]"),
        (lambda step: {"h": tanh(step.gate("h")) if step.h else step.h}, {}, "without branches"),
        (lambda step: {"h": Step().gate("h")}, {}, "of another cell"),
        (simple, {"project": True}, "has no projection"),
        (lambda step: {"h": step.projected(step.gate("h")) * 2}, {"project": True}, "another width"),
        (lambda step: {"h": tanh(step.projected(step.gate("h")))}, {"project": True}, "another width"),
        (lambda step: {"h": step.projected(step.gate("h") * step.h)}, {"project": True}, "unit by unit"),
        (lstm, {"project": True, "zoneout": 0.1}, "not there for a projected state"),
        (simple, {"zoneout": 1.5}, "not one from 0 to 1"),
    ],
)
def test_what_is_no_cell_is_refused_with_the_reason(definition, settings, says):
    with pytest.raises(MisuseError, match=says):
        trace(definition, **settings)


def test_values_are_added_and_multiplied_with_each_other_and_with_numbers():
    step = Step()
    a = step.input("a")
    b = 1.0 - a * 2.0 + sigmoid(-a) - 1.0
    assert step.graph.nodes[b.node].args and not b.projected
    with pytest.raises(TypeError):
        a + "b"  # pyright: ignore
