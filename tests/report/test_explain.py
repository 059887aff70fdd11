"""What is told of causes and rules: all that they say of themselves, in a form that fits."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from unstuck import _discover, rules
from unstuck.doctor import EXPLAINS, parse_settings, thresholds
from unstuck.errors import NotFoundError
from unstuck.evidence import Record
from unstuck.report import _page
from unstuck.report.explain import explain, listing, table
from unstuck.report.text import WIDEST
from unstuck.verdict import CAUSES, Finding

RULES = _discover.find("rules")


def shown(renderable: Any, columns: int = 80, **options: Any) -> list[str]:
    stream = options.pop("file", io.StringIO())
    Console(file=stream, width=columns, legacy_windows=False, highlight=False, **options).print(renderable)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def page(name: str, columns: int = 80) -> list[str]:
    return shown(explain(name, EXPLAINS), columns)


def section(lines: list[str], title: str) -> str:
    """What stands under a heading, on one line."""
    at = next(i for i, line in enumerate(lines) if line.startswith(title))
    body = lines[at + 1 :]
    end = next((i for i, line in enumerate(body) if line and not line.startswith(" ")), len(body))
    return " ".join(" ".join(body[:end]).split())


def outside(record: Record, *, passes: int = 1, fuzzy: float = 0.125) -> list[Finding]:
    """Evaluation ran in train mode.

    Two things count:

    - `passes` that were seen, which is a long line that goes on and on until it has to be wrapped to the next one
    - *nothing* else

    Told apart:
        By the events.

    Source:
        A book.

    Args:
        record: The run.
        passes: Passes that must have been
            seen. The author's guess.
        fuzzy (float): Not used.

    Returns:
        One finding at most.
    """
    return _outside(passes)


def _outside(passes: int) -> list[Finding]:
    return [Finding("mode-mismatch", "outside", "warning", 0.8, f"{passes}", treated_by=("mode", "normalization"))]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Adds rules of another package, by name."""
    more: dict[str, Any] = {}
    monkeypatch.setattr(_page, "find", lambda room: {**RULES, **more})
    yield more.update


# ---------------------------------------------------------------------- a page


def test_a_page_tells_all_that_the_rule_says():
    lines = page("dead-units")
    assert lines[0] == "dead-units  ReLU-like units are zero on every sample"
    text = " ".join(" ".join(lines).split())
    assert "Units of a ReLU layer give zero for every sample: no gradient passes them, so they can't come back." in text
    assert section(lines, "How it is told apart").startswith("A unit counts as dead when it gave nothing above zero")
    assert section(lines, "When it is wrong").startswith("The window saw few different samples.")
    told = section(lines, "Thresholds")
    assert "fraction 0.5 Share of a layer's units that must be dead. SageMaker Debugger takes 0.5, AutoTrainer" in told
    assert section(lines, "What treats it").startswith("activation another activation")
    assert "Returns" not in text
    assert "The run." not in text


def test_a_cause_tells_its_place_among_the_others():
    told = section(page("vanishing-gradient"), "Among other causes")
    assert told.startswith("found by the rule vanishing-gradient explains zero-gradient, ")
    explains, explained = told.split("explained by")
    assert "undertrained" in explains
    assert "dead-units" in explained
    assert "bad-initialization" in explained


@pytest.mark.parametrize("name", sorted(CAUSES))
def test_what_a_cause_explains_is_that_of_the_doctor(name: str):
    told = section(page(name, 100), "Among other causes").partition(" Found together")[0]
    match = re.fullmatch(r"found by .*? explains (.*) explained by (.*)", told)
    assert match
    brings = set(EXPLAINS.get(name, ())) - {name}
    follows = {cause for cause, brought in EXPLAINS.items() if name in brought} - {name}
    for words, expected in zip(match.groups(), (brings, follows), strict=True):
        listed = set(words.removeprefix("all but ").split(", ")) & set(CAUSES)
        assert (set(CAUSES) - {name} - listed if words.startswith("all ") else listed) == expected


def test_lists_of_nearly_all_causes_name_the_others():
    assert "explains all but" in section(page("loss-broadcast"), "Among other causes")


def test_causes_that_explain_each_other_are_told_how_that_ends():
    assert "the more decisive is the cause" in section(page("output-range"), "Among other causes")
    assert "decisive" not in section(page("loss-broadcast"), "Among other causes")


def test_what_is_said_of_the_cause_is_not_said_twice():
    assert " ".join(page("output-loss-mismatch")).count("the last activation, the loss and the task don't fit") == 1


def test_a_table_in_a_docstring_is_drawn_as_one():
    lines = page("output-loss-mismatch")
    assert "loss                          expects            common mistakes" in lines
    assert not any("|" in line for line in lines)


@pytest.mark.parametrize("columns", [30, 60, 80, 120, 200])
@pytest.mark.parametrize("name", ["output-loss-mismatch", "parameters-not-trained", "undertrained"])
def test_it_fits(name: str, columns: int):
    assert max(map(cell_len, page(name, columns))) <= min(columns, WIDEST)


@pytest.mark.parametrize("name", sorted(RULES))
def test_no_word_is_cut_off(name: str):
    assert not any("…" in line for line in page(name))


def test_without_unicode_it_is_ascii(offer: Callable[..., None]):
    def greek(record: Record, *, sigma: float = 1.0) -> list[Finding]:
        """σ – is × too large."""
        return []

    class Ascii(io.StringIO):
        encoding = "ascii"  # pyright: ignore[reportAssignmentType]

    offer(greek=greek)
    assert "\n".join(shown(explain("greek", EXPLAINS), file=Ascii())).isascii()


def test_colour_adds_nothing_that_words_do_not_say():
    coloured = io.StringIO()
    Console(file=coloured, width=80, force_terminal=True, color_system="truecolor", _environ={}, highlight=False).print(
        explain("zero-gradient", EXPLAINS)
    )
    assert "\x1b[" in coloured.getvalue()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured.getvalue())
    assert [line.rstrip() for line in plain.splitlines()] == page("zero-gradient")


# ---------------------------------------------------------------------- in step with the rules


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_threshold_is_told_with_what_it_means(name: str):
    told = _page.pages()[name].thresholds
    assert {t.name: t.default for t in told} == thresholds(RULES[name])
    assert all(t.means for t in told)


@pytest.mark.slow
def test_thresholds_are_told_as_they_can_be_set():
    for name in RULES:
        [setting] = re.findall(r"--set (\S+) changes one", " ".join(page(name, 100)))
        assert list(parse_settings([setting])) == [name]


def remedies_in(path: Path) -> set[str]:
    """Literals that a rule's file passes as `treated_by`."""
    given = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.keyword)]
    literals = [ast.walk(node.value) for node in given if node.arg == "treated_by"]
    return {n.value for nodes in literals for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def test_remedies_are_those_of_the_findings():
    folder = Path(rules.__path__[0])
    for name, told in _page.pages().items():
        assert remedies_in(folder / f"{name.replace('-', '_')}.py") <= set(told.treated_by), name
    assert _page.pages()["exploding-gradient"].treated_by[:2] == ("gradient-clipping", "initialization")


# ---------------------------------------------------------------------- rules of other packages


def test_a_rule_of_another_name_tells_the_cause_that_it_finds(offer: Callable[..., None]):
    offer(outside=outside)
    lines = page("outside")
    assert lines[0] == "outside  a rule that finds mode-mismatch"
    assert section(lines, "Source") == "A book."
    assert "passes  1      Passes that must have been seen. The author's guess." in "\n".join(lines)
    assert "fuzzy   0.125  Not used." in "\n".join(lines)
    assert "\n- `passes` that were seen, which is a long line that goes on and on until it has\n  to be" in "\n".join(
        lines
    )
    assert "- nothing else" in lines
    assert "model.train() for training" in section(lines, "What treats it")
    assert not any(line.startswith("Among") for line in lines)


def test_a_cause_lists_all_rules_that_find_it(offer: Callable[..., None]):
    offer(outside=outside)
    assert section(page("mode-mismatch"), "Among").startswith("found by the rules mode-mismatch, outside explains")


def test_a_cause_without_a_rule_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_page, "find", lambda room: {})
    lines = page("growing-graph")
    assert lines[0] == "growing-graph  hidden state is carried without detaching"
    assert section(lines, "Among").startswith("found by no rule")


def test_a_rule_that_says_nothing_is_no_error(offer: Callable[..., None]):
    class Callable:
        def __call__(self, record: Record) -> list[Finding]:
            return []

    offer(silent=lambda record: [], instance=Callable())
    assert page("silent") == ["silent  a rule"]
    assert page("instance") == ["instance  a rule"]


def test_what_looks_like_markup_is_text(offer: Callable[..., None]):
    def marked(record: Record, *, kind: str = "[red]x[/red]") -> list[Finding]:
        """The [bold]input[/bold] is [/] odd."""
        return []

    offer(**{"[b]marked": marked})
    assert "[red]x[/red]" in "\n".join(page("[b]marked"))
    assert "[b]marked" in "\n".join(shown(table()))
    assert "The [bold]input[/bold] is [/] odd." in "\n".join(shown(table(), 100))


# ---------------------------------------------------------------------- names that are none


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("ded-units", "dead-units"),
        ("Dead_Units", "dead-units"),
        ("vanishing", "vanishing-gradient"),
        ("vanishing-gradients", "vanishing-gradient"),
        ("NaN", "non-finite"),
        ("zero_grad", "gradients-accumulate"),
        ("saddle", "critical-point"),
    ],
)
def test_the_closest_name_is_told(name: str, close: str):
    with pytest.raises(NotFoundError, match=f"^no cause or rule '{name}'; did you mean '{close}'\\?$"):
        explain(name, EXPLAINS)


@pytest.mark.parametrize("name", ["xyzzy", "(", "\x1b[31m", "a\nb"])
def test_where_none_is_close_it_says_where_they_are(name: str):
    with pytest.raises(NotFoundError) as caught:
        explain(name, EXPLAINS)
    assert str(caught.value).endswith("; `unstuck rules` lists them")
    assert str(caught.value).isprintable()


# ---------------------------------------------------------------------- all rules


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_table_holds_every_rule_and_what_it_finds(columns: int):
    lines = shown(table(), columns)
    assert max(map(cell_len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    for name, told in _page.pages().items():
        assert any(line.startswith(f"{name} ") for line in lines)
        if columns == 120 and len(told.summary) < 70:
            assert told.summary in text
    assert "A rule is named after the cause that it finds." in text


def test_causes_have_a_column_where_a_rule_is_named_otherwise(offer: Callable[..., None]):
    offer(outside=outside, silent=lambda record: [])
    text = "\n".join(shown(table()))
    assert re.search(r"^rule +cause +what it finds$", text, re.MULTILINE)
    assert re.search(r"^outside +mode-mismatch +Evaluation ran in train mode\.$", text, re.MULTILINE)
    assert re.search(r"^silent +-$", text, re.MULTILINE)


def test_the_listing_is_json_with_all_thresholds():
    told = json.loads(json.dumps(listing(), allow_nan=False))
    assert told["schema"] == 1
    by_name = {rule["rule"]: rule for rule in told["rules"]}
    assert list(by_name) == sorted(RULES)
    for name, rule in by_name.items():
        assert rule["causes"] == [name]
        assert rule["summary"].endswith(".")
        assert {t["name"]: t["default"] for t in rule["thresholds"]} == thresholds(RULES[name])
