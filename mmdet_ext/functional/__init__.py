"""Pure functions on tensors: torch alone, per-element results, no config, no reduction."""
