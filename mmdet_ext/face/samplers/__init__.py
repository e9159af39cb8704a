"""Samplers of identities."""

from mmdet_ext.face.samplers.identity_balanced import IdentityBalancedSampler

__all__ = ['IdentityBalancedSampler']
