"""Data of faces: folders, lists, pairs and records; neither torch nor a host."""
