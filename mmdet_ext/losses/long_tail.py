"""Losses for classes of unequal frequency."""
