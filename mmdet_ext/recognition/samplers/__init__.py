"""Samplers of identities."""

from mmdet_ext.recognition.samplers.identity_balanced import IdentityBalancedSampler

__all__ = ['IdentityBalancedSampler']
