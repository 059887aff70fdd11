"""Trains, says READY, and when interrupted stores what it has, trains on and ends well."""

import time

import digest
import tiny

model, optimizer, losses = tiny.train()
try:
    print("READY", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("saving")
digest.show(model, tiny.train(3, seed=1)[0], losses=losses, optimizers=[optimizer])
