"""Detection data: COCO files, Pascal VOC folders, and the layouts of both."""
