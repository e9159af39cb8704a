"""Registered detection data sets."""

from mmdet_ext.detection.datasets.coco import CocoDataset

__all__ = ['CocoDataset']
