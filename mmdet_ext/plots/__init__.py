"""Evaluation: metrics, and the figures and pictures that tell how a run went."""
