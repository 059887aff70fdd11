"""Killed from inside the loop."""

import os
import signal

import tiny

print("flushed", flush=True)
tiny.train(at_step=lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == 2 else None)
