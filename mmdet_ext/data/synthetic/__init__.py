"""Made data: shapes to detect, faces to recognise."""
