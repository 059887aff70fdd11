"""What tests of processes need."""

import contextlib
import os
import time
from pathlib import Path

import pytest


@pytest.fixture
def gone():
    """Says whether a process ends within thirty seconds, which a busy machine may take; one that nobody has buried has ended as well."""

    def ended(pid):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            for _ in range(3000):
                os.kill(pid, 0)
                told = Path(f"/proc/{pid}/stat")
                if told.parents[1].is_dir() and told.read_text().rpartition(")")[2].split()[0] == "Z":
                    return True
                time.sleep(0.01)
            return False
        return True

    return ended
