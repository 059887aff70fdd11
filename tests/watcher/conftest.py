import itertools

import pytest
import torch

from unstuck.evidence import Record
from unstuck.watcher import cadence
from unstuck.watcher.session import Session


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """Runs a training under a session and gives its record; the budget is unlimited, so every step is sampled."""

    monkeypatch.setattr(cadence, "EVAL_ALLOWANCE", 60.0)  # evaluation is looked at, however slow the machine is
    made = itertools.count()

    def run(training, *, budget=1.0):
        torch.manual_seed(0)
        path = tmp_path / f"record-{next(made)}.sqlite"
        session = Session(path, budget=budget)
        session.cadence.wants = (lambda step: True) if budget == 1.0 else session.cadence.wants
        session.attach()
        try:
            training()
        finally:
            session.close()
        record = Record.read(path)
        errors = [e for e in record.events if e.kind == "watcher-error"]
        assert not errors, errors
        return record

    return run
