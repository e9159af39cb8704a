"""Registered heads of detectors."""
