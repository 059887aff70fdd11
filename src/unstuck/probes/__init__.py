"""Experiments on copies of a finished training, one a file: what no watching can tell."""
