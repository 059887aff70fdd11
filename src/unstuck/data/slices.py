"""Which group of samples does worse than the rest, beyond chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from unstuck.data._intervals import fisher, holm, permuted
from unstuck.data._known import count_missing
from unstuck.data.judging import Judged
from unstuck.data.samples import as_array
from unstuck.errors import MisuseError


@dataclass(frozen=True)
class Slice:
    """How a group of samples does against the rest.

    Attributes:
        name: Of the group.
        count: Samples in it.
        error: Share of them that are wrong (with any answer); of numbers the mean loss.
        rest: The same of all other samples.
        chance: Probability of such a difference, or a larger one, if the group were like the rest; not corrected.
        corrected: The same corrected for the number of groups (Holm).
        worse: It is below 0.05, and the group is worse.
    """

    name: str
    count: int
    error: float
    rest: float
    chance: float
    corrected: float
    worse: bool


def slices(judged: Judged, groups: ArrayLike | Mapping[str, ArrayLike], *, seed: int = 0) -> tuple[Slice, ...]:
    """Each group against all other samples: by Fisher's exact test where samples are right or wrong, else by exchanging members.

    Args:
        judged: How samples were answered.
        groups: Group of each sample, or several such groupings by name.
        seed: Of the exchanges.

    Returns:
        The groups, the least likely by chance first; those that hold all samples are left out.

    Raises:
        MisuseError: Groups aren't one for each sample, or some are missing.
    """
    groupings = groups if isinstance(groups, Mapping) else {"": groups}
    found = []
    for title, values in groupings.items():
        column = as_array(values)
        if column.shape != (judged.num_samples,):
            raise MisuseError(f"groups of shape {column.shape}; one for each of {judged.num_samples} samples is needed")
        if num_missing := count_missing(column):
            raise MisuseError(
                f"{num_missing} of {len(column)} groups are missing (NaN); call them something, such as 'unknown'"
            )
        for name in np.unique(column):
            inside = column == name
            if not inside.all():
                found.append((f"{title} {name}".strip(), *_compared(judged, inside, seed)))
    corrected = holm([chance for *_, chance in found])
    made = [
        Slice(name, count, error, rest, chance, right, right < 0.05 and error > rest)
        for (name, count, error, rest, chance), right in zip(found, corrected, strict=True)
    ]
    return tuple(sorted(made, key=lambda s: (s.corrected, s.chance)))


def _compared(judged: Judged, inside: np.ndarray, seed: int) -> tuple[int, float, float, float]:
    """Samples of a group, its error and that of the rest, and the probability of that by chance."""
    if judged.kind == "regression" or np.any(judged.positions > 1):
        values = judged.losses if judged.kind == "regression" else judged.errors
        group, rest = values[inside], values[~inside]
        return len(group), float(group.mean()), float(rest.mean()), permuted(group, rest, seed)
    wrong, count = int(judged.wrong[inside].sum()), int(inside.sum())
    wrong_rest, count_rest = int(judged.wrong[~inside].sum()), int((~inside).sum())
    return count, wrong / count, wrong_rest / count_rest, fisher(wrong, count, wrong_rest, count_rest)
