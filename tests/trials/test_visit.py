"""What came of a visit, in words and as JSON."""

import json
import math

import pytest

from unstuck.source import Edit
from unstuck.trials.estimate import Effect
from unstuck.trials.job import Outcome
from unstuck.trials.visit import Cure, Dose, Prescription, Trial, words
from unstuck.verdict import Finding, Verdict

SICK = Verdict(
    "sick",
    (
        Finding("learning-rate-too-low", "rate", "error", 0.9, "it crawls"),
        Finding("sharp-minimum", "sharp", "note", 0.5, "steep"),
    ),
)
RATE = Dose("learning-rate", {"rate": 0.01})


def prescription(**changed):
    given = {
        "treatment": (RATE,), "effect": Effect(0.5, 0.4, 0.6, 3), "effect_of": "accuracy", "score": "accuracy",
        "without": (0.1, 0.2, 0.3), "treated": (0.6, 0.7, 0.8), "findings_after": ("undertrained",),
        "edits": (Edit("train.py", 3, 7, "0.01"),), "digests": {"train.py": "12ab"}, "texts": {"train.py": "rate = 0.01"},
        "diff": "-rate = 1e-6\n+rate = 0.01\n",
    }  # fmt: skip
    return Prescription(**{**given, **changed})


def test_the_json_is_strict_whatever_was_measured():
    bad = (math.nan, math.inf, -math.inf)
    trials = tuple(Trial((Dose("optimizer", {"rate": v}),), bad, v, v, why_not="it crashed") for v in bad)
    found = prescription(effect=Effect(math.nan, -math.inf, math.inf, 3), without=bad, treated=bad)
    cure = Cure(SICK, Outcome("diverged", "loss", math.nan), trials, found, "", 1.5)
    told = json.loads(json.dumps(cure.to_json(), allow_nan=False))
    assert told["baseline"]["values"] == [None]
    assert told["trials"][1]["values"] == [None, None, None]
    assert told["trials"][1]["treatment"][0]["settings"] == {"rate": None}
    assert (told["prescription"]["effect"], told["prescription"]["low"]) == (None, None)


def test_the_json_says_what_was_found_tried_and_prescribed():
    trials = (Trial((RATE,), (0.7,), 0.6, 2.5, kept=True), Trial((Dose("wider"),), why_not="no layer is known"))
    cure = Cure(SICK, Outcome("finished", "accuracy", 0.1, 0.0, 2.0), trials, prescription(), "", 60.123)
    told = json.loads(json.dumps(cure.to_json(), allow_nan=False))
    assert (told["schema"], told["seconds"], told["why"]) == (1, 60.12, None)
    assert told["baseline"] == {
        "score": "accuracy", "values": [0.1], "status": "finished", "seconds": 2.0, "verdict": "sick",
        "findings": ["learning-rate-too-low"],
    }  # fmt: skip
    assert told["trials"][0]["treatment"] == [{"remedy": "learning-rate", "settings": {"rate": 0.01}}]
    assert [t["kept"] for t in told["trials"]] == [True, False]
    assert told["trials"][1]["why_not"] == "no layer is known"
    found = told["prescription"]
    assert (found["effect"], found["low"], found["high"], found["effect_of"]) == (0.5, 0.4, 0.6, "accuracy")
    assert (found["score"], found["without"]) == ([0.6, 0.7, 0.8], [0.1, 0.2, 0.3])
    assert (found["edits"], found["digests"]) == ([["train.py", 3, 7, "0.01", 0]], {"train.py": "12ab"})
    assert found["diff"].startswith("-rate")


def test_without_a_prescription_it_says_why():
    told = Cure(Verdict("healthy"), Outcome("finished"), why="nothing is wrong with it").to_json()
    assert (told["prescription"], told["why"], told["trials"]) == (None, "nothing is wrong with it", [])


def test_the_sentence_tells_score_effect_and_interval():
    assert prescription().text == (
        "learning-rate (rate 0.01): accuracy 0.2 becomes 0.7 over 3 fresh seeds (+0.5, 95% interval +0.4 to +0.6)"
    )
    assert "loss diverged becomes 0.7" in prescription(score="loss", effect_of="loss", without=(math.nan, 1.0)).text
    other = prescription(effect_of="share of the way from chance to perfect").text
    assert "(+0.5 of the share of the way from chance to perfect, 95%" in other


@pytest.mark.parametrize(
    ("dose", "told"),
    [
        (Dose("zero-grad"), "zero-grad"),
        (Dose("learning-rate", {"rate": 1e-05}), "learning-rate (rate 1e-05)"),
        (Dose("optimizer", {"to": "Adam", "weight_decay": 0.1}), "optimizer (to Adam, weight decay 0.1)"),
        (Dose("class-weights", {"weights": [1.0, 2.0, 3.0, 4.0]}), "class-weights (weights [1, 2, 3, ...])"),
    ],
)
def test_doses_in_words(dose, told):
    assert str(dose) == told


def test_treatments_in_words_and_as_keys():
    both = (Dose("zero-grad"), RATE)
    assert words(both) == "zero-grad + learning-rate (rate 0.01)"
    assert {both: 1}[(Dose("zero-grad"), Dose("learning-rate", {"rate": 0.01}))] == 1
    assert len({Dose("a", {"x": [1]}), Dose("a", {"x": [1]}), Dose("a", {"x": [2]})}) == 2
