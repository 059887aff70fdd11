"""What came of a search in the terminal."""

import io
import json
import math

import pytest

from unstuck.report._search_facts import chosen, failures, interval, judged, ranked, value
from unstuck.report.search import TOP, WIDEST, text

NASTY = "[red] [/nope] :smile: <script>\x1b[31m"


def child(number, score=0.5, arm="search", **other):
    return {
        "number": number, "arm": arm, "origin": "random", "values": {"rate": 0.1, "kind": "SGD"}, "chosen": "x", "scores": {"0": score},
        "score": score, "quality": score, "stage": 0, "whole": False, "status": "finished" if score is not None else "failed",
        "cause": None, "seconds": 2.0, "epochs": 3, "parameters": 1234, "records": [], **other,
    }  # fmt: skip


def final(one, scores):
    sound = [s for s in scores if s is not None]
    return {
        **{key: one[key] for key in ("number", "arm", "values", "chosen")},
        "scores": {str(1001 + i): s for i, s in enumerate(scores)},
        "mean": sum(sound) / len(sound) if sound else None,
    }


def told(children=None, best=(0.9, 0.92, 0.94), control=(0.8, 0.82, 0.84), effect=(0.1, 0.05, 0.15), **other):
    children = [child(0, 0.9), child(1, 0.8, "control")] if children is None else children
    finals = [final(c, s) for c, s in zip(children, (best, control), strict=False) if s is not None]
    return {
        "schema": 1, "text": "", "score": "accuracy", "lower_is_better": False, "seconds": 61.0, "says": "", "health": [],
        "plan": {"sampler": "local", "settings": {}, "evaluations": 1, "seed": 0, "halving": True, "top": 1, "seeds": 3},
        "problem": {"file": "mlp.py", "digest": "1f"}, "better_than_random": None, "finalists": finals, "children": children,
        "best": finals[0] if finals else None, "control": finals[1] if len(finals) > 1 else None,
        "effect": None if effect is None else dict(zip(("mean", "low", "high"), effect, strict=True)), **other,
    }  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(given, stream=None):
    stream = stream or io.StringIO()
    text(json.loads(json.dumps(given, allow_nan=False)), stream)
    return stream.getvalue()


def lines(given):
    """Lines without what fills them up."""
    return [" ".join(line.split()) for line in shown(given).splitlines()]


def test_the_verdict_comes_first_with_its_scores_and_its_interval():
    got = lines(told())
    assert got[1] == "The search beat random search: accuracy 0.920 against 0.820."
    assert got[2] == "the search's best, search 0: 0.900, 0.920, 0.940 over 3 fresh seeds, mean 0.920"
    assert got[3] == "the best at random, random 1: 0.800, 0.820, 0.840 over 3 fresh seeds, mean 0.820"
    assert got[4] == "Better by 0.100, 95% interval 0.0500 to 0.150."


@pytest.mark.parametrize(
    ("effect", "kind", "says"),
    [
        ((0.1, 1e-9, 0.2), "healthy", "The search beat random search"),
        ((0.1, 0.0, 0.2), "unknown", "No better than random search beyond noise"),
        ((-0.1, -0.2, 0.0), "unknown", "No better than random search beyond noise"),
        ((-0.1, -0.2, -1e-9), "sick", "Random search did better"),
        ((0.1, None, None), "unknown", "The best has"),
        (None, "unknown", "The best has"),
    ],
)
def test_no_more_is_claimed_than_the_interval_bears(effect, kind, says):
    found = judged(told(effect=effect))
    assert found.kind == kind
    assert found.headline.startswith(says)


def test_being_behind_is_said_as_such():
    assert "Worse by 0.100, 95% interval 0.0500 to 0.200." in judged(told(effect=(-0.1, -0.2, -0.05))).sentences


@pytest.mark.parametrize(("p", "says"), [(0.049, "is better than what"), (0.05, "is not told apart from what")])
def test_children_are_better_than_random_ones_below_five_percent(p, says):
    assert any(says in s for s in judged(told(better_than_random=p)).sentences)


def test_what_a_verdict_says_is_not_said_twice():
    assert not any(
        "told apart" in s for s in judged(told(better_than_random=0.3, verdicts=["no better than random"])).sentences
    )


def test_without_fresh_seeds_scores_are_said_to_be_flattered():
    got = shown(told(best=(), control=(), effect=None))
    assert "The best has accuracy 0.900 against 0.800 of random search." in got
    assert "without fresh seeds" in got
    assert "over" not in got.splitlines()[2]


def test_without_a_control_its_gain_is_not_known():
    got = shown(told([child(0, 0.9)], effect=None))
    assert "The best that was found has accuracy 0.920." in got
    assert "no random search beside it" in got


def test_the_best_of_several_by_the_same_seeds_is_flattered():
    given = told([child(0), child(1, arm="control"), child(2)])
    given["finalists"].append(final(given["children"][2], (0.1, 0.1, 0.1)))
    assert any(s.startswith("Either is the best of 2 by these same 3 seeds") for s in judged(given).sentences)
    assert not any("best of" in s for s in judged(told()).sentences)


def test_nothing_found():
    got = shown(told([child(0, None, cause="ValueError: no")], best=None, control=None, effect=None))
    assert "Nothing came to an end" in got
    assert "1 of 1 child: 1 ValueError: no" in got
    assert "chosen" not in got


def test_a_seed_that_failed_is_said_to_have():
    assert "0.900, failed, 0.940 over 3 fresh seeds" in shown(told(best=(0.9, None, 0.94)))


def test_what_was_chosen_for_several_parts_stands_together():
    values = {
        "layers": 3,
        "width[0]": 64,
        "width[1]": 32,
        "links[1]": [1],
        "links[2]": [0, 1],
        "rate": 0.00123,
        "bias": True,
        "none": None,
    }
    assert chosen(values) == [
        ("layers", "3"), ("width[0..1]", "64, 32"), ("links[1..2]", "from 0, from 1"), ("rate", "0.001230"), ("bias", "yes"),
        ("none", "none"),
    ]  # fmt: skip
    assert chosen({"a[x]": [1, 1], "a[y]": [0, 0]}) == [("a[x..y]", "from 0, 1; from none")]
    assert value(1.0) == "1"


@pytest.mark.parametrize("count", [1, 10, 11, 43])
def test_all_decisions_are_shown_however_many(count):
    values = {f"decision {i}": f"value {i}" for i in range(count)}
    got = shown(told([child(0, 0.9, values=values), child(1, 0.8, "control", values=values)]))
    assert all(f"decision {i} " in got for i in range(count))
    assert got.count("chosen") == (2 if count > 10 else 1)


def test_the_best_children_come_furthest_first_then_best_first():
    children = [
        child(0, 0.99),
        child(1, 0.8, stage=2),
        child(2, 0.9, stage=2),
        child(3, None),
        child(4, 1.0, status=""),
    ]
    assert [c["number"] for c in ranked(told(children))] == [2, 1, 0]
    children = [child(0, 9.0), child(1, 8.0)]
    assert [c["number"] for c in ranked(told(children, lower_is_better=True))] == [1, 0]


def test_the_list_of_children_shows_what_mattered_and_says_how_many_more():
    children = [child(i, i / 100, values={"a": i, "b": "x"}) for i in range(TOP + 4)]
    got = lines(told(children, importance=[{"name": "b", "share": 0.25}, {"name": "a", "share": 0.0}]))
    header = next(i for i, line in enumerate(got) if line.startswith("best children"))
    assert got[header] == "best children accuracy epochs parameters time b"
    assert got[header + 1] == f"search {TOP + 3} 0.0900 3 1234 2.0 s x"
    assert got[header + TOP + 1] == "and 4 more"
    assert "mattered b 25% of the differences; 1 other can't be told from chance" in got


def test_what_is_the_same_for_nothing_has_no_column():
    got = lines(
        told(
            [
                child(0, 0.9, epochs=0, parameters=0, seconds=1e-5),
                child(1, 0.8, "control", epochs=0, parameters=0, seconds=0.0),
            ]
        )
    )
    assert "best children accuracy rate kind" in got


def test_causes_are_counted_the_most_frequent_first():
    children = [
        child(0, 0.9), child(1, 0.1, cause="vanishing-gradient", status="stopped", seconds=1.0),
        child(2, None, "control", cause="ValueError: no", seconds=4.0), child(3, None, cause="ValueError: no", seconds=5.0),
        child(4, None, status="diverged"), child(5, None, status=""),
    ]  # fmt: skip
    found = failures(told(children))
    assert [(f.cause, f.count, dict(f.arms), f.seconds) for f in found] == [
        ("ValueError: no", 2, {"control": 1, "search": 1}, 9.0),
        ("diverged", 1, {"search": 1}, 2.0),
        ("vanishing-gradient", 1, {"search": 1}, 1.0),
    ]
    assert found[2].means
    assert any(
        line.startswith("broken off 4 of 5 children: 2 ValueError: no; 1 diverged;") for line in lines(told(children))
    )


def test_time_health_and_sampler_are_told():
    children = [child(0, 0.9, seconds=30.0), child(1, 0.8, "control", seconds=20.0), child(2, None, seconds=10.0)]
    got = " ".join(lines(told(children, verdicts=["the controller has collapsed"], says="few decisions")))
    assert "sampler local: few decisions" in got
    assert "health the controller has collapsed" in got
    assert (
        "time 1 min 1 s for 3 children (search 2, random 1); they took 1 min: sound children of the search arm 30.0 s, "
        "sound children of the random arm 20.0 s, children that failed or were broken off 10.0 s"
    ) in got


def test_the_change_of_a_script_is_shown():
    diff = "--- a/train.py\n+++ b/train.py\n@@ -3 +3 @@\n-lr=[red]1e-6\n+lr=0.01"
    assert "\n".join(f"  {line}" for line in diff.splitlines()) in shown(told(diff=diff))


def test_the_interval_is_students():
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == (2.0, pytest.approx(2 - 4.303 / math.sqrt(3)), pytest.approx(2 + 4.303 / math.sqrt(3)))
    assert interval([1.0]) == (1.0, -math.inf, math.inf)


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_hostile_words_do_nothing(stream):
    children = [child(0, 0.9, values={NASTY: NASTY}), child(1, None, cause=NASTY, values={NASTY: NASTY})]
    given = told(
        children,
        control=None,
        effect=None,
        score=NASTY,
        says=NASTY,
        verdicts=[NASTY],
        importance=[{"name": NASTY, "share": 0.5}],
    )
    got = shown(given, stream())
    assert "[red]" in got
    assert "\x1b[31m" not in got


def test_a_file_gets_no_colours_and_no_lines_that_are_too_long():
    values = {"x" * 60: "y" * 300, "z" * 120: list(range(80))}
    children = [child(0, 0.9, values=values), child(1, None, cause="word " * 200)]
    got = shown(told(children, control=None, effect=None, verdicts=["word " * 90]))
    assert "\x1b" not in got
    assert max(map(len, got.splitlines())) <= WIDEST


def test_a_script_is_compared_with_itself_as_it_stands_first():
    own = {
        "number": -1,
        "arm": "own",
        "values": {},
        "chosen": "as it is",
        "scores": {"1001": 0.2, "1002": 0.3},
        "mean": 0.25,
    }
    found = judged(told(own=own, gain={"mean": 0.5, "low": 0.4, "high": 0.6}, effect=(0.01, -0.1, 0.1)))
    assert found.kind == "healthy"
    assert found.headline.startswith("Better than as it stands")
    assert "0.250 as it stands" in found.headline
    assert any("No better than random search beyond noise" in sentence for sentence in found.sentences)


def test_of_a_script_that_is_best_left_alone_that_is_said():
    own = {
        "number": -1,
        "arm": "own",
        "values": {},
        "chosen": "as it is",
        "scores": {"1001": 0.9, "1002": 0.9},
        "mean": 0.9,
    }
    assert "Leave it as it is" in judged(told(own=own, gain={"mean": -0.2, "low": -0.3, "high": -0.1})).headline
