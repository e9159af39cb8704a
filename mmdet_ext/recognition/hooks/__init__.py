"""Hooks: schedules of margin and scale, pictures of 2-D features."""

from .feature_scatter import FeatureScatterHook
from .margin_schedule import MarginScheduleHook

__all__ = ['FeatureScatterHook', 'MarginScheduleHook']
