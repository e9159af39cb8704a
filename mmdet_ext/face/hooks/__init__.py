"""Hooks: schedules of margin and scale, pictures of 2-D features."""

from mmdet_ext.face.hooks.feature_scatter import FeatureScatterHook
from mmdet_ext.face.hooks.margin_schedule import MarginScheduleHook

__all__ = ['FeatureScatterHook', 'MarginScheduleHook']
