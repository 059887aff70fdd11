"""How the rules' sentences say numbers, shares and names."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unstuck._language import Said, joined, plural_of, say, say_many


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
        return say("no layer")
    if len(places) == 1:
        return places[0]
    told = places[:-1] if len(places) <= most else places[: most - 1]
    if len(places) <= most:
        return say("{names} and {last}", names=", ".join(told), last=places[-1])
    return say("{names} and {number} more", names=", ".join(told), number=len(places) - len(told))


def plural(count: int, noun: str) -> Said:
    """A count with its noun: "1 step", "20 steps", "3 batches". The noun is a literal, so that it can be collected."""
    return say_many(f"{{number}} {noun}", f"{{number}} {plural_of(noun)}", count)


def then(says: str, *more: str) -> Said:
    """Clauses of one sentence behind each other: "the loss jumps; accuracy is 0.11"."""
    return joined((says, *more), say("; "))


def both(clauses: Sequence[str]) -> Said:
    """Clauses that belong together: "a", "a and b"."""
    return joined(clauses, say(" and "))


def shape(size: Sequence[int]) -> str:
    """A shape as Python writes it: "(32, 1)"."""
    return str(tuple(int(n) for n in size))
