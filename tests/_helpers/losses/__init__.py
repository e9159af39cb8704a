"""Helpers of the tests of losses: values and gradients, inputs and slow references."""
