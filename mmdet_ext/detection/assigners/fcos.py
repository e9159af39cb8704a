"""FCOS's assignment of points."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.fcos import fcos_match, point_levels
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.numerics.checks import check_number, is_pair
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class FCOSAssigner(BatchAssigner):
    """Points in a box that is of their level's size are its positives; the smallest box wins.

    The same boxes as stock's ``FCOSHead.get_targets``. Two differences: stock takes an area of
    1e8 px**2 for "no box", so that larger boxes go wrong there, not here; and half-precision
    boxes are measured in float32. As in stock, regions to ignore are not looked at. The rule is
    in :func:`mmdet_ext.functional.assignment.fcos.fcos_match`.

    Priors are points (x, y, stride, stride), as stock's ``MlvlPointGenerator`` gives them with
    ``with_stride=True``. Levels are told by ``num_level_priors``; where the head gives none, by
    the strides, the smallest first.

    Args:
        regress_ranges: for each level from which to which longest distance to a side its points
            take boxes, px.
        center_sampling: whether only points near the box's centre are positive.
        center_sample_radius: how near, in strides of the point's level.

    Raises:
        ValueError: if a range is not a pair (from, to) with from < to, or the radius not above 0.
    """

    def __init__(
        self,
        regress_ranges: Sequence[tuple[float, float]] = (
            (-1, 64),
            (64, 128),
            (128, 256),
            (256, 512),
            (512, 1e8),
        ),
        center_sampling: bool = False,
        center_sample_radius: float = 1.5,
    ) -> None:
        if not isinstance(regress_ranges, (list, tuple)) or len(regress_ranges) == 0:
            raise ValueError(
                f'regress_ranges must be pairs (from, to), one a level, got {regress_ranges!r}'
            )
        for pair in regress_ranges:
            if not is_pair(pair) or not pair[0] < pair[1]:
                raise ValueError(
                    f'regress_ranges must be pairs (from, to) with from < to, got {pair!r}'
                )
        check_number(
            'center_sample_radius', center_sample_radius, 'above 0', lambda radius: radius > 0
        )
        self.regress_ranges = tuple((float(low), float(high)) for low, high in regress_ranges)
        self.center_sampling = center_sampling
        self.center_sample_radius = center_sample_radius

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the points of all images.

        Args:
            geometry: priors as points (x, y, stride, stride).
            predictions: not looked at.

        Returns:
            Assignment: ``overlap`` is the centre-ness of a point in its box.

        Raises:
            ValueError: if there are more or fewer levels than ``regress_ranges``, or a box is not
                finite.
        """
        geometry.check_ground_truth()
        levels = point_levels(geometry.priors, geometry.level_sizes, len(self.regress_ranges))
        gt_index, overlap = fcos_match(
            geometry.priors,
            levels,
            geometry.gt_boxes,
            geometry.gt_valid,
            self.regress_ranges,
            center_radius=self.center_sample_radius if self.center_sampling else None,
            prior_valid=geometry.prior_valid,
        )
        return Assignment(gt_index, overlap)
