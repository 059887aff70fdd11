"""A search goes by its journal alone: what had ended is neither lost nor made again."""

import json
import math
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from unstuck.errors import MisuseError, NotFoundError
from unstuck.search.problems import FunctionProblem
from unstuck.search.searching import Plan, Search, search
from unstuck.trials.executor import Log
from unstuck.trials.inline import Inline


def space(draw):
    return [draw.choice("op", ["a", "b", "c", "d"], of=i) for i in range(5)]


def score(chosen, seed=0):
    return chosen.count("b") + 0.1 * random.Random(f"{chosen}{seed}").random()


def lines(folder):
    return [json.loads(line) for line in (Path(folder) / "trials.jsonl").read_text().splitlines()]


def test_search_and_control_take_turns_and_have_as_many(tmp_path):
    answer = search(space, score, evaluations=20, sampler="evolution", folder=tmp_path)
    assert [len(answer.arms[arm]) for arm in ("search", "control")] == [20, 20]
    assert [line["arm"] for line in lines(tmp_path) if line.get("event") == "asked"] == ["search", "control"] * 20


def test_a_random_search_needs_no_control():
    assert list(search(space, score, evaluations=5, sampler="random").arms) == ["search"]


def test_the_best_is_judged_by_fresh_seeds():
    answer = search(space, score, seeded=True, evaluations=15, sampler="local", top=2, seeds=3)
    assert {len(f.values) for f in answer.finalists} == {3}
    assert len(answer.finalists) == 4
    assert answer.best.quality == max(f.quality for f in answer.finalists if f.child.arm == "search")
    chosen = answer.best.child.point.chosen
    assert list(answer.best.values.values()) == [score(chosen, seed) for seed in (1001, 1002, 1003)]


def test_what_fails_is_a_result():
    def odd(chosen):
        if chosen[0] == "a":
            raise MemoryError("out of memory")
        return math.nan if chosen[0] == "b" else 1.0

    children = search(space, odd, evaluations=60, sampler="random").arms["search"]
    by_first = {first: {(c.status, c.cause) for c in children if c.point.chosen[0] == first} for first in "abc"}
    assert by_first == {
        "a": {("failed", "MemoryError: out of memory")},
        "b": {("diverged", "")},
        "c": {("finished", "")},
    }
    assert {c.quality for c in children if c.point.chosen[0] in "ab"} == {-math.inf}


def test_a_search_ends_when_there_is_nothing_left():
    answer = search(lambda draw: draw.choice("n", [1, 2, 3]), float, evaluations=50)
    assert sorted(c.point.chosen for c in answer.arms["search"]) == [1, 2, 3]
    assert answer.best.child.point.chosen == 3


def test_time_ends_a_search():
    answer = search(space, lambda chosen: time.sleep(0.02) or 1.0, evaluations=None, seconds=0.3, sampler="random")
    assert 3 <= len(answer.arms["search"]) <= 16


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "local", "evolution"])
def test_one_that_was_broken_off_proposes_what_it_would_have(tmp_path, sampler):
    whole = search(space, score, evaluations=25, sampler=sampler, folder=tmp_path / "whole")
    calls = []

    def breaks(chosen):
        calls.append(1)
        if len(calls) in (7, 15, 23):
            raise KeyboardInterrupt
        return score(chosen)

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            search(space, breaks, evaluations=25, sampler=sampler, folder=tmp_path / "broken", name="score")
    again = search(space, breaks, evaluations=25, sampler=sampler, folder=tmp_path / "broken")
    for arm in whole.arms:
        assert [c.point.values for c in again.arms[arm]] == [c.point.values for c in whole.arms[arm]]
        assert [c.quality for c in again.arms[arm]] == [c.quality for c in whole.arms[arm]]


def test_a_search_that_has_ended_is_read_not_made_again(tmp_path):
    first = search(space, score, seeded=True, evaluations=8, folder=tmp_path)
    problem = FunctionProblem(space, score, seeded=True)
    log = Log(tmp_path, crashes=True)
    before = len(lines(tmp_path))
    again = Search(problem, Inline(log), log, Plan(evaluations=8)).visit()
    assert len(lines(tmp_path)) == before
    assert again.best.values == first.best.values


def test_more_evaluations_go_on_from_there(tmp_path):
    search(space, score, evaluations=8, sampler="evolution", folder=tmp_path)
    search(space, score, evaluations=12, sampler="evolution", folder=tmp_path)
    keys = Counter(line["key"] for line in lines(tmp_path) if "outcome" in line)
    assert set(keys.values()) == {1}
    assert len(search(space, score, evaluations=12, sampler="evolution", folder=tmp_path).arms["search"]) == 12


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_and_repeat_nothing(tmp_path):
    """SIGKILL of the whole process, again and again, and then to the end."""
    rng, kills = random.Random(0), 0

    def slow(chosen):
        time.sleep(0.015)
        return score(chosen)

    while True:
        pid = os.fork()
        if not pid:
            try:
                search(space, slow, evaluations=100, sampler="evolution", folder=tmp_path, name="score")
                os._exit(0)
            finally:
                os._exit(1)
        if kills < 20:
            time.sleep(rng.uniform(0.01, 0.12))
            os.kill(pid, signal.SIGKILL)
            kills += 1
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
    told = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines() if line.endswith("}")]
    outcomes = Counter(line["key"] for line in told if "outcome" in line)
    asked = [line for line in told if line.get("event") == "asked"]
    assert kills == 20
    assert set(outcomes.values()) == {1}
    assert Counter(line["arm"] for line in asked) == {"search": 100, "control": 100}
    assert sorted(line["number"] for line in asked) == list(range(200))
    whole = search(space, slow, evaluations=100, sampler="evolution", folder=tmp_path / "whole")
    by_arm = {arm: [line["values"] for line in asked if line["arm"] == arm] for arm in ("search", "control")}
    assert by_arm == {arm: [c.point.values for c in whole.arms[arm]] for arm in by_arm}


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    search(space, score, evaluations=5, folder=tmp_path)
    path = tmp_path / "trials.jsonl"
    path.write_text(path.read_text()[:-20])
    answer = search(space, score, evaluations=5, folder=tmp_path)
    assert all(c.status == "finished" for c in answer.arms["search"])


def test_a_journal_of_another_search_is_refused(tmp_path):
    search(space, score, evaluations=3, folder=tmp_path)
    with pytest.raises(MisuseError, match="was of another sampler"):
        search(space, score, evaluations=3, sampler="local", folder=tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"evaluations": 0}, "evaluations is 0"), ({"top": 0}, "top is 0"), ({"evaluations": None}, "needs an end"),
     ({"sampler": "evolution", "settings": {"pepole": 3}}, "can't be set so")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(given, words):
    with pytest.raises(MisuseError, match=words):
        search(space, score, **given)


def test_an_unknown_sampler_names_those_there_are():
    with pytest.raises(NotFoundError, match="did you mean 'evolution'"):
        search(space, score, sampler="evolutoin")


def test_a_space_must_draw_the_same_for_the_same_values():
    rng = random.Random(0)
    with pytest.raises(MisuseError, match="draws differently"):
        search(lambda draw: [draw.choice("n", [1, 2]), rng.random()], lambda c: 1.0, evaluations=3)
    with pytest.raises(MisuseError, match="draws nothing"):
        search(lambda draw: 1, lambda c: 1.0, evaluations=3)
