"""The remedies that rules prescribe, each in a line: what to do."""

from __future__ import annotations

REMEDIES: dict[str, str] = {
    "activation": "another activation, or one where there is none: ReLU or GELU where sigmoids squash, LeakyReLU where units die",
    "all-parameters": "give the optimizer every parameter that should learn",
    "batch-size": "another batch size: larger against noise, smaller for more updates",
    "class-weights": "weigh rare classes in the loss, or draw them more often",
    "dropout": "less of it where the network can't fit, more where it overfits, or some where there is none",
    "early-stopping": "the weights of the best evaluation instead of the last",
    "escape": "noise on the weights, once, where the gradient vanishes: off the saddle",
    "gating": "gated cells (LSTM, GRU) whose forget gates start open",
    "gradient-clipping": "clip the norm or the values of the gradient before each step",
    "initialization": "weights scaled by the number of their inputs (He, Glorot); orthogonal ones in recurrence",
    "l1": "a penalty on the magnitude of the weights, which makes many of them zero",
    "learning-rate": "another rate: lower where steps overshoot, higher where they crawl",
    "mode": "model.train() for training, model.eval() for evaluation",
    "momentum": "momentum of 0.9, which goes on where gradients agree",
    "normalization": "batch, layer or group norm between the layers",
    "optimizer": "one with a rate of its own for each parameter, such as Adam",
    "output-loss": "a last activation and a loss that belong together, such as logits and cross-entropy",
    "reduction": "the mean over the batch instead of the sum",
    "residual": "connections past the layers: x + f(x)",
    "schedule": "a rate that falls in the course of the run",
    "shape": "predictions and targets of one shape: squeeze or reshape one of them",
    "shuffle": "draw the samples of each batch at random, and shuffle before splitting",
    "smooth-loss": "cross-entropy beside a loss of overlap (Dice, IoU), which is flat where masks are empty",
    "standardize-input": "inputs of mean 0 and deviation 1, by the training set's numbers everywhere",
    "standardize-target": "targets of mean 0 and deviation 1, and predictions scaled back",
    "train-longer": "more steps",
    "unfreeze": "requires_grad = True for what should learn",
    "warm-up": "a rate that rises from near zero in the first steps",
    "weight-averaging": "average the weights over the last steps (EMA, SWA)",
    "weight-decay": "less of it where the network can't fit, more where it overfits",
    "wider": "more units in the hidden layers; fewer where it overfits",
    "zero-grad": "optimizer.zero_grad() once for each update, before backward",
}
"""What to do, by the name of the remedy, as findings name it in `treated_by`."""
