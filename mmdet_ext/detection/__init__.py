"""Components for MMDetection, and the only part of the package that imports it."""
