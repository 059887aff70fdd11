"""Values as strict JSON holds them: numpy becomes plain, and NaN and Inf, which JSON doesn't know, become null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """A value as dicts, lists, text and numbers that strict JSON can hold.

    Args:
        value: Numbers, text, and mappings and collections of them; numpy's, too.

    Returns:
        The same with text as keys, lists for all collections, None for numbers that aren't finite, and as text what JSON
        knows nothing of.

    Example:
        >>> plain({"rates": (0.1, math.inf)})
        {'rates': [0.1, None]}
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
    return str(value)
