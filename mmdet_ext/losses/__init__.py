"""Registered losses: thin shells over :mod:`mmdet_ext.functional`."""

# Importing a family's module registers its losses.
from mmdet_ext.losses import (  # noqa: F401
    cross_entropy,
    focal,
    iou,
    long_tail,
    ohem,
    quality,
    regression,
)
