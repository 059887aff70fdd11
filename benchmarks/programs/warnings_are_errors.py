"""Run with every warning turned into an error."""

import warnings

import digest
import tiny

warnings.simplefilter("error")
model, optimizer, losses = tiny.train(20)
digest.show(model, losses=losses, optimizers=[optimizer])
