"""Losses of the family 'quality'."""

from __future__ import annotations

from mmdet_ext.testing.loss_cases.case import LossCase

QUALITY_LOSSES: tuple[LossCase, ...] = ()
