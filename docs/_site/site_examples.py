"""How griffe is to read our docstrings: one `Example:`, and programs that stand in a module's docstring as they are."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

_BEGINS = re.compile(r"^(import \w|from [\w.]+ import )")


class Examples(griffe.Extension):
    """Gives `Example:` the name that griffe knows, else it would be prose, and fences programs."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the docstring of an object."""
        if obj.docstring is None:
            return
        text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        obj.docstring.value = _fenced(text) if obj.is_module else text


def _fenced(text: str) -> str:
    """Text with the program in it, from its first import to the last paragraph that is still Python, as a block of code."""
    parts = text.split("\n\n")
    first = next((i for i, part in enumerate(parts) if _BEGINS.match(part)), None)
    if first is None:
        return text
    last = max((end for end in range(first + 1, len(parts) + 1) if _is_python(parts[first:end])), default=first)
    program = "\n\n".join(parts[first:last])
    return "\n\n".join([*parts[:first], f"```python\n{program}\n```", *parts[last:]]) if last > first else text


def _is_python(parts: list[str]) -> bool:
    try:
        ast.parse("\n\n".join(parts))
    except SyntaxError:
        return False
    return True
