"""Errors of use in another language: typer has its sentences in English only, and they are known again by what they are made of."""

from __future__ import annotations

from typing import Any

from unstuck._language import Said, marked, say, stored, tell, translated

_SENTENCES = (  # the more special first
    marked("No such option: {option} (Possible options: {options})"),
    marked("No such option: {option}"),
    marked("No such command {name}. Did you mean {names}?"),
    marked("No such command {name}."),
    marked("Missing command."),
    marked("Option {option} requires an argument."),
    marked("Option {option} does not take a value."),
    marked("Got unexpected extra argument(s) ({arguments})"),
    marked("Invalid value for {option}: {why}"),
    marked("Input should be a valid integer, unable to parse string as an integer"),
    marked("Input should be greater than or equal to {least}"),
    marked("Input should be less than or equal to {most}"),
)


def told(error: Any) -> str | None:
    """What typer shows of an error of use, in the language that is spoken.

    Args:
        error: One of typer's.

    Returns:
        The lines; None where what it says is none of the sentences that are known.
    """
    sentence = known(error.format_message())
    if sentence is None:
        return None
    lines = [tell("Error: {sentence}", sentence=sentence)]
    if error.ctx is not None:
        hint = say("Try '{command} --help' for help.", command=error.ctx.command_path)
        lines = [error.ctx.get_usage(), translated(hint), "", *lines]
    return "\n".join(lines)


def known(sentence: str) -> Said | None:
    """A sentence of typer's, so that it can be said again; None where it is none that is known.

    Args:
        sentence: In English.
    """
    found = stored(sentence, *_SENTENCES)
    return found if found.templates[0] in _SENTENCES else None
