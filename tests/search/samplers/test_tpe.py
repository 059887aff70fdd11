"""TPE: what Optuna proposes, but nothing twice; quiet; also where one name stands for several decisions."""

import math
import sys
from random import Random

import pytest

from unstuck.errors import MissingError
from unstuck.search.samplers.tpe import tpe
from unstuck.search.sampling import Setting
from unstuck.search.space import Draw, Space

optuna = pytest.importorskip("optuna")


def mixed(draw: Draw) -> dict:
    kind = draw.choice("kind", ["a", "b"])
    size = draw.choice("size", [1, 2, 4]) if kind == "a" else draw.choice("size", ["small", "large"])
    return {
        "kind": kind,
        "size": size,
        "flag": draw.choice("flag", [True, 1, None, 0.5]),
        "rate": draw.number("rate", 1e-5, 1.0, log=True),
        "width": draw.integer("width", 1, 64, log=True),
        "level": draw.choice("level", [0.1, 0.2, 0.4], ordered=True),
        "from": draw.links("from", 3),
    }


def test_where_optuna_is_missing_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingError, match="pip install optuna"):
        tpe(Setting(Space(mixed)))


def test_it_is_quiet_and_leaves_the_log_as_it_was(capfd):
    before = optuna.logging.get_verbosity()
    sampler = tpe(Setting(Space(mixed)))
    for i in range(20):
        sampler.tell(sampler.ask().point, float(i))
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_all_kinds_of_decisions_also_under_one_name():
    sampler, chance = tpe(Setting(Space(mixed), 1), startup=5), Random(0)
    seen = set()
    for _ in range(60):
        proposal = sampler.ask()
        chosen = proposal.point.chosen
        seen |= {("kind", chosen["kind"]), ("flag", repr(chosen["flag"])), ("origin", proposal.origin)}
        assert (chosen["size"] in (1, 2, 4)) == (chosen["kind"] == "a")
        sampler.tell(proposal.point, chance.random())
    assert {("flag", "True"), ("flag", "1"), ("flag", "None"), ("flag", "0.5"), ("origin", "model")} <= seen


def test_it_learns_from_points_that_others_proposed():
    space = Space(lambda draw: draw.number("rate", 1e-6, 1.0, log=True))
    sampler, rng = tpe(Setting(space)), Random(0)
    for _ in range(40):
        point = space.random(rng)
        sampler.tell(point, -abs(math.log10(point.chosen / 1e-2)))
    off = [abs(math.log10(sampler.ask().point.chosen / 1e-2)) for _ in range(20)]
    assert sorted(off)[10] < 0.75  # half of what is drawn at random is off by more than 2


@pytest.mark.slow
def test_what_it_proposes_again_is_dropped_and_counted():
    space = Space(lambda draw: [draw.choice("part", [0, 1, 2], of=i) for i in range(4)])
    sampler = tpe(Setting(space))
    keys = []
    for _ in range(60):
        point = sampler.ask().point
        keys.append(point.key)
        sampler.tell(point, float(sum(point.chosen)))
    assert len(set(keys)) == 60
    assert sampler.health()["repeats"] > 0.1
