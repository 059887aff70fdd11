"""Handles SIGTERM as a job that is to be moved elsewhere does: it ends well with a code of its own."""

import signal
import sys
import time

import tiny


def leave(number, frame):
    print("moving on", signal.Signals(number).name)
    sys.exit(9)


signal.signal(signal.SIGTERM, leave)
tiny.train()
print("READY", flush=True)
time.sleep(60)
