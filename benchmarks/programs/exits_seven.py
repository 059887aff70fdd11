"""`sys.exit(7)` from inside the loop, with a handler that still has to run."""

import atexit
import sys

import tiny

atexit.register(print, "bye")
tiny.train(at_step=lambda step: sys.exit(7) if step == 2 else None)
