"""Losses of the family 'classification'."""

from __future__ import annotations

from mmdet_ext.testing.loss_cases.case import LossCase

CLASSIFICATION_LOSSES: tuple[LossCase, ...] = ()
