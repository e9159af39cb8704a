"""The margin head."""
