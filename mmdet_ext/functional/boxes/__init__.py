"""Boxes: their overlaps, and losses of aligned pairs."""
