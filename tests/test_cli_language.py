"""The command line in Chinese: help, errors of use, and the line on stderr that an error is; English stays what it is."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.cells import cell_len

import unstuck.errors
from unstuck import _language as language
from unstuck._language import speaking, spoken, translated
from unstuck.cli import _WITH_VALUE, _asked, main
from unstuck.cli._commands import FILES, program
from unstuck.cli._examples import EXAMPLES
from unstuck.cli._page import wrapped
from unstuck.cli._usage import known
from unstuck.errors import RecordError, UnstuckError
from unstuck.source import EditError
from unstuck.store import Writer, read

ROOT = Path(__file__).parent.parent
CHINESE = re.compile(r"[\u4e00-\u9fff]")
ENGLISH = re.compile(r"[A-Za-z]{2,}(?:[ ,;:]+[A-Za-z]{2,}){3}")
COMMANDS: Any = typer.main.get_command(program("")).commands  # pyright: ignore[reportAttributeAccessIssue]
MISUSE = [
    (["run", "--nonsense"], "错误：没有选项 --nonsense"),
    (["run", "--jso", "x"], "错误：没有选项 --jso（可能的选项："),
    (["curve"], "错误：没有命令 'curve'。是否想用 'cure'"),
    (["frobnicate"], "错误：没有命令 'frobnicate'。"),
    (["run", "--budget"], "错误：选项 '--budget' 需要一个值。"),
    (["rules", "--json=3"], "错误：选项 '--json' 不接受值。"),
    (["diagnose", "a", "b", "c"], "错误：多出了参数（b c）"),
    (["cure", "--seeds", "abc", "x.py"], "错误：'--seeds' 的值无效：应为整数"),
    (["cure", "--seeds", "1", "x.py"], "错误：'--seeds' 的值无效：应大于或等于 2"),
    (["view", "--port", "99999"], "错误：'--port' 的值无效：应小于或等于 65535"),
]
OURS = [
    (["run", "nothing.py"], "unstuck: 没有文件 'nothing.py'\n"),
    (["diagnose", "nothing"], "unstuck: 没有记录 'nothing'\n"),
    (["explain", "vanishing"], "unstuck: 没有名为 'vanishing' 的原因或规则；是否想用 'vanishing-gradient'？\n"),
    (["run", "--budget", "x", __file__], "unstuck: --budget 为 'x'，但必须是训练用时的占比，例如 2% 或 0.02\n"),
    (["run", "--set", "dead-unit.x=3", __file__], "unstuck: 没有名为 'dead-unit' 的规则；是否想用 'dead-units'？\n"),
    (["cure", "--executor", "inline", "--workers", "3", __file__], "--executor inline 一次只进行一个运行\n"),
    (["rules", "--lang", "tlh"], "unstuck: 没有语言 'tlh'；可用的有 en (English), zh (简体中文)\n"),
]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command says on stdout and stderr, and its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["unstuck"])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("UNSTUCK_LANG", raising=False)

    def run(*argv: str) -> tuple[str, str, Any]:
        with pytest.raises(SystemExit) as ended:
            main(list(argv))
        told = capsys.readouterr()
        return told.out, told.err, ended.value.code

    return run


# ---------------------------------------------------------------------- help


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("name", list(EXAMPLES))
def test_help_has_no_english_sentence_and_fits(
    name: str, columns: int, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSTUCK_LANG", "zh")
    monkeypatch.setenv("COLUMNS", str(columns))
    shown, _err, code = said(*filter(None, [name]), "--help")
    page, examples = shown.split("\n  示例：\n")
    assert code == 0
    assert page.startswith(f"用法：unstuck {name}".rstrip())
    assert not ENGLISH.search(page.partition("\n")[2]), ENGLISH.search(page)
    assert max(map(cell_len, page.splitlines())) <= columns
    assert all(CHINESE.search(line) for line in examples.splitlines())


@pytest.mark.parametrize("name", list(FILES))
def test_all_that_is_said_of_a_command_and_its_options_is_translated(name: str) -> None:
    helps = [parameter.help for parameter in COMMANDS[name].params]
    paragraphs = [" ".join(text.split()) for text in COMMANDS[name].help.split("\n\n")]
    with speaking("zh"):
        assert [text for text in [*helps, *paragraphs] if not CHINESE.search(language._(text))] == []
        assert CHINESE.search(COMMANDS[name].get_short_help_str())


def test_help_is_in_the_language_wherever_it_is_asked_for_and_only_then(said: Any) -> None:
    english = said("run", "--help")
    chinese = said("run", "--lang", "zh", "--help")
    assert english[0].startswith("Usage: ")
    assert chinese[0].startswith("用法：")
    assert said("run", "--help", "--lang=zh") == chinese
    assert said("run", "--help") == english
    assert spoken() == "en"


def test_the_program_without_anything_shows_its_help(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSTUCK_LANG", "zh")
    out, err, _code = said()
    assert (out or err).startswith("用法：")


@pytest.mark.parametrize(
    ("argv", "language"),
    [
        ("run --lang zh train.py", "zh"),
        ("run --budget 2% --lang=zh train.py", "zh"),
        ("cure --workers 4 -q --lang zh train.py", "zh"),
        ("diagnose RUN --lang zh", "zh"),
        ("run train.py --lang zh", None),
        ("run -m train --lang zh", None),
        ("run -- train.py --lang zh", None),
        ("run --json --lang zh", None),
        ("run --lang zh --lang en train.py", "en"),
        ("run --lang", ""),
        ("run", None),
        ("", None),
    ],
)
def test_the_words_behind_a_script_are_its_own(argv: str, language: str | None) -> None:
    assert _asked(argv.split()) == language


def test_every_option_that_takes_a_value_is_known_before_anything_is_parsed() -> None:
    options = [p for command in COMMANDS.values() for p in command.params if p.param_type_name == "option"]
    taking = {name for option in options if not option.is_flag for name in option.opts}
    assert taking - {"-m"} == set(_WITH_VALUE)


# ---------------------------------------------------------------------- lines


def test_chinese_is_broken_between_letters_but_not_before_punctuation() -> None:
    assert wrapped("损失上升，梯度消失。", 9) == ["损失上", "升，梯度", "消失。"]
    assert wrapped("见（见附录）", 4) == ["见", "（见", "附", "录）"]
    assert wrapped("用 unstuck 观察。  [默认：15%]", 18) == ["用 unstuck 观察。", "[默认：15%]"]
    assert wrapped("longer-than-that", 6) == ["longer", "-than-", "that"]
    assert wrapped("", 4) == [""]


@pytest.mark.parametrize("width", range(4, 40))
def test_nothing_of_a_text_is_lost_and_no_line_is_too_long(width: int) -> None:
    text = "脚本、输出 x 和 [一个很长很长很长很长很长很长很长很长很长的默认值] 都在；[a] [b] “引”。"
    lines = wrapped(text, width)
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", text)
    assert all(cell_len(line) <= width for line in lines)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(("argv", "words"), MISUSE)
def test_an_error_of_use_is_told_in_the_language(
    argv: list[str], words: str, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    english = said(*argv)
    monkeypatch.setenv("UNSTUCK_LANG", "zh")
    chinese = said(*argv)
    assert "\nError: " in f"\n{english[1]}"
    assert words in chinese[1]
    assert not ENGLISH.search(chinese[1])
    assert english[2] == chinese[2] == 2
    assert english[0] == chinese[0] == ""
    assert len(english[1].splitlines()) == len(chinese[1].splitlines())


@pytest.mark.parametrize(("argv", "words"), OURS)
def test_an_error_of_ours_is_told_in_the_language(
    argv: list[str], words: str, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    english = said(*argv)
    monkeypatch.setenv("UNSTUCK_LANG", "zh")
    chinese = said(*argv)
    assert english[1].startswith("unstuck: ")
    assert not CHINESE.search(english[1].replace("简体中文", ""))
    assert chinese[1].endswith(words)
    assert english[2] == chinese[2] == 2
    assert chinese[1].count("\n") == 1


def test_an_error_is_english_where_stderr_has_no_other_letters(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    said("run", "--lang", "zh", "nothing.py")
    assert written.getvalue() == b"unstuck: there is no file 'nothing.py'\n"


def test_a_sentence_of_typers_that_is_not_known_stays_english() -> None:
    assert known("Something new in typer.") is None
    assert known("No such option: --x") == "No such option: --x"


def test_an_error_is_english_where_it_is_raised_and_caught(tmp_path: Path) -> None:
    with speaking("zh"):
        with pytest.raises(RecordError) as caught:
            read(tmp_path / "nothing")
        assert str(caught.value) == f"there is no record {str(tmp_path / 'nothing')!r}"
        assert translated(caught.value.says) == f"没有记录 {str(tmp_path / 'nothing')!r}"


def test_a_value_of_an_error_is_not_looked_up(tmp_path: Path) -> None:
    with speaking("zh"), pytest.raises(RecordError) as caught:
        Writer(tmp_path / "the model" / "{path}", meta={})
    with speaking("zh"):
        assert "the model" in translated(caught.value.says)
    assert UnstuckError().says == ""
    assert UnstuckError("plain").says == "plain"


@pytest.mark.parametrize(
    "place", ["cli/*.py", "view/*.py", "_store*.py", "store.py", "_discover.py", "report/output.py", "trials/[!_i]*.py"]
)
def test_errors_that_a_command_can_meet_are_made_by_say(place: str) -> None:
    ours = {name for name, kind in vars(unstuck.errors).items() if isinstance(kind, type)}
    broken = []
    for path in (ROOT / "src" / "unstuck").glob(place):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) in ours:
                words = node.exc.args[0]
                broken += [f"{path.name}:{node.lineno}"] if isinstance(words, (ast.Constant, ast.JoinedStr)) else []
    assert broken == []
    assert EditError.__name__ not in ours  # why a remedy doesn't fit a script: a value
