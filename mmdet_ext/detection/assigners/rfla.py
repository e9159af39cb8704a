"""Label assignment by Gaussian receptive fields, for tiny objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.claims import ignored_priors_mask
from mmdet_ext.functional.assignment.fcos import point_levels
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.rfla import (
    RESNET50_FPN_FIELDS,
    Distance,
    Shared,
    effective_fields,
    hierarchical_match,
)
from mmdet_ext.functional.numerics.checks import check_count, check_number, is_number
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class RFLAAssigner(BatchAssigner):
    """Each box has the receptive fields nearest to it, by the distance of Gaussians.

    So that boxes too small to overlap any anchor, or to hold any point, have priors as the large
    ones do. The rule, and where it differs from the authors' code, is in
    :func:`mmdet_ext.functional.assignment.rfla.hierarchical_match`.

    Priors are points (x, y, stride, stride), as stock's ``MlvlPointGenerator`` gives them with
    ``with_stride=True``; a level's points have its receptive field. Levels are told by
    ``num_level_priors``; where the head gives none, by the strides, the smallest first. With
    ``receptive_fields=None`` priors are corners, each an effective receptive field of its own.

    Args:
        receptive_fields: side of the theoretical receptive field of each level, px. The default
            is that of P3 to P7 over a ResNet-50; for P2 to P6 it is
            (35, 91, 267, 427, 555). None where priors are corners.
        fraction: share of that side that is effective, above 0.
        topk: fields a box has at first, at least 1.
        topk_decayed: fields it is offered afterwards, from those shrunken, at least 1.
        decay: how much they shrink, above 0, at most 1.
        distance: 'kl', the Kullback-Leibler divergence, or 'wasserstein'.
        shared: which of several boxes has a field: the 'nearest', or the 'last', as in the
            authors' code.
        ignore_thr: priors of no box, but at least this similar to one, are ignored; in [0, 1].
            None for background instead, as in the authors' FCOS.
        ignore_iof_thr: a field of which more than this share lies in an ignore region is nobody's
            and ignored; from 0 down for none.

    Raises:
        ValueError: if an option is out of its range.
    """

    def __init__(
        self,
        receptive_fields: Sequence[float] | None = RESNET50_FPN_FIELDS[1:],
        fraction: float = 0.5,
        topk: int = 3,
        topk_decayed: int = 1,
        decay: float = 0.9,
        distance: Distance = 'kl',
        shared: Shared = 'nearest',
        ignore_thr: float | None = 0.8,
        ignore_iof_thr: float = -1,
    ) -> None:
        check_count('topk', topk)
        check_count('topk_decayed', topk_decayed)
        if not _above_0((fraction,)) or not (
            receptive_fields is None or _above_0(receptive_fields)
        ):
            raise ValueError(
                'fraction and receptive_fields must be above 0, got '
                f'{fraction!r} and {receptive_fields!r}. Give the one as a number, the others as '
                'a side of each level, or as None where priors are corners'
            )
        check_number('decay', decay, 'above 0 and at most 1', lambda share: 0 < share <= 1)
        if distance not in ('kl', 'wasserstein'):
            raise ValueError(f"distance must be 'kl' or 'wasserstein', got {distance!r}")
        if shared not in ('nearest', 'last'):
            raise ValueError(f"shared must be 'nearest' or 'last', got {shared!r}")
        if ignore_thr is not None:
            check_number('ignore_thr', ignore_thr, 'None or in [0, 1]', lambda iou: 0 <= iou <= 1)
        check_number('ignore_iof_thr', ignore_iof_thr)
        self.receptive_fields = None if receptive_fields is None else tuple(receptive_fields)
        self.fraction = fraction
        self.topk = topk
        self.topk_decayed = topk_decayed
        self.decay = decay
        self.distance: Distance = distance
        self.shared: Shared = shared
        self.ignore_thr = ignore_thr
        self.ignore_iof_thr = ignore_iof_thr

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as points (x, y, stride, stride), or as corners.
            predictions: not looked at.

        Returns:
            Assignment: ``overlap`` is the similarity of a receptive field and its box.

        Raises:
            ValueError: if there are more or fewer levels than ``receptive_fields``, or a box is not
                finite.
        """
        geometry.check_ground_truth()
        fields = self.fields(geometry)
        gt_index, overlap = hierarchical_match(
            fields,
            geometry.gt_boxes,
            geometry.gt_valid,
            topk=self.topk,
            topk_decayed=self.topk_decayed,
            decay=self.decay,
            distance=self.distance,
            shared=self.shared,
            ignore_thr=self.ignore_thr,
            prior_valid=geometry.prior_valid,
            ignore_mask=self._ignore_mask(geometry, fields),
        )
        return Assignment(gt_index, overlap)

    def fields(self, geometry: BatchGeometry) -> Tensor:
        """The effective receptive field of each prior, (P, 4) corners, px.

        Raises:
            ValueError: if there are more or fewer levels than ``receptive_fields``.
        """
        if self.receptive_fields is None:
            return geometry.priors
        levels = point_levels(geometry.priors, geometry.level_sizes, len(self.receptive_fields))
        return effective_fields(geometry.priors, levels, self.receptive_fields, self.fraction)

    def _ignore_mask(self, geometry: BatchGeometry, fields: Tensor) -> Tensor | None:
        boxes, valid = geometry.ignore_boxes, geometry.ignore_valid
        if self.ignore_iof_thr <= 0 or boxes is None or valid is None or boxes.numel() == 0:
            return None
        return ignored_priors_mask(fields, boxes, valid, self.ignore_iof_thr)


def _above_0(values: object) -> bool:
    """Whether these are finite numbers above 0, one at least."""
    return (
        isinstance(values, (list, tuple))
        and len(values) > 0
        and all(is_number(value) and 0 < value < math.inf for value in values)
    )
