"""Synthetic data: shapes to detect, faces to recognise."""
