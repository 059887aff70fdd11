"""For all tests: a process works in one thread, and what is there before the first is never looked through for garbage."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the processes that tests start take it over


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
