"""What makes a training go: optimizers, learning rates, averages, batch sizes."""
