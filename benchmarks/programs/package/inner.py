"""The package's training."""

import tiny


def train():
    return tiny.train()[0]
