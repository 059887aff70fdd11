"""How far a mean of few numbers may be off: Student's distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def quantile(freedom: int) -> float:
    """How many standard errors the 95% interval reaches to either side, for so many degrees of freedom, one at least.

    Example:
        >>> quantile(2), round(quantile(60), 2)
        (4.303, 2.0)
    """
    return _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.4 / freedom


def half_width(samples: Sequence[float]) -> float:
    """Half the width of the 95% interval of the mean of some samples; infinite for fewer than two.

    Example:
        >>> round(half_width([1.0, 2.0, 3.0]), 3)  # 4.303 / sqrt(3)
        2.484
    """
    count = len(samples)
    if count < 2:
        return math.inf
    mean = math.fsum(samples) / count
    variance = math.fsum((s - mean) ** 2 for s in samples) / (count - 1)
    return quantile(count - 1) * math.sqrt(variance / count)
