"""Memory that a computation needs, as the benchmarks measure it."""

from mmdet_ext.catalog.memory import peak_bytes

__all__ = ['peak_bytes']
