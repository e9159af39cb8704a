"""Registered face hooks: schedules of margin and scale, and plots of embeddings."""

from mmdet_ext.face.hooks.feature_scatter import FeatureScatterHook
from mmdet_ext.face.hooks.margin_schedule import MarginScheduleHook

__all__ = ['FeatureScatterHook', 'MarginScheduleHook']
