"""The choice: by how many evaluations there are, with a reason; what it chose does the work."""

import pytest

from unstuck._discover import find, get
from unstuck.search.samplers.auto import auto
from unstuck.search.sampling import Setting
from unstuck.search.space import Draw, Space


def define(draw: Draw) -> list:
    return [draw.choice("part", [0, 1, 2], of=i) for i in range(5)]


SPACE = Space(define)


@pytest.mark.parametrize(
    ("evaluations", "workers", "chosen"),
    [
        (20, 1, "gaussian-process"),
        (300, 1, "gaussian-process"),
        (None, 1, "gaussian-process"),
        (301, 1, "evolution"),
        (301, 64, "evolution"),
    ],
)
def test_it_chooses_by_budget_and_says_why(evaluations, workers, chosen):
    sampler = auto(Setting(SPACE, evaluations=evaluations, workers=workers))
    assert sampler.chosen == chosen and sampler.chosen in find("search.samplers")
    assert f"proposed by {chosen}, since " in sampler.says
    assert evaluations is None or str(evaluations) in sampler.says


def test_it_proposes_what_the_chosen_one_proposes():
    setting = Setting(SPACE, seed=3, evaluations=50)
    sampler, chosen = auto(setting), get("search.samplers", "gaussian-process")(setting)
    for i in range(20):
        a, b = sampler.ask(), chosen.ask()
        assert (a.point.key, a.origin) == (b.point.key, b.origin)
        sampler.tell(a.point, float(i % 6))
        chosen.tell(b.point, float(i % 6))
    assert sampler.health() == chosen.health()
