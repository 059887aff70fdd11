"""Two trainings in two threads, one after the other, and an exception that a thread dies of."""

import threading

import digest
import tiny

results = {}


def work(seed):
    results[seed] = tiny.train(seed=seed)
    if seed == 1:
        raise RuntimeError("in a thread")


threading.excepthook = lambda args: print("thread died:", args.exc_type.__name__, args.exc_value)
for seed in (0, 1):
    thread = threading.Thread(target=work, args=(seed,))
    thread.start()
    thread.join()
for model, optimizer, losses in results.values():
    digest.show(model, losses=losses, optimizers=[optimizer])
