"""Numerics that every subject needs: precision, checks, chunks, reduction, derivatives."""
