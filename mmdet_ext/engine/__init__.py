"""Parts of training that no task owns."""
