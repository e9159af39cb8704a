"""Embeddings: margins, centres, pairs and triplets."""
