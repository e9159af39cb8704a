"""Regression losses a coordinate."""
