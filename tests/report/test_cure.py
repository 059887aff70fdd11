"""What came of a visit in the terminal."""

import io
import math

import pytest

from unstuck.report.cure import MOST, WIDEST, text
from unstuck.source import Edit
from unstuck.trials.estimate import Effect
from unstuck.trials.job import Outcome
from unstuck.trials.visit import Cure, Dose, Prescription, Trial
from unstuck.verdict import Verdict

BASELINE = Outcome("finished", "accuracy", 0.1, 0.0, 4.2)
DIFF = (
    "--- a/train.py\n+++ b/train.py\n@@ -3 +3 @@\n-optimizer = SGD(net.parameters(), lr=1e-6)\n+optimizer = [red]SGD\n"
)
FOUND = Prescription(
    (Dose("learning-rate", {"rate": 0.01}), Dose("zero-grad")), Effect(0.5, 0.4, 0.6, 3), "accuracy", "accuracy",
    (0.1, 0.2, math.nan), (0.6, 0.7, 0.8), ("undertrained",), (Edit("train.py", 3, 7, "0.01"),), {}, {}, DIFF,
)  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(cure, stream=None):
    stream = stream or io.StringIO()
    text(cure, stream)
    return stream.getvalue()


def test_a_prescription_with_its_effect_and_its_diff():
    trials = (Trial((Dose("learning-rate", {"rate": 0.01}),), (0.7,), 0.6, 2.5, kept=True),)
    told = shown(Cure(Verdict("sick"), BASELINE, trials, FOUND, "", 61.0))
    assert "cure learning-rate (rate 0.01) + zero-grad" in told
    assert "accuracy over 3 fresh seeds: 0.1, 0.2, diverged without, 0.6, 0.7, 0.8 with it" in told
    assert "effect on accuracy: +0.5, 95% interval +0.4 to +0.6" in told
    assert "still found: undertrained" in told
    assert "\n".join(f"  {line}" for line in DIFF.splitlines()) in told
    assert "1 treatment looked at in 61 s; the script as it is takes 4 s" in told


@pytest.mark.parametrize(
    ("verdict", "says"), [("healthy", "no cure needed"), ("sick", "no cure found"), ("unknown", "no cure found")]
)
def test_no_prescription_and_why(verdict, says):
    told = shown(Cure(Verdict(verdict), BASELINE, why="nothing that was tried helps"))
    assert says in told
    assert "nothing that was tried helps" in told
    assert "tried  " not in told


def test_what_was_tried_the_best_first_and_how_the_others_ended():
    trials = (
        Trial((Dose("wider"),), (0.3,), 0.2),
        Trial((Dose("optimizer"),), (math.nan,), -math.inf),
        Trial((Dose("shuffle"),), (math.nan,), -math.inf, why_not="it took too long"),
        Trial((Dose("momentum"),), (0.9,), 0.8, kept=True),
        Trial((Dose("activation"),), why_not="no activation is made by a plain call"),
    )
    told = shown(Cure(Verdict("sick"), BASELINE, trials, why="it is not beyond noise"))
    rows = [line.split() for line in told.splitlines() if line.startswith("  ")]
    table = [row for row in rows if row[0] in {"wider", "optimizer", "shuffle", "momentum"}]
    assert table == [
        ["momentum", "0.9", "+0.80"],
        ["wider", "0.3", "+0.20"],
        ["optimizer", "-", "diverged"],
        ["shuffle", "-", "it", "took", "too", "long"],
    ]
    assert "not written: activation (no activation is made by a plain call)" in told


def test_what_could_not_be_written_is_told_also_where_nothing_was_tried():
    told = shown(Cure(Verdict("sick"), BASELINE, (Trial((Dose("wider"),), why_not="no layer is known"),), why="no"))
    assert "not written: wider (no layer is known)" in told


def test_brackets_and_colons_are_shown_as_they_are():
    why = "ValueError: [red] [/nope] :smile: in [bold]x[/bold]"
    trials = (Trial((Dose("optimizer", {"to": "[/x]"}),), (math.nan,), -math.inf, why_not="[/y] [b]"),)
    for stream in (io.StringIO(), Terminal()):
        told = shown(Cure(Verdict("unknown"), BASELINE, trials, why=why), stream)
        assert why in told
        assert "optimizer (to [/x])" in told
        assert "[/y] [b]" in told


def test_a_long_list_is_cut_and_says_so():
    trials = tuple(Trial((Dose(f"remedy-{i}"),), (i / 100,), i / 100) for i in range(MOST + 3))
    told = shown(Cure(Verdict("sick"), BASELINE, trials, why="no"))
    assert told.count("remedy-") == MOST
    assert "and 3 more" in told
    assert f"remedy-{MOST + 2} " in told


def test_a_file_gets_no_colours_and_no_lines_that_are_too_long():
    trials = tuple(Trial((Dose("remedy", {"name": "x" * 30 * i}),), (0.1,), 0.1) for i in range(6))
    told = shown(Cure(Verdict("sick"), BASELINE, trials, why="word " * 60))
    assert "\x1b" not in told
    assert max(map(len, told.splitlines())) <= WIDEST
