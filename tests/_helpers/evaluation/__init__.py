"""Helpers of the tests of evaluation."""
