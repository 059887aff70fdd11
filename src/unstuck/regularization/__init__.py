"""What keeps a network from learning its samples by heart: penalties, dropout, early stopping, soft targets, clipping, pruning."""
