"""Numbers, confidence and places as people read them."""

from __future__ import annotations

import math

import pytest

from unstuck._language import speaking
from unstuck.evidence import Event, Layer, Optimizer, Parameter, Record
from unstuck.report import _words as words
from unstuck.verdict import Evidence, Finding, Verdict


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (2.3026, "2.30"), (0.1, "0.100"), (99.96, "100"), (123.4, "123"), (12345, "12345"), (1e5, "1e5"),
     (8.13e-17, "8.13e-17"), (1e-17, "1e-17"), (-0.00051, "-5.1e-4"), (0.001, "0.00100"), (math.nan, "NaN"),
     (math.inf, "Inf"), (-math.inf, "-Inf"), (None, "–")],
)  # fmt: skip
def test_measured_numbers_keep_three_digits(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (3e-4, "3e-4"), (1e-8, "1e-8"), ((0.9, 0.999), "(0.9, 0.999)"), (64, "64"), (True, "yes"), (0.0, "0"),
     (math.inf, "Inf"), ("adam\n", "adam"), (10000.0, "10000")],
)  # fmt: skip
def test_chosen_values_are_exact(value: object, text: str) -> None:
    assert words.exact(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (0.00001, "<0.1%"), (0.013, "1.3%"), (0.5, "50%"), (1, "100%"), (math.nan, "–"), (None, "–")],
)
def test_percent(share: float | None, text: str) -> None:
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.4 s"), (75, "1 min 15 s"), (3600, "1 h"), (4210, "1 h 10 min"), (90_000, "1 d 1 h"), (None, "–")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(938, "938"), (9999, "9999"), (128_842, "128.8k"), (85_000_000, "85M"), (2 * 10**9, "2B")]
)
def test_count(value: int, text: str) -> None:
    assert words.count(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.99, "almost certain (0.99)"), (0.93, "very likely (0.93)"), (0.7, "likely (0.70)"), (0.5, "possible (0.50)"),
     (0.1, "uncertain (0.10)"), (math.nan, "uncertain (nan)")],
)  # fmt: skip
def test_confidence_is_words_and_a_number(share: float, text: str) -> None:
    assert words.confidence(share) == text


def test_places_are_shortened() -> None:
    names = [f"net.{i}" for i in range(0, 20, 2)]
    record = Record.of(layers=[Layer(name) for name in names], parameters=[Parameter(f"{n}.weight") for n in names])
    assert words.places(names, record) == "net.0 … net.18 (10 layers)"
    assert words.places(names[:2], record) == "net.0, net.2"
    assert words.places([], record) == "the whole program"
    assert words.places([f"{n}.weight" for n in names], record).endswith("(10 parameters)")
    assert words.place("a.very.long.path.to.the.layer.in.question", 20) == "…e.layer.in.question"


def test_evidence_groups_by_signal_and_step() -> None:
    items = [
        Evidence("back_rms", "a", 0, 1e-17),
        Evidence("back_rms", "b", 0, 0.46),
        Evidence("dead_share", "c", 5, 0.5),
    ]
    assert words.evidence(items) == ["gradient of a 1e-17, b 0.460 (step 0)", "share of dead units of c 50% (step 5)"]
    assert words.evidence([Evidence("loss", "", 9, math.nan)]) == ["loss NaN (step 9)"]


def test_clean_takes_what_would_act_on_a_terminal() -> None:
    assert words.clean("a\x1b[31m\nb\u202e\ud800") == "a�[31m b��"


def test_sentence() -> None:
    assert words.sentence("the loss is flat") == "The loss is flat."
    assert words.sentence("fc1.weight never moves!") == "fc1.weight never moves!"


def test_headlines_by_verdict() -> None:
    record = Record.of({("loss", ""): [1.0, 0.5]}, meta={"script": "a/train.py"})
    error = Finding("dead-units", "r", "error", 0.9, "says")
    warning = Finding("dead-units", "r", "warning", 0.9, "says")
    assert (
        words.headline(Verdict("sick", (error,)), record)
        == "train.py can't train: ReLU-like units are zero on every sample."
    )
    assert "trains worse than it could" in words.headline(Verdict("sick", (warning,)), record)
    assert words.headline(Verdict("healthy"), record) == "Nothing found that keeps train.py from training, in 2 steps."
    assert words.headline(Verdict("unknown", why_unknown="no step was made"), record) == "No step was made."
    assert words.headline(Verdict("sick", (error,)), Record()).startswith("The network can't train")
    assert "no rule names it" in words.headline(Verdict("sick"), record)


def test_endings() -> None:
    failed = Record.of(
        meta={"status": "failed", "exit_code": 1},
        events=[Event(3, "exception", data={"type": "ValueError", "message": "a\nb"})],
    )
    assert words.ending(failed) == "failed with ValueError: a b"
    assert words.ending(Record.of(meta={"status": "killed", "exit_code": -9})) == "killed, exit code -9"
    assert words.ending(Record.of(meta={"status": "running"})) == "still running"
    assert not words.ending(Record.of())


def test_optimizer_in_a_few_words() -> None:
    item = Optimizer(
        "AdamW",
        settings={"lr": 3e-4, "betas": (0.9, 0.95), "weight_decay": 0, "eps": 1e-8},
        schedule="LambdaLR",
        clipping="norm 1.0",
    )
    assert words.optimizer(item) == "AdamW, lr 3e-4, betas (0.9, 0.95), schedule LambdaLR, clipped by norm 1.0"


def test_a_sentence_in_chinese_may_begin_with_a_name() -> None:
    with speaking("zh"):
        assert words.sentence("rnn 的梯度") == "rnn 的梯度。"


@pytest.mark.parametrize(
    ("told", "shown"),
    [("2026-11-22T16:49:13+00:00", "2026-11-22 16:49 UTC"), ("2026-11-22T16:49:13+05:30", "2026-11-22 16:49 UTC+05:30"),
     ("2025-03-04T10:22:31", "2025-03-04 10:22"), ("some day", "some day"), (None, "None")],
)  # fmt: skip
def test_moments_are_told_to_the_minute(told: object, shown: str) -> None:
    assert words.moment(told) == shown


def test_watching_that_took_longer_than_the_steps_is_no_share_of_them() -> None:
    assert words.watching(0.37) == "watching took 37% of it"
    assert words.watching(2.49) == "watching took 2.5 times as long as the steps themselves"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "+0.5"), (-0.00332, "-0.00332"), (7.15e-5, "+7.15e-5"), (-2e7, "-2e7"), (0.0, "+0"), (math.nan, "NaN")],
)
def test_differences_have_a_sign(value: float, text: str) -> None:
    assert words.signed(value) == text


def test_scores_are_called_by_what_they_are() -> None:
    assert [words.score_name(name) for name in ("r2", "bit_accuracy", "my_score")] == ["R2", "bit accuracy", "my score"]
    with speaking("zh"):
        assert words.score_name("accuracy") == "准确率"
