"""Record and display of the assignments that a detector makes in training."""
