"""Figures of detections: operating points, errors, two results side by side."""
