"""What the network's inputs look like: size, centre and spread of each feature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from unstuck.evidence import Record

_CENTRED, _UNIT = 0.35, 1.4  # two standard errors of the mean of 32 samples; three of their deviation
_NEARLY = 0.9  # of the features: some have a heavy tail


@dataclass(frozen=True)
class Inputs:
    """Features of one input over the sampled batches.

    Attributes:
        place: Which input.
        mean, std: By feature, shape `(features,)`.
        low, high: By feature, shape `(features,)`.
    """

    place: str
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def size(self) -> float:
        """Root mean square over all features."""
        return float(np.sqrt(np.mean(self.mean**2 + self.std**2))) if len(self.mean) else math.nan

    @property
    def alike(self) -> bool:
        """Whether one scale serves its features: most that vary range over no less than a tenth of the widest."""
        spread = self.high - self.low
        varies = spread[spread > 0]
        return len(varies) > 0 and bool(np.quantile(varies, 0.25, method="lower") >= varies.max() / 10)

    @property
    def off_centre(self) -> float:
        """Typical distance of a feature's mean from 0, in its deviations; features that never vary are left out."""
        varies = self.std > 1e-6 * np.maximum(np.abs(self.mean), 1e-12)
        return float(np.median(np.abs(self.mean[varies]) / self.std[varies])) if varies.any() else math.nan

    @property
    def standardised(self) -> bool:
        """Whether nearly all features that vary, and two at least, have mean 0 and deviation 1, as far as some dozens of samples tell."""
        varies = self.std > 1e-6 * np.maximum(np.abs(self.mean), 1e-12)
        near = (np.abs(self.mean) < _CENTRED) & (self.std > 1 / _UNIT) & (self.std < _UNIT)
        return int(varies.sum()) > 1 and float(np.mean(near[varies])) > _NEARLY


def inputs(record: Record, signal: str = "input") -> list[Inputs]:
    """All inputs whose features were measured, over all samples.

    Args:
        record: The run.
        signal: What the signals begin with: `input` for training, `eval_input` for evaluation.

    Returns:
        One for each place.
    """
    found = []
    for place in record.places(f"{signal}_mean"):
        mean, std, low, high = (_rows(record, f"{signal}_{name}", place) for name in ("mean", "std", "min", "max"))
        size = min(rows.shape[1] for rows in (mean, std, low, high))
        if size:
            mean, std = mean[:, :size], std[:, :size]
            total = np.sqrt(np.mean(std**2, axis=0) + np.var(mean, axis=0))  # within batches and between them
            found.append(Inputs(place, mean.mean(axis=0), total, low[:, :size].min(axis=0), high[:, :size].max(axis=0)))
    return found


def input_size(record: Record) -> float:
    """Root mean square of the largest input, NaN when unknown."""
    return max((i.size for i in inputs(record) if math.isfinite(i.size)), default=math.nan)


def _rows(record: Record, signal: str, place: str) -> np.ndarray:
    """Finite samples of a vector signal, shape `(samples, features)`."""
    rows = [v.values for v in record.vectors(signal, place) if np.isfinite(v.values).all()]
    size = min((len(r) for r in rows), default=0)
    return np.stack([r[:size] for r in rows]).astype(np.float64) if size else np.zeros((0, 0))
