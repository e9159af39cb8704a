"""Scoring of embeddings: verification and identification."""
