"""Helpers of tests of pose."""
