"""What touches the runner itself: checkpoints, hooks."""
