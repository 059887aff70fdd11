"""Trains, says READY, and waits to be stopped from outside."""

import time

import tiny

tiny.train()
print("READY", flush=True)
time.sleep(60)
