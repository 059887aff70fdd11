"""`os._exit(5)` from inside the loop: no handler runs, nothing is flushed."""

import os

import tiny

print("flushed", flush=True)
print("never seen")
tiny.train(at_step=lambda step: os._exit(5) if step == 2 else None)
