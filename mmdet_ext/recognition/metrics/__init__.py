"""Open-set evaluation: verification and identification."""
