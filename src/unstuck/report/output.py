"""Where reports go: a file is checked before the run it reports on, and written after it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from unstuck._language import say
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
        raise MisuseError(say("can't write the report to {path!r}: it is a folder; name a file in it", path=str(path)))
    if not target.parent.is_dir():
        raise MisuseError(
            say(
                "can't write the report to {path!r}: there is no folder {folder!r}; make it",
                path=str(path),
                folder=str(target.parent),
            )
        )
    return target


def write_text(path: str | Path, text: str) -> None:
    """Write a report, in UTF-8; a plain file is replaced as a whole or not at all.

    Args:
        path: The file to write.
        text: All of it.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses: no permission, a full disk.
    """  # noqa: DOC502
    target = check(path)
    # A lone surrogate (a file name that is no UTF-8) has no place in UTF-8; better a mark than no report.
    content = text.encode("utf-8", errors="replace")
    try:
        if target.is_symlink() or (target.exists() and not target.is_file()):
            target.write_bytes(content)  # what a link, such as /dev/stdout, leads to; a device; a pipe: never replaced
        else:
            _replace(target, content)
    except OSError as error:
        reason = error.strerror or error
        raise RecordError(
            say("can't write the report to {path!r}: {reason}; name another file", path=str(path), reason=reason)
        ) from error


def write_json(path: str | Path, told: Any) -> None:
    """Write a report as strict JSON, as `write_text` does.

    Args:
        path: The file to write.
        told: Plain dicts, lists, text and finite numbers.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses: no permission, a full disk.
    """  # noqa: DOC502
    write_text(path, strict_json(told))


def strict_json(told: Any) -> str:
    """A report as strict JSON for people to read too.

    Args:
        told: Plain dicts, lists, text and finite numbers.

    Returns:
        Lines with a newline at their end.
    """
    return json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _replace(target: Path, content: bytes) -> None:
    """Another file in place of one that may be written to, with its permissions."""
    part = target.with_name(f".unstuck-{os.getpid()}.part")
    try:
        part.write_bytes(content)
        if target.exists():
            target.open("ab").close()  # the folder would let us replace what may not be written to
            shutil.copymode(target, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
