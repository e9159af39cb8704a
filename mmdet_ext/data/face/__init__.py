"""Face data: folders, lists, pairs and records."""
