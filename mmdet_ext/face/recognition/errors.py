"""Errors that name what came, and what to do."""

from __future__ import annotations


class RecognitionError(ValueError):
    """Error of an image, a detector, an embedder or an option of a `FaceRecognizer`."""
