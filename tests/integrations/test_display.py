"""The lines below a notebook's cell: there only in a notebook, and gone from the training's way."""

import logging
import re
import sys
import time
import types

import numpy as np
import pytest
import torch
from torch import nn

import unstuck
from unstuck.evidence import Record, Series
from unstuck.integrations import _display


class ZMQInteractiveShell:
    """What a notebook's kernel has for a shell."""


@pytest.fixture
def notebook(monkeypatch):
    """A stand-in for IPython in a notebook, which keeps what is displayed: `(html, id, is_update)`."""
    shown = []
    package, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    package.get_ipython = ZMQInteractiveShell
    display.HTML = str
    display.display = lambda html, display_id: shown.append((html, display_id, False))
    display.update_display = lambda html, display_id: shown.append((html, display_id, True))
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(_display, "_EVERY", 0.05)
    return shown


def train(until=lambda: False):
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    y = (x[:, 0] > 0).long()
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    end = time.monotonic() + 60
    for step in range(100_000):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        if step > 20 and (until() or time.monotonic() > end):
            return


@pytest.mark.slow
def test_it_follows_the_training_in_one_place_and_ends_with_the_verdict(notebook):
    with unstuck.watch(probe_budget=0.0) as run:
        train(until=lambda: len(notebook) > 3 and "<polyline" in notebook[-1][0])
    first, *updates = notebook
    assert not first[2]
    assert len(updates) > 2
    assert all(is_update for *_, is_update in updates)
    assert len({display_id for _, display_id, _ in notebook}) == 1
    live, last = updates[-2][0], updates[-1][0]
    assert "<th" in live
    assert "loss" in live
    assert "<polyline" in live
    assert int(re.search(r"step (\d+)", live)[1]) > 0
    assert "<polyline" not in last
    assert run.verdict.verdict.upper() in last


@pytest.mark.slow
def test_it_can_be_switched_off_and_is_nothing_elsewhere(notebook, monkeypatch):
    with unstuck.watch(probe_budget=0.0, display=False):
        train(until=lambda: True)
    monkeypatch.delitem(sys.modules, "IPython")
    assert not _display.in_notebook()
    with unstuck.watch(probe_budget=0.0):
        train(until=lambda: True)
    assert notebook == []


def test_a_terminal_of_ipython_is_no_notebook(notebook, monkeypatch):
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", type("TerminalInteractiveShell", (), {}))
    assert not _display.in_notebook()


def test_a_display_that_fails_ends_nothing(notebook, monkeypatch, caplog):
    def refuse(html, display_id):
        raise OSError("the front end is gone")

    monkeypatch.setattr(sys.modules["IPython.display"], "update_display", refuse)
    with caplog.at_level(logging.WARNING, "unstuck"), unstuck.watch(probe_budget=0.0) as run:
        train(until=lambda: bool(caplog.records))
    assert [r.getMessage() for r in caplog.records] == [
        "unstuck can't show how the training goes: OSError: the front end is gone"
    ]
    assert run.verdict is not None


def test_names_from_the_program_are_escaped():
    assert "<script>" not in _display._block("<script>alert(1)</script>", [])


def test_a_curve_fills_its_box():
    drawn = _display._line(Series.of(np.linspace(3.0, 1.0, 5)))
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]*)"', drawn)[1].split()]
    assert points[0] == (0.0, 1.0)
    assert points[-1] == (_display._WIDTH, _display._HEIGHT - 1)
    assert all(0 <= x <= _display._WIDTH and 0 <= y <= _display._HEIGHT for x, y in points)
    flat = _display._line(Series.of([2.0, 2.0]))
    assert "nan" not in flat


def test_a_record_at_the_end_of_a_cell_is_one_line():
    record = Record.of({("loss", ""): [2.0, 1.0]}, meta={"script": "train.py"})
    assert repr(record) == "<Record made by hand: train.py, finished, 2 steps, 1 series>"
