"""Assigner by Gaussian receptive fields, for tiny objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mmdet_ext.detection.assigners.base import BatchAssigner, with_area
from mmdet_ext.detection.host import PriorForm
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions, Priors
from mmdet_ext.functional.assignment.rfla import (
    RESNET50_FPN_FIELDS,
    FieldDistance,
    SharedField,
    effective_fields,
    hierarchical_match,
)
from mmdet_ext.functional.numerics.checks import (
    check_count,
    check_number,
    check_one_of,
    is_number,
)
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class RFLAAssigner(BatchAssigner):
    """Assigner of each box to its nearest receptive fields, by the distance of Gaussians.

    Boxes too small to overlap any anchor, or to hold any point, get priors as the large ones do.
    The rule, and where it differs from the authors' code, is in
    :func:`mmdet_ext.functional.assignment.rfla.hierarchical_match`.

    Priors are points (x, y, stride, stride), as mmdet's ``MlvlPointGenerator`` gives them with
    ``with_stride=True``; the points of a level have its receptive field. ``num_level_priors``
    gives the levels; where the head passes none, each distinct stride is a level, the smallest
    first. With ``receptive_fields=None`` priors are corners, each an effective receptive field of
    its own.

    Args:
        receptive_fields: side of the theoretical receptive field of each level, px. The default
            is that of P3 to P7 over a ResNet-50; for P2 to P6 it is (35, 91, 267, 427, 555). None
            where priors are corners.
        fraction: share of that side that is effective, above 0.
        topk: fields that a box claims at first, at least 1.
        topk_decayed: fields that a box claims from the shrunken ones, at least 1.
        decay: factor of shrinking, above 0, at most 1.
        distance: 'kl', the Kullback-Leibler divergence, or 'wasserstein'.
        shared: box that gets a field which several boxes claim: the 'nearest', or the 'last', as in
            the authors' code.
        ignore_thr: priors without a box that are at least this similar to one are ignored; in
            [0, 1]. None for background instead, as in the authors' FCOS.
        ignore_iof_thr: a field of which more than this share lies in an ignore region gets no box
            and is ignored; 0 and below for none.

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
        distance: FieldDistance = 'kl',
        shared: SharedField = 'nearest',
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
        check_number('decay', decay, above=0, most=1)
        check_one_of('distance', distance, ('kl', 'wasserstein'))
        check_one_of('shared', shared, ('nearest', 'last'))
        if ignore_thr is not None:
            check_number('ignore_thr', ignore_thr, 'None or in [0, 1]', least=0, most=1)
        check_number('ignore_iof_thr', ignore_iof_thr)
        self.receptive_fields = None if receptive_fields is None else tuple(receptive_fields)
        self.fraction = fraction
        self.topk = topk
        self.topk_decayed = topk_decayed
        self.decay = decay
        self.distance: FieldDistance = distance
        self.shared: SharedField = shared
        self.ignore_thr = ignore_thr
        self.ignore_iof_thr = ignore_iof_thr

    predictions_used = ()

    @property
    def uses_centers(self) -> bool:  # type: ignore[override]
        """True where the receptive fields are given by level."""
        return self.receptive_fields is not None

    @property
    def prior_form(self) -> PriorForm:  # type: ignore[override]
        """Points where the receptive fields are given by level, corners otherwise."""
        return 'corners' if self.receptive_fields is None else 'points'

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as points; as corners where ``receptive_fields`` is None.
            predictions: not used.

        Returns:
            Assignment: ``overlap`` is the similarity of a receptive field and its box.

        Raises:
            ValueError: if there are more or fewer levels than ``receptive_fields``, or a box is
                not finite.
        """
        geometry = with_area(geometry)
        geometry = replace(geometry, priors=self.fields(geometry.priors))
        return hierarchical_match(
            geometry,
            topk=self.topk,
            topk_decayed=self.topk_decayed,
            decay=self.decay,
            distance=self.distance,
            shared=self.shared,
            ignore_thr=self.ignore_thr,
            ignore_mask=geometry.ignored_priors(self.ignore_iof_thr),
        )

    def fields(self, priors: Priors) -> Priors:
        """Return the effective receptive field of each prior, as corners.

        Args:
            priors: as of `match`.

        Raises:
            ValueError: if there are more or fewer levels than ``receptive_fields``.
        """
        if self.receptive_fields is None:
            return priors
        return effective_fields(priors, self.receptive_fields, self.fraction)


def _above_0(values: object) -> bool:
    """Return whether the value is a list of finite numbers above 0, with at least one."""
    return (
        isinstance(values, (list, tuple))
        and len(values) > 0
        and all(is_number(value) and 0 < value < math.inf for value in values)
    )
