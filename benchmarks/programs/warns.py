"""Warnings, once and repeated, the user's own and torch's, and logging."""

import logging
import warnings

import tiny
import torch

logging.basicConfig(level=logging.INFO, format="%(levelname)s:%(name)s:%(message)s")


def tell(step):
    logging.info("step %d", step)
    warnings.warn("the same at each step", stacklevel=2)
    warnings.warn(f"another at step {step}", UserWarning, stacklevel=1)


tiny.train(at_step=tell)
torch.nn.functional.mse_loss(torch.ones(3, 1), torch.ones(3))
scheduler = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0), 1)
scheduler.step()
