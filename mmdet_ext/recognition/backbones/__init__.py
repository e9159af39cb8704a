"""Backbones of face recognition."""
