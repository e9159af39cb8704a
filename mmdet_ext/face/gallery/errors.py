"""Errors that name what came, and what to do."""

from __future__ import annotations


class GalleryError(ValueError):
    """Error of a gallery, its folder, its names or its embeddings."""


class FaissAbsentError(GalleryError):
    """Error for an index that needs faiss where that is not installed."""
