"""Data sets of faces (and digits) for training and for open-set evaluation."""
