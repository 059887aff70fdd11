"""A few lines below a notebook's cell that follow the training while it runs."""

from __future__ import annotations

import html
import logging
import math
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unstuck._language import _, marked, translated
from unstuck.evidence import Series
from unstuck.integrations._growing import Growing
from unstuck.integrations._points import thinned
from unstuck.integrations._sending import Paced
from unstuck.verdict import Verdict

_EVERY = 2.0  # seconds between two updates, at least
_MOST = 200  # points of a curve
_WIDTH, _HEIGHT = 220, 24
_SHOWN = {
    "loss": marked("loss"), "score": marked("score"), "eval_loss": marked("evaluation loss"),
    "eval_score": marked("evaluation score"), "grad_norm": marked("gradient norm"),
}  # fmt: skip
_MARKS = {"sick": "✗", "healthy": "✓", "unknown": "?"}
_ROW = 'style="background:none"'
_CELL = 'style="text-align:left;font-weight:normal;padding:.1em 1em .1em 0;border:0"'
_logger = logging.getLogger("unstuck")


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, in Jupyter or something like it."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)


class Display:
    """The display of one training.

    Args:
        path: File of its record.
    """

    def __init__(self, path: Path) -> None:
        self._growing = Growing(path)
        self._curves: dict[str, Series] = {}
        self._step = 0
        self._paced = Paced(self._look, _EVERY)
        self._id = uuid.uuid4().hex
        self._broken = False

    def start(self) -> None:
        """Shows that it begins, and goes on."""
        self._show(_block(_("training, watched by unstuck"), []), first=True)
        self._paced.start()

    def stop(self, judged: Callable[[], Verdict]) -> None:
        """Ends it, with the verdict in one line.

        Args:
            judged: Gives the judgement over the training; what it raises ends nothing but the display.
        """
        if self._paced.stop() and not self._broken:
            self._guarded(lambda: self._show(_block(_headline(judged()), [])))

    def _look(self) -> None:
        if not self._broken:
            self._guarded(self._go_on)

    def _go_on(self) -> None:
        self._read()
        self._show(self._block())

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a display that fails must not end the training
            self._broken = True
            _logger.warning("unstuck can't show how the training goes: %s: %s", type(error).__name__, error)

    def _read(self) -> None:
        for (signal, place), new in self._growing.new().items():
            if place == "" and signal in _SHOWN and len(new):
                old = self._curves.get(signal, Series.of([]))
                joined = Series(np.append(old.steps, new.steps), np.append(old.values, new.values))
                self._curves[signal] = thinned(joined, _MOST)
                self._step = max(self._step, int(new.steps[-1]))

    def _block(self) -> str:
        rows = [
            f"<tr {_ROW}><th {_CELL}>{html.escape(_(called))}</th><td {_CELL}>{_line(curve)}</td><td {_CELL}>{curve.last:.3g}</td></tr>"
            for name, called in _SHOWN.items()
            if (curve := self._curves.get(name)) is not None
        ]
        return _block(f"{_('training, watched by unstuck')}: {_('step')} {self._step}", rows)

    def _show(self, block: str, *, first: bool = False) -> None:
        from IPython.display import HTML, display, update_display  # pyright: ignore[reportMissingImports]

        (display if first else update_display)(HTML(block), display_id=self._id)


def _headline(verdict: Verdict) -> str:
    told = verdict.findings[0].says if verdict.verdict == "sick" and verdict.findings else verdict.why_unknown
    return f"{_MARKS[verdict.verdict]} {_(verdict.verdict).upper()}" + (f": {translated(told)}" if told else "")


def _block(headline: str, rows: list[str]) -> str:
    table = f'<table style="font-size:inherit;margin:.3em 0 0">{"".join(rows)}</table>' if rows else ""
    return f'<div style="font-size:13px;line-height:1.4;margin:.4em 0">{html.escape(headline)}{table}</div>'


def _line(curve: Series) -> str:
    """The curve as a small drawing, in the colour of the text."""
    values = curve.values
    if values.min() > 0 and values.max() > 100 * values.min():
        values = np.log(values)
    low, high = float(values.min()), float(values.max())
    span = high - low if math.isfinite(high - low) and high > low else 1.0
    first, last = int(curve.steps[0]), int(curve.steps[-1])
    points = " ".join(
        f"{_WIDTH * (step - first) / max(1, last - first):.1f},{_HEIGHT - 1 - (_HEIGHT - 2) * (value - low) / span:.1f}"
        for step, value in zip(curve.steps.tolist(), values.tolist(), strict=True)
    )
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.2"/></svg>'
    )
