"""Samplers of identities."""
