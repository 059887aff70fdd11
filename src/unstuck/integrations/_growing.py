"""What is new in a record that another thread still fills: each number once, at the step it was measured at."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unstuck._store_file import opened
from unstuck.evidence import Program, Series

Key = tuple[str, str]
_MOST_VALUES = 999  # in one SQL statement


class Growing:
    """Reads a record on and on. What it costs depends on what is new, not on how long the record is.

    Args:
        path: The record's file.

    Attributes:
        program: What was learned of the script so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.program = Program()
        self._length = -1  # of the program's document
        self._columns: dict[int, list[Key]] = {}
        self._last = 0
        self._open: dict[int, tuple[int, int]] = {}  # the last row of each layout, and its steps: it may still grow

    def new(self) -> dict[Key, Series]:
        """The part of each series that was written since the last call.

        Returns:
            Series by signal and place; none as long as nothing is known of the program.

        Raises:
            RecordError: There is no record.
            sqlite3.Error: It can't be read just now.
        """  # noqa: DOC502
        with opened(self.path) as connection:
            connection.execute("BEGIN")
            try:
                if not self._learn(connection):
                    return {}
                growing = [row for row, _ in self._open.values()][-_MOST_VALUES + 1 :]
                marks = ", ".join("?" * len(growing))
                query = "SELECT id, step, num_steps, layout, data FROM samples"
                rows = connection.execute(
                    f"{query} WHERE id > ? OR id IN ({marks}) ORDER BY id", [self._last, *growing]
                ).fetchall()
            finally:
                connection.execute("ROLLBACK")
        return self._read(rows)

    def _learn(self, connection: sqlite3.Connection) -> bool:
        """Reads the program and the layouts where there is news; false while there is no program."""
        found = connection.execute("SELECT length(document) FROM program").fetchone()
        if found is None:
            return False
        if found[0] != self._length:
            self._length = found[0]
            (document,) = connection.execute("SELECT document FROM program").fetchone()
            self.program = Program.from_json(json.loads(document))
        known = max(self._columns, default=0)
        for number, text in connection.execute("SELECT id, columns FROM layouts WHERE id > ?", [known]):
            self._columns[number] = [(signal, place) for signal, place in json.loads(text)]
        return True

    def _read(self, rows: list[tuple[int, int, int, int, bytes]]) -> dict[Key, Series]:
        parts: dict[Key, list[tuple[np.ndarray, np.ndarray]]] = {}
        for number, step, num_steps, layout, data in rows:
            before, seen = self._open.get(layout, (0, 0))
            skip = seen if number == before else 0
            self._open[layout] = number, num_steps
            self._last = max(self._last, number)
            if skip == num_steps:
                continue
            columns = self._columns[layout]
            values = np.frombuffer(data, "<f4").reshape(num_steps, len(columns))[skip:].astype(np.float64)
            steps = np.arange(step + skip, step + num_steps)
            for i, key in enumerate(columns):
                parts.setdefault(key, []).append((steps, values[:, i]))
        return {key: _joined(found) for key, found in parts.items()}


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> Series:
    steps, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    order = np.argsort(steps, kind="stable")
    return Series(steps[order], values[order])


def whole(series: Mapping[Key, Series]) -> dict[Key, Series]:
    """The finite part of each of these series, those that have one."""
    return {key: found.finite for key, found in series.items() if len(found.finite)}
