"""The contract table, and the inputs that tests, benchmarks and plots are made from."""
