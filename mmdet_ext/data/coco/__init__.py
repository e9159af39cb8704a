"""Detection data: COCO json, Pascal VOC, and the folders that hold them."""
