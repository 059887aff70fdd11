"""Trainings as the watcher hands them over: a few steps of a script, watched at every step, and what was kept of them."""

import pytest
import torch

from unstuck.probes.bench import Bench
from unstuck.watcher.session import Session


@pytest.fixture
def sealed(tmp_path):
    """Runs a function that gives a loss, calls backward on it, and gives its tape; raises what sealing it raises."""

    def run(forward):
        session = Session(tmp_path / "record.sqlite", budget=1.0, probe_budget=0.15)
        found = []

        def keep(recording, root, output, target, session):
            try:
                found.append(recording.seal(root, output=output, target=target))
            except ValueError as error:
                found.append(error)

        session.capture.keep = keep
        session.attach()
        try:
            torch.manual_seed(0)
            forward().backward()
        finally:
            session.capture.close()
            session.close()
        assert not session._errors, session._errors
        if isinstance(found[-1], ValueError):
            raise found[-1]
        return found[-1]

    return run


@pytest.fixture
def trained(session_of):
    """Runs a script and gives its `Training`."""

    def run(script):
        session = session_of(script)
        training = session.capture.training(session)
        assert training is not None, session.capture.why_not
        return training

    return run


@pytest.fixture
def bench_of(trained):
    """Runs a script and gives the bench on which experiments with it are made."""

    def run(script):
        return Bench(trained(script))

    return run
