"""Losses, label assigners and data tools that stock MMDetection runners train from a config.

Importing the package loads neither torch nor a host: MMEngine imports ``mmdet_ext.registry`` by
itself when a config first names a type ``mmdet_ext.X``.
"""

from mmdet_ext.version import __version__

__all__ = ['__version__']
