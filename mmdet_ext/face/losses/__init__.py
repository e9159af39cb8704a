"""Registered metric-learning losses."""

from mmdet_ext.face.losses.base import FeatureLoss
from mmdet_ext.face.losses.center import CenterLoss
from mmdet_ext.face.losses.contrastive import ContrastiveLoss
from mmdet_ext.face.losses.triplet import TripletLoss

__all__ = ['CenterLoss', 'ContrastiveLoss', 'FeatureLoss', 'TripletLoss']
