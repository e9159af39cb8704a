"""Figures of pose: people on images, tags, fields, and the graph that is matched."""

from mmdet_ext.plots.pose.maps import draw_fields, draw_tags
from mmdet_ext.plots.pose.matching import Connection, draw_matching
from mmdet_ext.plots.pose.people import People, draw_people

__all__ = ['Connection', 'People', 'draw_fields', 'draw_matching', 'draw_people', 'draw_tags']
