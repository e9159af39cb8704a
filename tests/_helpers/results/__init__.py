"""Helpers of the tests of results."""
