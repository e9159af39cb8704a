"""Studies: what the tools compute and the tests check, from the catalog of components."""
