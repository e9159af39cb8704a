"""YOLO v1 to v4: matching and losses of predictions on a grid, as in the papers."""

__all__: list[str] = []
