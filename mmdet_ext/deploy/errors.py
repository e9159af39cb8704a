"""Errors that name what came, and what to do."""

from __future__ import annotations


class DeployError(ValueError):
    """Error of a model file, an image or an option."""


class ModelFileError(DeployError):
    """Error for a model file that cannot be used: absent, truncated, or not of this package."""


class ImageError(DeployError):
    """Error for an image that cannot be read or resized."""


class RuntimeAbsentError(DeployError):
    """Error for a runtime that is not installed."""
