"""Losses of the family 'long_tail'."""

from __future__ import annotations

from mmdet_ext.testing.loss_cases.case import LossCase

LONG_TAIL_LOSSES: tuple[LossCase, ...] = ()
