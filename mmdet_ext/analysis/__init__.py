"""Numbers out of runs."""
