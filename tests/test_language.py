"""Reports in other languages: the catalogue is whole and true to the texts, and nothing but our own texts is translated."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import io
import json
import re
import string
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from unstuck import _language as language
from unstuck._language import (
    Said,
    joined,
    known,
    many,
    marked,
    say,
    say_many,
    speaking,
    spoken,
    stored,
    tell,
    translated,
)
from unstuck.doctor import diagnose
from unstuck.errors import MisuseError
from unstuck.evidence import Event, Record
from unstuck.report import _words as words
from unstuck.report import text as terminal
from unstuck.report._remedies import REMEDIES
from unstuck.report.json import to_json
from unstuck.rules._words import names
from unstuck.verdict import CAUSES, Finding, Verdict

ROOT = Path(__file__).parent.parent
CHINESE = re.compile(r"[\u4e00-\u9fff]")
ENGLISH = re.compile(r"[A-Za-z]{2,}(?:[ ,;:]+[A-Za-z]{2,}){3}")


@pytest.fixture(scope="module")
def catalogue() -> ModuleType:
    """`tools/catalogue.py`."""
    pytest.importorskip("babel")
    spec = importlib.util.spec_from_file_location("catalogue", ROOT / "tools" / "catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["catalogue"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def texts(catalogue: ModuleType) -> list[Any]:
    """All that is said, collected once."""
    return catalogue.collected()


# ---------------------------------------------------------------------- the catalogue


def test_every_text_is_translated_with_the_same_placeholders_and_compiled(
    catalogue: ModuleType, texts: list[Any]
) -> None:
    for locale in catalogue.LOCALES:
        mo = catalogue.po(locale).with_suffix(".mo").read_bytes()
        assert catalogue.problems(catalogue.read(locale), texts, mo) == []


def test_texts_are_found_in_every_room_and_in_pages(texts: list[Any]) -> None:
    found = {one.text: one.file for one in texts}
    assert found["NaN or Inf appears"] == "verdict.py"
    assert "{says}; the loader does not shuffle" in found
    assert ("{number} update", "{number} updates") in found
    assert any(file.endswith(".jinja") for file in found.values())


@pytest.mark.parametrize(
    ("translation", "told"),
    [
        ("{layer} 已死", None),
        ("已死", "other placeholders"),
        ("{layers} 已死", "other placeholders"),
        ("{layer} 已死 {value}", "other placeholders"),
        ("", "not translated"),
    ],
)
def test_what_is_wrong_with_a_catalogue_is_told(catalogue: ModuleType, translation: str, told: str | None) -> None:
    found = [catalogue.Found("{layer} is dead", "rules/x.py", 1)]
    made = catalogue.template(found)
    made["{layer} is dead"].string = translation
    said = catalogue.problems(made, found, None)
    assert (said == []) if told is None else (len(said) == 1 and told in said[0])


def test_missing_and_left_over_texts_and_a_stale_mo_are_told(catalogue: ModuleType) -> None:
    made = catalogue.template([catalogue.Found("old", "a.py", 1)])
    made["old"].string = "旧"
    said = catalogue.problems(made, [catalogue.Found("new", "b.py", 7)], b"")
    assert said == [
        "b.py:7: not in the catalogue: 'new'",
        "left over: 'old'",
        "unstuck.mo is not compiled from unstuck.po",
    ]


def test_a_format_is_part_of_a_placeholder(catalogue: ModuleType) -> None:
    assert catalogue.placeholders("{rate:g} of {name}, {rate:g}") == {("rate", "g"), ("name", "")}


def test_texts_are_literals_since_others_are_not_collected(catalogue: ModuleType) -> None:
    broken = []
    for path in sorted((ROOT / "src" / "unstuck").rglob("*.py")):
        code = path.read_text("utf-8")
        tree = ast.parse(code if "_language import" in code or "plural(" in code else "")
        ours = catalogue._imported(tree)
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = catalogue._named(call.func, ours)
            texts = call.args[1:2] if name == "plural" else call.args[: 2 if name in catalogue.MANY else 1]
            if (
                name
                and path.name != "_words.py"
                and any(isinstance(text, (ast.JoinedStr, ast.BinOp)) for text in texts)
            ):
                broken.append(f"{path.name}:{call.lineno}")
    assert broken == []


def test_no_value_of_a_rules_sentence_is_called_like_a_remedy() -> None:
    """The page of a rule reads its remedies from the constants of its code, which names of arguments are too."""
    for path in (ROOT / "src" / "unstuck" / "rules").glob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id in ("say", "say_many"):
                assert not REMEDIES.keys() & {keyword.arg for keyword in call.keywords}, f"{path.name}:{call.lineno}"


def test_every_translation_can_be_filled_in(texts: list[Any]) -> None:
    formats = string.Formatter()
    with speaking("zh"):
        for one in texts:
            pair = one.text if isinstance(one.text, tuple) else (one.text, one.text)
            fields = [(name, spec) for _, name, spec, _ in formats.parse(pair[0] + pair[1]) if name]
            values = {name: 2 if name == "number" else 3.0 if spec else "x" for name, spec in fields}
            told = (
                many(*pair, 2, **{k: v for k, v in values.items() if k != "number"})
                if pair[0] != pair[1]
                else tell(pair[0], **values)
            )
            assert told
            assert "{" not in told


# ---------------------------------------------------------------------- saying


def test_english_is_as_it_is_written() -> None:
    sentence = say("{layer} is {share} dead; {rate:g} and {rate:+.2f}", layer="net.0", share="50%", rate=3.0)
    assert sentence == "net.0 is 50% dead; 3 and +3.00"
    assert translated(sentence) == sentence
    assert json.dumps({"says": sentence}) == '{"says": "net.0 is 50% dead; 3 and +3.00"}'


def test_a_sentence_is_said_again_with_its_parts() -> None:
    inner = say("the loss is {last}, chance {chance}", last="2.30", chance="2.30")
    sentence = say("{says}; the loader does not shuffle", says=inner)
    assert sentence == "the loss is 2.30, chance 2.30; the loader does not shuffle"
    with speaking("zh"):
        assert translated(sentence) == "损失为 2.30，随机水平 2.30；数据加载器没有打乱顺序"
    assert translated(sentence) == sentence


@pytest.mark.parametrize(
    "name", ["loss", "the network", "no layer", "{layer}", "{", "}}", "{0}", "{x.__class__}", "%s", "损失"]
)
def test_names_of_the_users_are_neither_translated_nor_filled_in(name: str) -> None:
    sentence = say("{name} has no slope", name=name)
    assert sentence == f"{name} has no slope"
    with speaking("zh"):
        assert translated(sentence) == f"{name} 没有斜率"
        assert translated(name) == name
        assert words.clean(name) == name
        assert names([name, name]) == f"{name} and {name}"
        assert translated(names([name, name])) == f"{name} 和 {name}"


def test_one_and_many() -> None:
    assert [many("{number} layer", "{number} layers", n) for n in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]
    assert [words.plural(n, "batch") for n in (1, 2)] == ["1 batch", "2 batches"]
    assert words.plural(2, "epoch") == "2 epochs"
    with speaking("zh"):
        assert [many("{number} layer", "{number} layers", n) for n in (0, 1, 2)] == ["0 层", "1 层", "2 层"]
        assert translated(say_many("{number} step", "{number} steps", 1)) == "1 步"
        assert many("{number} gnu", "{number} gnus", 2) == "2 gnus"


def test_what_has_no_translation_stays_english() -> None:
    with speaking("zh"):
        assert tell("nobody {verb} this", verb="says") == "nobody says this"
        assert language._("nobody says this") == "nobody says this"
        assert language._("") == ""


def test_texts_in_a_row_are_translated_each_for_itself() -> None:
    row = joined(["a", say("the model"), say("no layer")], say(", "))
    assert row == "a, the model, no layer"
    assert joined([]) == ""
    with speaking("zh"):
        assert translated(row) == "a，模型，没有任何层"


def test_sentences_of_a_record_are_looked_up_as_a_whole_or_by_their_template() -> None:
    whole = stored("the batch size is unknown")
    pattern = marked("eigenvalues from {bottom} (± {bottom_error}) to {top} (± {top_error})")
    made = stored("eigenvalues from -0.1 (± 0.02) to 3 (± 0.1)", pattern)
    assert (whole, made) == ("the batch size is unknown", "eigenvalues from -0.1 (± 0.02) to 3 (± 0.1)")
    assert stored("some {brace} of others'", pattern) == "some {brace} of others'"
    with speaking("zh"):
        assert translated(whole) == "批大小未知"
        assert translated(made) == "特征值从 -0.1（± 0.02）到 3（± 0.1）"
        assert translated(stored("some {brace} of others'", pattern)) == "some {brace} of others'"


def test_a_finding_keeps_its_sentence_through_what_is_done_with_it() -> None:
    finding = Finding("dead-units", "dead-units", "error", 0.9, say("{name} has no slope", name="a"))
    moved = dataclasses.replace(finding, severity="note")
    assert isinstance(moved.says, Said)
    assert to_json(Verdict("sick", (moved,)))["findings"][0]["says"] == "a has no slope"
    with speaking("zh"):
        assert translated(moved.says) == "a 没有斜率"
        assert to_json(Verdict("sick", (moved,)))["findings"][0]["says"] == "a has no slope"


def test_what_a_stored_sentence_was_filled_with_is_not_looked_up() -> None:
    """The network may be wrapped by a class that is called as a word of the catalogue."""
    sentence = stored("the network is wrapped by loss", "the network is wrapped by {wrappers}")
    with speaking("zh"):
        assert translated(sentence) == "网络被 loss 包装"
        assert translated(stored("")) == ""
        assert translated(stored("x" * 100_000 + "{", "a {b} c {d} e {f}")) == "x" * 100_000 + "{"


# ---------------------------------------------------------------------- which language


@pytest.mark.parametrize(
    ("asked", "code"),
    [("en", "en"), ("zh", "zh"), ("zh_CN", "zh"), ("zh-Hans", "zh"), ("ZH", "zh"), ("en_GB.UTF-8", "en")],
)
def test_languages_are_known_by_several_names(asked: str, code: str) -> None:
    assert known(asked) == code


def test_an_unknown_language_is_refused_with_those_there_are() -> None:
    with pytest.raises(MisuseError, match=r"there is no language 'xx'; there are en \(English\), zh \(简体中文\)"):
        known("xx")


def test_the_environment_decides_where_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSTUCK_LANG", raising=False)
    assert known(None) == "en"
    monkeypatch.setenv("UNSTUCK_LANG", "zh")
    assert known(None) == "zh"
    assert known("en") == "en"
    monkeypatch.setenv("UNSTUCK_LANG", "")
    assert known(None) == "en"
    monkeypatch.setenv("UNSTUCK_LANG", "xx")
    with pytest.raises(MisuseError, match="UNSTUCK_LANG: there is no language 'xx'"):
        known(None)
    assert spoken() == "en"


def test_without_a_context_that_of_the_environment_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSTUCK_LANG", "zh_CN.UTF-8")
    assert language._("the model") == "模型"
    with speaking("en"):
        assert language._("the model") == "the model"


def test_a_language_is_spoken_in_its_context_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSTUCK_LANG", raising=False)
    seen = []
    with speaking("zh"):
        thread = threading.Thread(target=lambda: seen.append(spoken()))
        thread.start()
        thread.join()
        with speaking("en"):
            seen.append(spoken())
        seen.append(spoken())
    seen.append(spoken())
    assert seen == ["en", "en", "zh", "en"]
    with pytest.raises(ZeroDivisionError), speaking("zh"):
        raise ZeroDivisionError
    assert spoken() == "en"


# ---------------------------------------------------------------------- reports


class _Ascii(io.StringIO):
    encoding = "ascii"  # pyright: ignore[reportAssignmentType]


def _shown(verdict: Verdict, record: Record, *, columns: int = 80, file: io.StringIO | None = None) -> list[str]:
    file = file or io.StringIO()
    Console(file=file, width=columns, legacy_windows=False).print(terminal.render(verdict, record))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def _records() -> dict[str, Record]:
    steps = 200
    loss, falls = [2.3] * steps, [2.3 * 0.95**i for i in range(steps)]
    task = {
        "task": {
            "kind": "classification",
            "score": "accuracy",
            "chance_score": 0.1,
            "chance_loss": 2.3,
            "num_classes": 10,
        }
    }
    return {
        "nothing": Record.of(),
        "unseen": Record.of(not_found=["no layer was seen", "the batch size is unknown"]),
        "few": Record.of({("loss", ""): [2.3, 2.2]}),
        "stuck": Record.of({("loss", ""): loss, ("score", ""): [0.1] * steps}, **_parts(task)),
        "healthy": Record.of({("loss", ""): falls, ("score", ""): [1 - 0.9 * loss / 2.3 for loss in falls]}, **_parts(task)),
        "broken": Record.of(
            {("loss", ""): [2.3] * 50 + [float("nan")] * 10},
            events=[Event(50, "non-finite", "fc", {"what": "activation", "op": "log", "before": 3.0})],
            **_parts(task),
        ),
    }  # fmt: skip


def _parts(parts: dict[str, Any]) -> dict[str, Any]:
    from unstuck.evidence import Task

    return {"task": Task(**parts["task"])}


@pytest.mark.parametrize("name", list(_records()))
def test_a_report_in_chinese_has_no_english_sentence_and_fits(name: str) -> None:
    record = _records()[name]
    verdict = diagnose(record)
    with speaking("zh"):
        lines = _shown(verdict, record)
    text = "\n".join(lines)
    assert CHINESE.search(text)
    assert not ENGLISH.search(text), ENGLISH.search(text)
    assert all(cell_len(line) <= 80 for line in lines)


def test_a_console_with_nothing_but_ascii_is_told_in_english() -> None:
    record = _records()["stuck"]
    verdict = diagnose(record)
    english = _shown(verdict, record, file=_Ascii())
    with speaking("zh"):
        assert _shown(verdict, record, file=_Ascii()) == english


def test_json_is_english_whatever_is_spoken() -> None:
    record = _records()["broken"]
    english = json.dumps(to_json(diagnose(record)))
    with speaking("zh"):
        assert json.dumps(to_json(diagnose(record))) == english


def test_every_cause_has_its_words() -> None:
    with speaking("zh"):
        assert all(CHINESE.search(language._(meaning)) for meaning in CAUSES.values())
        assert all(
            CHINESE.search(language._(signal.words)) or name == "dropout" for name, signal in words.SIGNALS.items()
        )


def test_what_the_watcher_could_not_see_is_told_in_the_language() -> None:
    with speaking("zh"):
        assert words.not_found(_records()["unseen"]) == ["没有看到任何层", "批大小未知"]
        assert words.not_found(Record.of(not_found=["a sentence of a newer watcher"])) == [
            "a sentence of a newer watcher"
        ]


# ---------------------------------------------------------------------- the command line


def test_commands_take_a_language(capsys: pytest.CaptureFixture[str]) -> None:
    from unstuck.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["explain", "--lang", "zh", "dead-units"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert "ReLU 类单元在每个样本上都为零" in told
    assert "如何区分" in told
    assert spoken() == "en"


def test_a_command_refuses_a_language_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    from unstuck.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["rules", "--lang", "tlh"])
    assert ended.value.code == 2
    assert "there is no language 'tlh'" in capsys.readouterr().err
