"""Numbers out of runs: logs, detections, comparisons and simulations; torch is not imported."""
