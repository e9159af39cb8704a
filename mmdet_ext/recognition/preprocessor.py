"""Preprocessing of faces."""
