"""Label assignment: which prior learns which box."""
