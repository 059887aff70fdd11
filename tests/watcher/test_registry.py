"""Names are found in the callers' variables, and nothing of those stays alive for it."""

from __future__ import annotations

import sys
import weakref

import torch
from torch import nn
from torch.nn import functional as F

from unstuck.watcher.registry import local_variables, variable_name


class Thing:
    """Something that may be referred to weakly."""


def here():
    return sys._getframe(1)


def test_variables_are_found_as_they_are_now():
    a = 1
    assert local_variables(here())["a"] == 1
    a = 2
    b = [a]
    assert local_variables(here())["a"] == 2 and local_variables(here())["b"] is b


def test_names_are_those_of_the_caller():
    def inner(value):
        return variable_name(value, [here(), sys._getframe(1), sys._getframe(2)])

    one, many, by_name = Thing(), [Thing(), Thing()], {"w": Thing()}
    assert [inner(v) for v in (one, many[1], by_name["w"])] == ["value", "value", "value"]
    frame = sys._getframe()
    assert [variable_name(v, [frame]) for v in (one, many[1], by_name["w"], Thing())] == [
        "one", "many[1]", "by_name['w']", "",
    ]  # fmt: skip


def test_a_variable_that_is_deleted_is_freed():
    kept, gone = Thing(), Thing()
    ref = weakref.ref(gone)
    assert variable_name(kept, [sys._getframe()]) == "kept"
    del gone
    assert ref() is None


def test_what_the_script_took_by_locals_stays():
    kept = Thing()
    mine = locals()
    assert variable_name(kept, [sys._getframe()]) == "kept"
    assert mine["kept"] is kept


def test_the_variables_of_a_module_and_a_class_stay():
    module = {"look": lambda: list(local_variables(sys._getframe(1))), "x": 1}
    exec("found = look()\nclass A:\n    y = 2\n    found = look()", module)
    assert module["x"] == 1 and {"x", "look"} <= set(module["found"])
    assert module["A"].y == 2 and "y" in module["A"].found


def test_what_a_watched_training_deletes_is_freed(watched):
    freed = []

    def training():
        data = torch.randn(8, 4)
        model = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.mse_loss(model(data), torch.zeros(8, 2)).backward()
            optimizer.step()
        unused = torch.zeros(9)
        freed.append(weakref.ref(unused))
        model = nn.Sequential(nn.Linear(4, 2))  # another, that is to be named
        model(data).sum().backward()
        del unused
        freed[0] = freed[0]()

    watched(training)
    assert freed == [None]
