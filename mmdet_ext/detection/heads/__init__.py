"""Registered heads, dense and of regions."""
