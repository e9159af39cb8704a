"""Helpers of tests of face recognition."""
