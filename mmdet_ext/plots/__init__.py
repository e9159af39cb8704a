"""Figures drawn with matplotlib, from numbers alone; torch is not imported."""
