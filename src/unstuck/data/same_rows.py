"""Which samples are equal: what a split takes as `groups` to keep them together, and a check for leaks looks for.

Rows are hashed, and compared number by number where hashes agree, so that it takes hardly longer than reading them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unstuck.data.samples import as_array, in_memory, is_dataset, samples_of
from unstuck.errors import MisuseError

CHUNK = 2**16  # words of 8 bytes that are hashed at once: 512 kB, which stays in the cache


def same_rows(data: Any, *, decimals: int | None = None, inputs: int | str = 0) -> NDArray[np.int64]:
    """For each sample the first that has equal inputs, itself if none before it has. As `groups` of a split they stay together.

    Samples of arrays, tensors and of datasets made of these are compared number by number where their hashes agree. Those of other
    datasets are asked for one by one, and told apart by hashes of 128 bits. Missing values (NaN) are equal to each other.

    Args:
        data: All samples: an array, a tensor or a dataset, without random augmentation.
        decimals: Numbers are rounded so before they are compared. Two that differ by little are then equal unless a rounding
            boundary lies between them; the wider the steps, the rarer that is.
        inputs: Where inputs are in a sample that has others beside them.

    Returns:
        The number of that sample, for each.

    Raises:
        MisuseError: The data have no numbered samples, or are of a type that can't be compared.

    Example:
        >>> same_rows(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]), decimals=3)
        array([0, 1, 0])
    """  # noqa: DOC502
    rows = _rows(data, decimals, inputs)
    return _first_equal(rows, decimals, np.arange(len(rows)))


def num_samples(data: Any) -> int:
    """How many numbered samples there are.

    Args:
        data: An array, a tensor or a dataset.

    Returns:
        Their number.

    Raises:
        MisuseError: It is none of these.
    """
    if is_dataset(data) or hasattr(data, "__array__"):
        return len(data)
    raise MisuseError(f"{type(data).__name__} is no array, tensor or dataset with numbered samples")


def _rows(data: Any, decimals: int | None, inputs: int | str) -> np.ndarray:
    """One row per sample: its numbers, or their digest where they aren't in memory.

    Raises:
        MisuseError: They are of a type the bytes of which don't tell what is equal.
    """
    num_samples(data)
    whole = in_memory(data, inputs)
    if whole is None:
        digests = b"".join(_digest(as_array(sample), decimals) for sample in samples_of(data, inputs))
        return np.frombuffer(digests, np.uint64).reshape(-1, 2)
    rows = as_array(whole).reshape(len(whole), int(np.prod(whole.shape[1:])))
    kind = rows.dtype.kind
    if kind == "V" or rows.itemsize > {"f": 8, "c": 16}.get(kind, rows.itemsize):
        raise MisuseError(f"rows of type {rows.dtype} can't be compared; give strings or numbers, at most float64")
    return rows.astype(str) if kind == "O" else rows


def _digest(sample: np.ndarray, decimals: int | None) -> bytes:
    exact = {"f": np.float64, "i": np.int64, "u": np.int64}.get(
        sample.dtype.kind
    )  # one sample may be of another precision
    row = np.atleast_1d(sample).reshape(1, -1)
    words = _words(row if exact is None else row.astype(exact), decimals)
    return hashlib.blake2b(words.tobytes(), digest_size=16, salt=str(sample.shape).encode()[:16]).digest()


def _words(rows: np.ndarray, decimals: int | None) -> NDArray[np.uint64]:
    """Rows as words of 8 bytes that are equal exactly where rows are."""
    if rows.dtype.kind in "fc":
        rows = rows + 0.0 if decimals is None else np.round(rows, decimals) + 0.0  # -0.0 becomes 0.0
        missing = np.isnan(rows)
        if missing.any():
            rows[missing] = np.nan
    raw = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    width = -raw.shape[1] % 8
    return np.ascontiguousarray(np.pad(raw, ((0, 0), (0, width))) if width else raw).view(np.uint64)


def _hashes(rows: np.ndarray, decimals: int | None) -> NDArray[np.uint64]:
    """A hash of each row: words mixed each in its own way, and summed."""
    hashes = np.zeros(len(rows), np.uint64)
    odd: NDArray[np.uint64] = np.zeros(0, np.uint64)
    for part in _parts(rows):
        words = np.ascontiguousarray(_words(rows[part], decimals).T)
        if len(odd) != len(words):
            odd = np.random.default_rng(0).integers(2**64, size=len(words), dtype=np.uint64) | np.uint64(1)
        words ^= words >> np.uint64(32)
        words *= odd[:, None]
        words ^= words >> np.uint64(29)
        hashes[part] = words.sum(axis=0)
    return hashes


def _first_equal(rows: np.ndarray, decimals: int | None, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of the chosen rows, in ascending order, the first of them that is equal to it."""
    hashes = _hashes(rows[chosen] if len(chosen) < len(rows) else rows, decimals)
    order = np.argsort(hashes)
    ranked = hashes[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])[: len(ranked)])
    found = chosen.copy()
    if len(starts) == len(ranked):
        return found
    leaders = np.repeat(np.minimum.reduceat(order, starts), np.diff(starts, append=len(ranked)))
    follows = leaders != order
    others, leaders = order[follows], leaders[follows]
    equal = _equal(rows, chosen[others], chosen[leaders], decimals)
    found[others[equal]] = chosen[leaders[equal]]
    differ = np.sort(others[~equal])  # their hash is another's by chance
    if len(differ):
        found[differ] = _first_equal(rows, decimals, chosen[differ])
    return found


def _equal(
    rows: np.ndarray, some: NDArray[np.int64], others: NDArray[np.int64], decimals: int | None
) -> NDArray[np.bool_]:
    """Which rows are equal to others."""
    equal = np.ones(len(some), bool)
    for part in _parts(rows, len(some)):
        equal[part] = (_words(rows[some[part]], decimals) == _words(rows[others[part]], decimals)).all(axis=1)
    return equal


def _parts(rows: np.ndarray, num_rows: int | None = None) -> Iterator[slice]:
    """All rows, some at a time."""
    size = max(1, 8 * CHUNK // max(1, rows.shape[1] * rows.itemsize))
    return (slice(start, start + size) for start in range(0, len(rows) if num_rows is None else num_rows, size))
