"""Hard example mining."""
