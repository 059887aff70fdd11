"""Which decisions mattered: how much of the differences between children goes with each.

Quality becomes ranks, with all that failed at the bottom, so that one child that is out of all proportion counts no more than any other. A
decision's values part the children into groups: the options of a choice, equal parts of a range, each link of some by itself. Its share is
how much of the ranks' variance lies between its groups, less what as many groups would take up by chance. Decisions are taken one after
the other, the strongest first, and each explains what those before it have left; so they add up to 1 at most, and what only goes
along with another one gets nothing. What remains is interplay of several decisions, and chance.

A decision that is drawn only now and then is judged among the children that have it: that they have it is what another one decided.

Children that a sampler proposed are like the best ones before them in every respect, also in those that don't matter, which then look as if
they did. So those that were drawn at random are judged by, where there are enough of them.

Source:
    The adjusted share is Kelley 1935, "An Unbiased Correlation Ratio Measure" (epsilon squared); among such it is biased the least (Okada
    2013, "Is Omega Squared Less Biased?"). On ranks it is that of Kruskal and Wallis 1952. A decision counts where it is beyond what the
    largest of all reaches in 5% of permutations (Westfall and Young 1993, the single-step maxT): there are many decisions, and the best of
    many looks good by chance. These are main effects, as in the functional ANOVA of Hutter et al. 2014, "An Efficient Approach for
    Assessing Hyperparameter Importance", but of the children themselves, and not of a forest that was fitted to them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unstuck.search.answer import Child

ENOUGH = 20  # children at random, to do without the others
FEWEST = 8  # children that have a decision, to say anything of it
RARE = 3  # children with an option, to be a group of their own
PERMUTATIONS = 199
LEVEL = 0.05
_PARTS = (3, 6)  # of a range: the fewest, the most
_ABSENT: Any = object()  # a child doesn't have the decision; None is a value like others


@dataclass(frozen=True)
class Importance:
    """How much a decision mattered.

    Attributes:
        name: Of the decision.
        share: Of the variance of the children's ranks, from 0 to 1; 0 where it can't be told from chance.
    """

    name: str
    share: float


def importance(children: Sequence[Child], *, seed: int = 0) -> list[Importance]:
    """How much of the differences in quality goes with each decision.

    Args:
        children: Of all arms; those under way are left out.
        seed: Of the permutations.

    Returns:
        All decisions, the most important first, those that can't be told from chance as they were drawn.

    Example:
        >>> importance([])
        []
    """
    over = [c for c in children if c.status]
    shares = dict.fromkeys((name for child in over for name in child.point.values), 0.0)
    by_chance = [c for c in over if c.origin == "random"]
    judged = by_chance if len(by_chance) >= ENOUGH else over
    columns = [
        c for name in shares for c in _columns(name, [child.point.values.get(name, _ABSENT) for child in judged])
    ]
    if columns:
        for name, share in _explained(columns, _ranks([c.quality for c in judged]), seed):
            shares[name] += share
    return sorted((Importance(name, share) for name, share in shares.items()), key=lambda i: -i.share)


@dataclass(frozen=True)
class _Column:
    """How a decision, or one link of it, parts the children.

    Attributes:
        name: Of the decision.
        groups: The group of each child, from 0 on; -1 for those that don't have it.
    """

    name: str
    groups: np.ndarray


def _columns(name: str, values: list[Any]) -> Iterator[_Column]:
    """The columns of a decision, those that part the children at all."""
    links = max((len(v) for v in values if isinstance(v, list | tuple)), default=0)
    several = [[v[i] if v is not _ABSENT and i < len(v) else _ABSENT for v in values] for i in range(links)] or [values]
    for each in several:
        groups = _groups(each)
        if (groups >= 0).sum() >= FEWEST and groups.max() > 0:
            yield _Column(name, groups)


def _groups(values: list[Any]) -> np.ndarray:
    """Equal parts of numbers where they are many; else one for each value, those that are rare together."""
    known = [v for v in values if v is not _ABSENT]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
    few, most = _PARTS
    parts = min(most, max(few, len(known) // 10))
    if numbers and len(set(known)) > parts:
        edges = np.unique(np.quantile(known, np.arange(1, parts) / parts))
        return _numbered([-1 if v is _ABSENT else int(np.searchsorted(edges, v, side="right")) for v in values])
    times = Counter(map(repr, known))
    common = {value: i for i, value in enumerate(v for v, count in times.items() if count >= RARE)}
    return _numbered([-1 if v is _ABSENT else common.get(repr(v), len(common)) for v in values])


def _numbered(groups: list[int]) -> np.ndarray:
    """Groups from 0 on, without gaps."""
    found = {group: i for i, group in enumerate(sorted({g for g in groups if g >= 0}))}
    return np.array([found.get(g, -1) for g in groups])


def _ranks(qualities: list[float]) -> np.ndarray:
    """Ranks about their mean, the same for the same quality."""
    told = np.array([q if math.isfinite(q) else -math.inf for q in qualities])
    _, which, counts = np.unique(told, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    return middle[which] - (len(told) + 1) / 2


def _explained(columns: list[_Column], ranks: np.ndarray, seed: int) -> Iterator[tuple[str, float]]:
    """Names of decisions and what each explains of what those before it have left, the strongest first."""
    total, left, rng = float(ranks @ ranks), ranks.copy(), np.random.default_rng(seed)
    while columns and total > 0:
        table = _Table(columns)
        between, within = table.variation(left[None])
        chance, _ = table.variation(np.stack([rng.permutation(left) for _ in range(PERMUTATIONS)]))
        gain = (between - table.freedom * within / table.rest)[0] / total
        beyond = _beyond(between[0], chance) & (gain > 0)
        if not beyond.any():
            return
        best = int(np.argmax(np.where(beyond, gain, -1.0)))
        yield columns[best].name, float(gain[best])
        left = _without(left, columns[best].groups)
        columns = [c for i, c in enumerate(columns) if i != best]


def _beyond(between: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Which columns reach what the largest of all reaches in few permutations, in units of their own deviation."""
    mean, deviation = chance.mean(0), np.maximum(chance.std(0), 1e-12)
    largest = np.sort(((chance - mean) / deviation).max(1))
    return (between - mean) / deviation > largest[math.ceil((1 - LEVEL) * (PERMUTATIONS + 1)) - 1]


def _without(left: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """What is left when each group has the mean of all of them."""
    left, have = left.copy(), groups >= 0
    mean = left[have].mean()
    for group in range(groups.max() + 1):
        left[groups == group] += mean - left[groups == group].mean()
    return left


class _Table:
    """The columns as one matrix, for the sums of squares of many orders of the ranks at once.

    Args:
        columns: Of all decisions.

    Attributes:
        freedom: Degrees of freedom between the groups, by column.
        rest: Within them.
    """

    def __init__(self, columns: list[_Column]) -> None:
        counts = [c.groups.max() + 1 for c in columns]
        self._member = (
            np.concatenate([c.groups[:, None] == np.arange(n) for c, n in zip(columns, counts, strict=True)], 1) * 1.0
        )
        self._have = np.stack([c.groups >= 0 for c in columns], 1) * 1.0
        self._begins = np.cumsum([0, *counts[:-1]])
        self._of_group, self._of_column = self._member.sum(0), self._have.sum(0)
        self.freedom = np.array(counts) - 1
        self.rest = np.maximum(1.0, self._of_column - self.freedom - 1)

    def variation(self, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of squares between and within the groups.

        Args:
            ranks: Shape (orders, children).

        Returns:
            Two of shape (orders, columns).
        """
        middle = (ranks @ self._have) ** 2 / self._of_column
        groups = np.add.reduceat((ranks @ self._member) ** 2 / self._of_group, self._begins, axis=1)
        return groups - middle, ranks**2 @ self._have - groups
