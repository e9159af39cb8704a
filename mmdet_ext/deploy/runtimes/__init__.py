"""Runtimes behind one call: arrays by name in, arrays by name out."""

from mmdet_ext.deploy.runtimes.base import Runtime
from mmdet_ext.deploy.runtimes.choose import RUNTIMES, open_model

__all__ = ['RUNTIMES', 'Runtime', 'open_model']
