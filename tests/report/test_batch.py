"""Which batch size is best, told in the terminal, as JSON, and on the page."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from unstuck.evidence import Event, Record
from unstuck.report import batch_page
from unstuck.report._batch import gathered, size_of, time_of
from unstuck.report.batch import render, to_json, write


def told(made: Record, width: int = 100, **settings: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, **settings).print(render(made, width=width))
    return stream.getvalue()


def plain(made: Record) -> str:
    return " ".join(told(made).split())


def test_the_verdict_comes_first_then_what_to_do_then_the_sizes(batches: SimpleNamespace) -> None:
    lines = told(batches.record()).splitlines()
    assert lines[0].startswith(
        "128  With batches of 128 instead of 32, train.py would get where it got in 45% of the time"
    )
    assert "(36% to 58%)" in " ".join(" ".join(lines[:3]).split())
    text = plain(batches.record())
    assert "Batch size 128, learning rate times 3.3 (0.10 becomes 0.33)" in text
    assert "so 270 updates in place of 900" in text
    rows = [line for line in lines if line.rstrip().endswith(("recommended", "as it is"))]
    assert len(rows) == 2
    assert rows[1].startswith("→")


def test_times_of_a_busy_processor_decide_nothing(batches: SimpleNamespace) -> None:
    busy = {"recommended": 32, "fastest": 128, "why": "busy", "waited": 0.43}
    record = batches.record(own={"threads": 2}, choice=busy)
    text = plain(record)
    assert text.startswith(
        "UNKNOWN train.py: it can't be told which batch size is best: for 43% of the time other programs had the processor"
    )
    assert (
        "torch's 2 threads wait for one another then. Run it again when the machine is idle, or with OMP_NUM_THREADS=1."
        in text
    )
    assert text.count("as it is") == 1
    assert "recommended" not in text.split("noise equals")[0]
    assert to_json(record)["verdict"] == "unknown"
    assert "43%" in to_json(record)["why_unknown"]
    assert to_json(record)["recommended"] is None
    assert "43%" in batch_page.render(record)


@pytest.mark.parametrize(
    "words",
    [
        "noise equals gradient in a batch of 45 (40 to 52) samples at step 0, of at least 900 at step 900",
        "batch size 210 over the run",
        "1.0 ms an update, and 20 µs a sample (1 thread)",
        "977 KiB, and 9.8 KiB a sample: 50k samples fit into the 7.5 GiB that are free",
        "higher than before it from 16 times the rate on",
        "At 1 of 3 points of the run no gradient is to be told from noise in 512 samples",
        "measuring took 9.5 s",
    ],
)
def test_what_is_told(batches: SimpleNamespace, words: str) -> None:
    assert words in plain(batches.record())


@pytest.mark.parametrize(
    ("own", "choice", "words"),
    [
        ({"batch_norms": ["norm1", "norm2"]}, {}, "Batch norm (norm1, norm2) normalises by the batch"),
        ({"batch_norms": [*"abcde"]}, {}, "Batch norm (a, b, c and others)"),
        ({"num_samples": 600}, {}, "5 updates make a pass"),
        ({"reduction": "sum"}, {}, "the loss is a sum over the batch"),
        ({"clipping": "norm 1.0"}, {}, "gradients are clipped (norm 1.0)"),
        ({}, {"besides": 0.002}, "67% of a step is none of the update"),
        ({}, {"beyond": 512}, "unstuck.Training(accumulate=4)"),
        ({}, {"most": 100.0}, "batches of more than 100, a quarter of the data"),
        ({"adaptive": True}, {}, "the square root of what the updates save"),
    ],
)
def test_what_is_to_be_kept_in_mind(
    batches: SimpleNamespace, own: dict[str, Any], choice: dict[str, Any], words: str
) -> None:
    assert words.lower() not in plain(batches.record()).lower()
    assert words.lower() in plain(batches.record(own=own, choice=choice)).lower()


def test_a_rate_that_is_held_is_told(batches: SimpleNamespace) -> None:
    capped = [*batches.sizes[:3], batches.size(128, 0.6, 0.5, 0.7, is_capped=True)]
    assert "isn't stable, so it is held" in plain(batches.record(sizes=capped))


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("fastest", "no other size would get it there faster"),
        ("unclear", "those of 128 would take 45% of the time, but"),
    ],
)
def test_its_own_is_kept(batches: SimpleNamespace, why: str, words: str) -> None:
    made = batches.record(choice={"recommended": 32, "why": why})
    assert told(made).startswith("KEEP 32  train.py is best left with batches of 32")
    assert words in plain(made)
    assert "kept" in plain(made)
    assert "learning rate times" not in plain(made)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_line_is_too_long(batches: SimpleNamespace, width: int) -> None:
    assert max(len(line.rstrip()) for line in told(batches.record(), width).splitlines()) <= min(width, 100)


def test_plain_ascii_where_there_is_nothing_else(batches: SimpleNamespace) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=stream, width=80).print(render(batches.record()))
    stream.seek(0)
    assert "x 0.45" in stream.read()


@pytest.mark.parametrize(
    ("events", "steps", "why"),
    [
        ((), 0, "no training was seen"),
        ((), 5, "the script ended before anything could be measured"),
        (({"part": "none", "why": "several losses take turns"},), 5, "several losses take turns"),
        (({"part": "own", "size": 32},), 5, "too little data"),
    ],
)
def test_why_nothing_is_known(events: Any, steps: int, why: str) -> None:
    made = replace(Record.of(), events=tuple(Event(1, "batch", "", e) for e in events))
    made = replace(made, meta={**made.meta, "steps": steps, "script": "train.py"})
    text = plain(made)
    assert text.startswith("UNKNOWN train.py: it can't be told which batch size is best:")
    assert why in text
    assert to_json(made)["verdict"] == "unknown"
    assert why in to_json(made)["why_unknown"]
    assert why in batch_page.render(made)


def test_the_json_holds_everything(batches: SimpleNamespace, tmp_path: Any) -> None:
    write(batches.record(), tmp_path / "b.json")
    made = json.loads((tmp_path / "b.json").read_text())
    assert (made["schema"], made["verdict"], made["script"], made["steps"]) == (1, "change", "train.py", 900)
    assert made["recommended"]["size"] == 128
    assert made["recommended"]["rate"] == pytest.approx(0.1 * 128 / 38.4)
    assert made["recommended"]["updates"] == 270
    assert [s["size"] for s in made["sizes"]] == [16, 32, 64, 128]
    assert [p["step"] for p in made["noise"]] == [0, 450, 900]
    assert made["noise"][2]["high"] is None
    assert "part" not in made["own"]


def test_every_key_of_the_json_is_on_the_page_of_the_docs(batches: SimpleNamespace) -> None:
    text = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()
    made = to_json(batches.record())
    names = {
        *made,
        *made["recommended"],
        *made["own"],
        *made["choice"],
        *made["memory"],
        *made["sizes"][0],
        *made["noise"][0],
    }
    assert not {name for name in names if f"`{name}`" not in text}


def test_a_record_without_a_gradient_anywhere(batches: SimpleNamespace) -> None:
    lost = batches.record(choice={"critical": None})
    assert "no gradient is to be told from noise anywhere in the run" in plain(lost)
    assert "<html" in batch_page.render(lost)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2.5, "2.5 s"),
        (0.0123, "12 ms"),
        (0.412, "412 ms"),
        (4.1e-5, "41 µs"),
        (0.0, "0 s"),
        (None, "–"),
        (3e-9, "0.0030 µs"),
    ],
)
def test_short_times(seconds: float | None, words: str) -> None:
    assert time_of(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(None, "–"), (12, "12 B"), (2048, "2.0 KiB"), (3 << 30, "3.0 GiB")])
def test_memory(count: float | None, words: str) -> None:
    assert size_of(count) == words


def test_the_verdict_of_a_record(batches: SimpleNamespace) -> None:
    assert gathered(batches.record()).verdict == "change"
    assert gathered(batches.record(choice={"recommended": 32})).verdict == "keep"
    assert gathered(Record.of()).verdict == "unknown"


PROOF = {
    "part": "proof", "pairs": 3, "seconds": {"ratio": 0.5, "low": 0.45, "high": 0.55}, "loss": {"ratio": 1.02, "low": 0.9, "high": 1.1},
    "score_with": 0.96, "score_without": 0.95, "holds": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {},
            "3 pairs of runs: 50% of the time (45% to 55%), to 1.0 times the loss (0.90 to 1.1); score 0.950 as it is, 0.960 with it",
        ),
        ({"holds": False}, "it does not hold"),
        ({"holds": None}, "too few pairs to tell"),
        ({"why": "it can't be told where the batch size is set"}, "none: it can't be told where the batch size is set"),
    ],
)
def test_a_proof_is_told(batches: SimpleNamespace, given: dict[str, Any], words: str) -> None:
    made = batches.record(more=[{**PROOF, **given}])
    assert words in plain(made)
    assert words in batch_page.render(made).replace("&#39;", "'")
    assert to_json(made)["proof"]["pairs"] == 3


def accumulated(batches: SimpleNamespace, *, recommended: tuple[int, int] = (32, 1), adds: bool = False) -> Record:
    """Four batches of 8 to an update as it is, and other ways."""
    sizes = [
        batches.size(32, 1.0, 1.0, 1.0, rate=1.0, updates=1.0, samples=1.0, num_batches=4, bytes=4e6),
        batches.size(32, 0.48, 0.45, 0.51, rate=1.0, updates=1.0, samples=1.0, num_batches=1, bytes=8e6),
        batches.size(128, 0.35, 0.3, 0.4, num_batches=2, bytes=1.6e7),
    ]
    choice = {"recommended": recommended[0], "num_batches": recommended[1]}
    return batches.record(own={"num_batches": 4, "micro_size": 8, "adds": adds}, choice=choice, sizes=sizes)


def test_the_same_samples_in_one_go(batches: SimpleNamespace) -> None:
    made = accumulated(batches)
    text = plain(made)
    assert "With batches of 32 (in one go) instead of 32 (4 × 8), train.py would get where it got in 48%" in text
    assert (
        "32 in one go instead of 4 × 8: 2.1 times as fast; memory 7.6 MiB of 7.5 GiB; learning rate as it is." in text
    )
    assert "passes over the data" not in text
    assert "Losses are divided by 4, the batches of an update: leave that out then." in text
    rows = [line.split() for line in told(made).splitlines() if line.rstrip().endswith(("recommended", "as it is"))]
    assert rows[0][:3] == ["4", "×", "8"]
    assert rows[1][:2] == ["→", "32"]
    recommended = to_json(made)["recommended"]
    assert (recommended["size"], recommended["num_batches"]) == (32, 1)
    assert "32 in one go instead of 4 × 8" in batch_page.render(made)


def test_other_numbers_of_batches(batches: SimpleNamespace) -> None:
    text = plain(accumulated(batches, recommended=(128, 2)))
    assert "2 × 64 instead of 4 × 8: 2.9 times as fast" in text
    assert "1.2 times the passes over the data, so 270 updates in place of 900" in text
    assert "Losses are divided by 4, the batches of an update: then by 2." in text


def test_its_own_batches_are_kept(batches: SimpleNamespace) -> None:
    made = accumulated(batches, recommended=(32, 4))
    assert told(made).startswith("KEEP 32  train.py is best left with batches of 32 (4 × 8)")
    assert to_json(made)["verdict"] == "keep"
    assert "leave that out" not in plain(made)


def test_a_gradient_that_is_added_up(batches: SimpleNamespace) -> None:
    text = plain(accumulated(batches, adds=True))
    assert "Losses aren't divided by 4, the batches of an update, so that its gradient is their sum" in text
    assert "leave that out" not in text
