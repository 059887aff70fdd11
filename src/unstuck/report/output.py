"""Where reports go: a file is checked before the run it reports on, and written after it."""

from __future__ import annotations

from pathlib import Path

from unstuck.errors import MisuseError, RecordError


def check(path: str | Path) -> Path:
    """Say at once that a report can't go there, before a long run is spent on it.

    Args:
        path: The file to be written.

    Returns:
        The same as a path.

    Raises:
        MisuseError: `path` is empty, a folder, or in a folder that doesn't exist.
    """
    target = Path(path)
    if not str(path) or target.is_dir():
        raise MisuseError(f"can't write the report to {str(path)!r}: it is a folder; name a file in it")
    if not target.parent.is_dir():
        raise MisuseError(
            f"can't write the report to {str(path)!r}: there is no folder {str(target.parent)!r}; make it"
        )
    return target


def write_text(path: str | Path, text: str) -> None:
    """Write a report, in UTF-8; what was there is replaced.

    Args:
        path: The file to write.
        text: All of it.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses: no permission, a full disk.
    """  # noqa: DOC502
    target = check(path)
    try:
        # A lone surrogate (a file name that is no UTF-8) has no place in UTF-8; better a mark than no report.
        target.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        reason = error.strerror or error
        raise RecordError(f"can't write the report to {str(path)!r}: {reason}; name another file") from error
