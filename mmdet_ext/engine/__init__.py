"""Parts of training that are independent of the task."""
