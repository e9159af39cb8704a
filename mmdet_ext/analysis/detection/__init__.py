"""Numbers out of detections: matching as COCO does, operating points, errors, comparison; NumPy."""
