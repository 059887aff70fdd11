"""How the rules' sentences say numbers, shares and names."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float) -> str:
    """A measured number, short: "2.30", "3e-07", "NaN"."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def share(value: float) -> str:
    """A share from 0 to 1 as a percentage: "31%", "0.4%"."""
    if not math.isfinite(value):
        return number(value)
    if 0 < value < 0.001:
        return "<0.1%"
    if 0.995 <= value < 1:
        return f"{math.floor(1000 * value) / 10:.1f}%"
    return f"{100 * value:.1f}%" if 0 < value < 0.0995 else f"{100 * value:.0f}%"


def names(places: Sequence[str], most: int = 3) -> str:
    """A list of names in a sentence: "fc1, fc2 and fc3", "conv1, conv2 and 7 more"."""
    if not places:
        return "no layer"
    if len(places) == 1:
        return places[0]
    if len(places) <= most:
        return f"{', '.join(places[:-1])} and {places[-1]}"
    return f"{', '.join(places[: most - 1])} and {len(places) - most + 1} more"


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 step", "20 steps", "3 batches"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}es" if noun.endswith(("s", "x", "ch")) else f"{count} {noun}s"


def shape(size: Sequence[int]) -> str:
    """A shape as Python writes it: "(32, 1)"."""
    return str(tuple(int(n) for n in size))
