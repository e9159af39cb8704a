"""Safe reading of checkpoints, those of MMEngine and those of other projects."""
