"""Registered samplers of priors and proposals."""

from mmdet_ext.detection.samplers.hard_negative import HardNegativeSampler

__all__ = ['HardNegativeSampler']
