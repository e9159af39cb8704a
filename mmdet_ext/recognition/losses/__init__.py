"""Metric-learning losses."""

from mmdet_ext.recognition.losses.base import FeatureLoss
from mmdet_ext.recognition.losses.center import CenterLoss
from mmdet_ext.recognition.losses.contrastive import ContrastiveLoss
from mmdet_ext.recognition.losses.triplet import TripletLoss

__all__ = ['CenterLoss', 'ContrastiveLoss', 'FeatureLoss', 'TripletLoss']
