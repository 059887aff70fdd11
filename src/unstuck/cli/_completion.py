"""What the shell completes: names that are known without reading a record or importing a rule."""

from __future__ import annotations

from collections.abc import Callable

from unstuck._language import _, marked

_MOST = 50  # runs, the newest


def causes_and_rules(incomplete: str) -> list[tuple[str, str]]:
    """Causes with what they mean, and rules.

    Args:
        incomplete: The beginning of a name.

    Returns:
        Names with what helps to choose.
    """
    from unstuck._discover import names
    from unstuck.verdict import CAUSES

    known = {**{rule: marked("a rule") for rule in names("rules")}, **CAUSES}
    return [(name, _(means)) for name, means in known.items() if name.startswith(incomplete)]


def runs_beginning(incomplete: str) -> list[str]:
    """Names of runs in the default folder, the newest first.

    Args:
        incomplete: The beginning of a name.

    Returns:
        The names; none where a path has been begun.
    """
    from unstuck.cli._records import FOLDER

    if not FOLDER.is_dir():
        return []
    found = sorted((path.name for path in FOLDER.iterdir() if path.is_dir() and path.name[:8].isdigit()), reverse=True)
    return [name for name in found if name.startswith(incomplete)][:_MOST]


def one_of(*choices: str) -> Callable[[str], list[str]]:
    """Completes one of these.

    Args:
        *choices: All there are.

    Returns:
        What typer asks for those that begin with something.
    """

    def beginning(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return beginning


def plugins(room: str) -> Callable[[str], list[str]]:
    """Completes the name of a plug-in.

    Args:
        room: Where it is, "remedies".

    Returns:
        As `one_of`.
    """

    def beginning(incomplete: str) -> list[str]:
        from unstuck._discover import names

        return [name for name in names(room) if name.startswith(incomplete)]

    return beginning
