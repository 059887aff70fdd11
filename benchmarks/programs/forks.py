"""Forked in the middle of training; child and parent train on, the child ends in its own way."""

import multiprocessing
import random
import sys

import digest
import tiny


def child():
    random.seed(0)  # which multiprocessing has just seeded from the clock
    model, _, losses = tiny.train(seed=1)
    digest.show(model, losses=losses)
    sys.stdout.flush()
    sys.exit(4)


def fork(step):
    if step == 2:
        sys.stdout.flush()
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        print("child ended with", process.exitcode)


model, optimizer, losses = tiny.train(at_step=fork)
digest.show(model, losses=losses, optimizers=[optimizer])
