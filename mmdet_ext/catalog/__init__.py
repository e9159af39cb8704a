"""What the tests share and a user may use: cases, synthetic data, tolerances."""
