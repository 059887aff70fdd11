"""The cells of a map: their colours, their shapes as inline SVG, and their code, which the page's script reads back."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from unstuck.report._words import Scale

LEVELS = 16
ZERO, BROKEN, MISSING = -1.0, -2.0, -3.0
# Viridis (van der Walt and Smith 2015), which keeps its order without colour; oranges that start at the page's own ground.
_VIRIDIS = ("440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725")
_LIGHT = ("f4f1ee", "fddcbc", "fda762", "e5651b", "993608", "5c1f03")
_DARK = ("262422", "55351b", "945119", "db7a26", "fdbb80", "fff0e0")
_ALPHABET = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))


def style() -> str:
    """The colours as CSS: `.k0` to `.k15`, for fills and for strokes, in light and in dark."""
    light = _colours(".log", _VIRIDIS) + _colours(".share", _LIGHT)
    dark = _colours(":root:not(.printing) .share", _DARK)
    return f"{light}@media screen and (prefers-color-scheme:dark){{{dark}}}"


def _colours(selector: str, anchors: tuple[str, ...]) -> str:
    known = np.array([[int(anchor[i : i + 2], 16) for i in (0, 2, 4)] for anchor in anchors])
    where = np.linspace(0, len(anchors) - 1, LEVELS)
    mixed = np.stack([np.interp(where, np.arange(len(anchors)), known[:, i]) for i in range(3)], 1).round().astype(int)
    rules = [
        f"{selector} .k{i}{{background:#{r:02x}{g:02x}{b:02x};stroke:#{r:02x}{g:02x}{b:02x}}}"
        for i, (r, g, b) in enumerate(mixed.tolist())
    ]
    return "".join(rules)


def shares(cells: np.ndarray, span: tuple[float, float], scale: Scale) -> np.ndarray:
    """Where cells lie within the span, from 0 to 1; a code below zero where a cell has no place in it."""
    shown = np.isfinite(cells) & ((cells > 0) | (scale == "share"))
    level = np.full(cells.shape, MISSING)
    level[shown] = cells[shown] if scale == "share" else np.log10(cells[shown])
    level[shown] = np.clip((level[shown] - span[0]) / (span[1] - span[0]), 0, 1)
    level[np.isfinite(cells) & ~shown] = ZERO
    level[np.isinf(cells)] = BROKEN
    return level


def drawn(title: str, share: np.ndarray) -> Markup:
    """The cells as SVG, one unit each, to be stretched; of no cells at all a frame for the page's script to draw in."""
    kinds = np.where(share < 0, -1, np.minimum(LEVELS - 1, share * LEVELS)).astype(int)
    layers = [(f"k{i}", kinds == i) for i in range(LEVELS)]
    layers += [("broken", share == BROKEN), ("zero", share == ZERO)]
    paths = Markup("").join(
        Markup('<path class="{}" d="{}"/>').format(mark, _runs(cells)) for mark, cells in layers if cells.any()
    )
    return Markup(
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<g class="drawn" transform="translate(0 .5)">{}</g></svg>'
    ).format(share.shape[1], max(1, len(share)), title, paths)


def _runs(cells: np.ndarray) -> str:
    """Cells as horizontal strokes, neighbours in one."""
    parts = []
    for row, line in enumerate(cells):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        parts += [f"M{start} {row}h{stop - start}" for start, stop in edges.reshape(-1, 2)]
    return "".join(parts)


def encoded(share: np.ndarray, letters: int) -> str:
    """So many letters a cell, which the page's script reads back; the last four codes are for what has no number."""
    most = 64**letters - 4
    codes = np.where(share < 0, most - share, np.round(np.maximum(share, 0) * most)).astype(int)
    return "".join(np.stack([_ALPHABET[codes // 64**i % 64] for i in reversed(range(letters))], -1).ravel().tolist())
