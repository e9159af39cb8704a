"""Boxes: their overlaps, and regression losses of aligned pairs."""

from mmdet_ext.functional.boxes.checks import (
    check_aligned_boxes,
    check_overlap_options,
    check_same_shape,
)
from mmdet_ext.functional.boxes.corner_losses import mpdiou_loss, nwd_loss
from mmdet_ext.functional.boxes.iou_losses import IoUMode, ciou_loss, diou_loss, giou_loss, iou_loss
from mmdet_ext.functional.boxes.offset_losses import balanced_l1_loss, smooth_l1_loss
from mmdet_ext.functional.boxes.overlap import (
    box_centers,
    box_iou,
    box_nwd,
    box_wasserstein,
    iou_of_planes,
    pairwise_box_iof,
)
from mmdet_ext.functional.boxes.pair import BoxPair, over_pairs
from mmdet_ext.functional.boxes.shape_losses import efficient_iou_loss, shape_iou_loss, siou_loss
from mmdet_ext.functional.boxes.wise_iou import WiseVersion, wise_iou_loss

__all__ = [
    'BoxPair',
    'IoUMode',
    'WiseVersion',
    'balanced_l1_loss',
    'box_centers',
    'box_iou',
    'box_nwd',
    'box_wasserstein',
    'check_aligned_boxes',
    'check_overlap_options',
    'check_same_shape',
    'ciou_loss',
    'diou_loss',
    'efficient_iou_loss',
    'giou_loss',
    'iou_loss',
    'iou_of_planes',
    'mpdiou_loss',
    'nwd_loss',
    'over_pairs',
    'pairwise_box_iof',
    'shape_iou_loss',
    'siou_loss',
    'smooth_l1_loss',
    'wise_iou_loss',
]
