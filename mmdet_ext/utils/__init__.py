"""Helpers for writing files and running mim."""
