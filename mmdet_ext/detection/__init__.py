"""What stands on MMDetection: the only part of the package that imports it."""
