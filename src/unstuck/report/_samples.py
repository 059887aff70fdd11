"""Small pictures of samples: thumbnails as PNG, series as lines, text and numbers as they are; all inline."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from unstuck.report._words import clean, number

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {1: 0, 3: 2}  # PNG's types of colour: grey, and red, green and blue
_LARGEST = 128  # pixels to a side, that a page shows
_LONGEST = 300


def png(pixels: np.ndarray) -> bytes:
    """A picture as a PNG file.

    Args:
        pixels: 8 bits each, shape `(height, width, 1 or 3)`.

    Source:
        ISO/IEC 15948, without filters.
    """
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1).astype(np.uint8)], axis=1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def drawn(sketch: Mapping[str, Any] | None, says: str) -> Markup:
    """A sample's input (`unstuck.data.sketch`) as HTML.

    Args:
        sketch: As it was read from a record or a file; what isn't one becomes a dash.
        says: What it is, for those who don't see it.
    """
    if not isinstance(sketch, Mapping):
        return Markup('<span class="none">–</span>')
    kind = sketch.get("kind")
    if kind == "image" and (pixels := _pixels(sketch)) is not None:
        address = base64.b64encode(png(pixels)).decode()
        return Markup('<img class="thumb" src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">').format(
            address, clean(says), pixels.shape[1], pixels.shape[0]
        )
    if kind == "series" and (lines := _lines(sketch)):
        return _series(lines, says)
    if kind == "text":
        cut = "…" if sketch.get("cut") else ""
        return Markup('<span class="words">{}{}</span>').format(clean(sketch.get("text"))[:_LONGEST], cut)
    values = [v for v in sketch.get("numbers") or () if v is None or isinstance(v, (int, float))]
    told = ", ".join(number(v) for v in values)
    return Markup('<code class="numbers-of">{}{}</code>').format(told or "–", "" if len(values) < 12 else ", …")


def _pixels(sketch: Mapping[str, Any]) -> np.ndarray | None:
    """None where size and data don't fit."""
    shape = tuple(sketch.get(name) for name in ("height", "width", "channels"))
    if not all(isinstance(size, int) for size in shape) or shape[2] not in _COLOURS:
        return None
    height, width, channels = (int(size or 0) for size in shape)
    try:
        data = base64.b64decode(str(sketch.get("data")), validate=True)
    except (binascii.Error, ValueError):
        return None
    fits = 0 < height <= _LARGEST and 0 < width <= _LARGEST and len(data) == height * width * channels
    return np.frombuffer(data, np.uint8).reshape(height, width, channels) if fits else None


def _lines(sketch: Mapping[str, Any]) -> list[np.ndarray]:
    found = sketch.get("lines")
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    lines = [np.array([np.nan if v is None else v for v in line], np.float64) for line in found if len(line) > 1]
    return [line for line in lines if np.isfinite(line).any()]


def _series(lines: Sequence[np.ndarray], says: str) -> Markup:
    """Lines over one range, with gaps where there is no number."""
    both = np.concatenate(lines)
    low, high = float(np.nanmin(both)), float(np.nanmax(both))
    paths = []
    for i, line in enumerate(lines):
        heights = 23 - 22 * ((line - low) / (high - low) if high > low else np.full(len(line), 0.5))
        across, broken, path = np.linspace(0, 100, len(line)), True, []
        for x, y in zip(across.tolist(), heights.tolist(), strict=True):
            if np.isfinite(y):
                path.append(f"{'M' if broken else 'L'}{x:.4g} {y:.4g}")
            broken = not np.isfinite(y)
        shape = Markup('<path class="line-{}" d="{}" fill="none" vector-effect="non-scaling-stroke"/>')
        paths.append(shape.format(i, "".join(path)))
    return Markup(
        '<svg class="series" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(clean(says), Markup("").join(paths))
