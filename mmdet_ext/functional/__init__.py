"""Pure functions on tensors: no host, per-element results, no config, no reduction."""
