"""Text broken into lines where a reader of its language would break it.

Rich breaks at spaces alone. Chinese has none, so a sentence of it would count as one long word: it would begin on a line of its own and
be cut anywhere. It may be broken between any two characters, but not before closing punctuation, nor after what opens.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_NEVER_FIRST = frozenset("，。；：、！？）」』》”’…—%,.;:!?)]}")
_NEVER_LAST = frozenset("（「『《“‘([{")


def wrapped(text: Text, console: Console, width: int) -> list[Text]:
    """The lines of a text.

    Args:
        text: Any text; its line ends are kept.
        console: What it is printed on.
        width: Columns a line may fill.

    Returns:
        The lines, without the space they were broken at. A text without wide characters is broken as rich does.
    """
    if not any(_is_wide(character) for character in text.plain):
        return list(text.wrap(console, width))
    return [line for paragraph in text.split("\n", allow_blank=True) for line in _broken(paragraph, width)]


def _broken(text: Text, width: int) -> list[Text]:
    lines = list(text.divide(_breaks(text.plain, width)))
    for line in lines[:-1]:
        line.rstrip()
    return lines


def _breaks(text: str, width: int) -> list[int]:
    """Where lines begin but for the first."""
    found, start, last, used = [], 0, 0, 0
    for i, character in enumerate(text):
        if i > start and _may_break(text[i - 1], character):
            last = i
        used += cell_len(character)
        if used > width and not character.isspace():
            start = last if last > start else i
            found.append(start)
            used = cell_len(text[start : i + 1])
    return found


def _may_break(before: str, after: str) -> bool:
    if after.isspace() or after in _NEVER_FIRST or before in _NEVER_LAST:
        return False
    return before.isspace() or _is_wide(before) or _is_wide(after)


def _is_wide(character: str) -> bool:
    return cell_len(character) == 2
