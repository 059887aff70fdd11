"""Text is broken where a reader of its language would break it, and nothing of it is lost."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from unstuck.report._lines import wrapped


def test_chinese_is_broken_between_characters_and_never_before_a_full_stop() -> None:
    sentence = "net.0 的梯度只有 net.24 的 2.8e-11，中间经过 12 个 sigmoid 层；准确率为 0.156（随机水平 0.306）。" * 3
    for columns in range(12, 60):
        lines = [line.plain for line in wrapped(Text(sentence), Console(width=columns), columns)]
        assert "".join("".join(lines).split()) == "".join(sentence.split())
        assert all(cell_len(line) <= columns for line in lines)
        assert not any(line[0] in "，。；：）" for line in lines)
        assert not any(line.rstrip().endswith("（") for line in lines)
        assert all(cell_len(line) > columns - 10 for line in lines[:-1] if columns > 20)


def test_english_is_broken_as_rich_does() -> None:
    sentence, console = "the gradient of net.0 is 2.8e-11 of that of net.24 " * 4, Console(width=30)
    assert wrapped(Text(sentence), console, 30) == list(Text(sentence).wrap(console, 30))


@pytest.mark.parametrize("sentence", ["", " ", "梯度", "梯度\n损失", "\n", "梯" * 100, "（" * 20 + "）" * 20])
def test_odd_texts_are_kept(sentence: str) -> None:
    lines = [line.plain for line in wrapped(Text(sentence), Console(width=12), 12)]
    assert "".join("".join(lines).split()) == "".join(sentence.split())
    assert all(cell_len(line) <= 12 for line in lines)


def test_styles_are_kept_where_a_line_is_broken() -> None:
    lines = wrapped(Text.assemble("梯度消失", ("沿深度不断缩小", "red"), "学习率"), Console(width=10), 10)
    assert (
        "".join(line.plain[span.start : span.end] for line in lines for span in line.spans if span.style == "red")
        == "沿深度不断缩小"
    )
