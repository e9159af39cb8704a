"""Computations behind the tools, from the catalog of components and from runs."""
