"""The remedies that rules prescribe, each in a line: what to do."""

from __future__ import annotations

from unstuck._language import say

REMEDIES: dict[str, str] = {
    "activation": say(
        "another activation, or one where there is none: ReLU or GELU where sigmoids squash, LeakyReLU where units die"
    ),
    "all-parameters": say("give the optimizer every parameter that should learn"),
    "batch-size": say("another batch size: larger against noise, smaller for more updates"),
    "class-weights": say("weigh rare classes in the loss, or draw them more often"),
    "dropout": say("less of it where the network can't fit, more where it overfits, or some where there is none"),
    "early-stopping": say("the weights of the best evaluation instead of the last"),
    "escape": say("noise on the weights, once, where the gradient vanishes: off the saddle"),
    "evaluation-scale": say("data to evaluate on, scaled as those to train on"),
    "gating": say("gated cells (LSTM, GRU) whose forget gates start open"),
    "gradient-clipping": say("clip the norm or the values of the gradient before each step"),
    "initialization": say("weights scaled by the number of their inputs (He, Glorot); orthogonal ones in recurrence"),
    "l1": say("a penalty on the magnitude of the weights, which makes many of them zero"),
    "learning-rate": say("another rate: lower where steps overshoot, higher where they crawl"),
    "mode": say("model.train() for training, model.eval() for evaluation"),
    "momentum": say("momentum of 0.9, which goes on where gradients agree"),
    "normalization": say("batch, layer or group norm between the layers"),
    "optimizer": say("one with a rate of its own for each parameter, such as Adam"),
    "output-loss": say("a last activation and a loss that belong together, such as logits and cross-entropy"),
    "reduction": say("the mean over the batch instead of the sum"),
    "residual": say("connections past the layers: x + f(x)"),
    "schedule": say("a rate that falls in the course of the run"),
    "shape": say("predictions and targets of one shape: squeeze or reshape one of them"),
    "shuffle": say("draw the samples of each batch at random, and shuffle before splitting"),
    "smooth-loss": say("cross-entropy beside a loss of overlap (Dice, IoU), which is flat where masks are empty"),
    "standardize-input": say("inputs of mean 0 and deviation 1, by the training set's numbers everywhere"),
    "standardize-target": say("targets of mean 0 and deviation 1, and predictions scaled back"),
    "target-scale": say("labels as they are, not divided as inputs are"),
    "train-longer": say("more steps"),
    "unfreeze": say("requires_grad = True for what should learn"),
    "warm-up": say("a rate that rises from near zero in the first steps"),
    "weight-averaging": say("average the weights over the last steps (EMA, SWA)"),
    "weight-decay": say("less of it where the network can't fit, more where it overfits"),
    "wider": say("more units in the hidden layers; fewer where it overfits"),
    "zero-grad": say("optimizer.zero_grad() once for each update, before backward"),
}
"""What to do, by the name of the remedy, as findings name it in `treated_by`."""
