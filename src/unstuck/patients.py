"""What can be treated: something that can be run as it is, and with doses of remedies.

The treatment asks only for what stands here, so that a script and a training in one's own process are treated alike.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from unstuck._discover import find
from unstuck.evidence import Record
from unstuck.program import Script, edits_of, with_survey
from unstuck.source import Edit, diff, edited
from unstuck.trials.job import Job
from unstuck.trials.visit import Treatment


@dataclass(frozen=True)
class Written:
    """A treatment as it is written into files.

    Attributes:
        edits: What changes in them.
        digests: Of the files as they are, by path.
        texts: The changed files, by path.
        diff: What changes, as a unified diff.
        training: The treated training, where it is no script.
    """

    edits: tuple[Edit, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    diff: str = ""
    training: Any = None


class Patient(Protocol):
    """What is treated."""

    def see(self, record: Record) -> None:
        """Takes in what the run as it stands has told."""
        ...

    def proposing(self, record: Record) -> Any:
        """What remedies propose for: the program, as a run of it was."""
        ...

    def check(self, treatment: Treatment) -> None:
        """Whether a treatment can be given.

        Raises:
            EditError: It can't, and why.
        """
        ...

    def job(self, treatment: Treatment = (), **given: Any) -> Job:
        """A run of it.

        Args:
            treatment: It is given.
            **given: Seed, limit, share for experiments, survey: see `Job`.
        """
        ...

    def written(self, treatment: Treatment) -> Written:
        """A treatment as it is written."""
        ...


class ScriptPatient:
    """A script.

    Args:
        command: It and its arguments.
    """

    program: Script

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)

    def see(self, record: Record) -> None:
        """Takes in the record of a surveyed run."""
        self.program = Script(self.command[0], record)

    def proposing(self, record: Record) -> Script:
        """The script, with the record of a run of it, and with what only a surveyed run tells."""
        return Script(self.command[0], with_survey(record, self.program.record), known=self.program)

    def check(self, treatment: Treatment) -> None:
        """Whether a treatment can be written into the script.

        Raises:
            EditError: A dose can't be written, or two are of the same place.
        """  # noqa: DOC502
        self._edits(treatment)

    def job(self, treatment: Treatment = (), **given: Any) -> Job:
        """A run of the script, changed.

        Raises:
            EditError: The treatment can't be written.
        """  # noqa: DOC502
        return Job(self.command, edits=self._edits(treatment), **given)

    def written(self, treatment: Treatment) -> Written:
        """The changes to the script's files.

        Raises:
            EditError: The treatment can't be written.
        """  # noqa: DOC502
        edits = self._edits(treatment)
        texts = {file: edited(self.program.source(file), edits) for file in dict.fromkeys(e.file for e in edits)}
        sources = {file: self.program.source(file) for file in texts}
        changes = "".join(diff(sources[file], text, name=os.path.relpath(file)) for file, text in texts.items())
        return Written(edits, {file: source.digest for file, source in sources.items()}, texts, changes)

    def _edits(self, treatment: Treatment) -> tuple[Edit, ...]:
        if not treatment:
            return ()
        remedies = find("remedies")
        edits = edits_of(remedies[dose.remedy](self.program, **dose.settings) for dose in treatment)
        for file in {e.file for e in edits}:
            edited(self.program.source(file), edits)
        return tuple(edits)
