"""Transforms of faces."""
