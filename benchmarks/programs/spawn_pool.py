"""Whole trainings in a pool of spawned processes, while the parent trains too."""

import multiprocessing
import os

import digest
import tiny


def job(seed):
    model, _, losses = tiny.train(seed=seed)
    return digest.of(list(model.parameters())), losses[-1].hex(), os.getpid() != os.getppid()


if __name__ == "__main__":
    model, optimizer, losses = tiny.train(seed=9)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for result in pool.map(job, range(4)):
            print(result)
    digest.show(model, losses=losses, optimizers=[optimizer])
