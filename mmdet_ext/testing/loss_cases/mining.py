"""Losses of the family 'mining'."""

from __future__ import annotations

from mmdet_ext.testing.loss_cases.case import LossCase

MINING_LOSSES: tuple[LossCase, ...] = ()
