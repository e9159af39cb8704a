"""Looking on while a detector assigns labels."""
