"""Assigner of FCOS."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet_ext.detection.assigners.base import BatchAssigner, with_area
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.fcos import fcos_match
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.numerics.checks import check_number, check_that, is_pair
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class FCOSAssigner(BatchAssigner):
    """Assigner of each point to the smallest box around it that fits the size of its level.

    The assignment equals that of mmdet's ``FCOSHead.get_targets``, with two differences: mmdet
    takes an area of 1e8 px**2 for "no box", so that larger boxes are wrong there, and right here;
    and half-precision boxes are measured in float32. As in mmdet, ignore regions do not count.
    The rule is in :func:`mmdet_ext.functional.assignment.fcos.fcos_match`.

    Priors are points (x, y, stride, stride), as mmdet's ``MlvlPointGenerator`` gives them with
    ``with_stride=True``. ``num_level_priors`` gives the levels; where the head passes none, each
    distinct stride is a level, the smallest first.

    Args:
        regress_ranges: (from, to) for each level, px: its points take the boxes whose largest
            distance to a side is in this range.
        center_sampling: whether only points near the box's centre are positive.
        center_sample_radius: largest distance from the centre along each axis, in strides.

    Raises:
        ValueError: if a range is not a pair (from, to) with from < to, or the radius not above 0.
    """

    prior_form = 'points'
    predictions_used = ()

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
        given = isinstance(regress_ranges, (list, tuple)) and len(regress_ranges) > 0
        wanted = 'pairs (from, to), one per level'
        check_that(given, 'regress_ranges', regress_ranges, wanted)
        for pair in regress_ranges:
            ordered = is_pair(pair) and pair[0] < pair[1]
            check_that(ordered, 'regress_ranges', pair, 'pairs (from, to) with from < to')
        check_number('center_sample_radius', center_sample_radius, above=0)
        self.regress_ranges = tuple((float(low), float(high)) for low, high in regress_ranges)
        self.center_sampling = center_sampling
        self.center_sample_radius = center_sample_radius

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the points of all images.

        Args:
            geometry: priors as points.
            predictions: not used.

        Returns:
            Assignment: ``overlap`` is the centerness of a point in its box.

        Raises:
            ValueError: if there are more or fewer levels than ``regress_ranges``, or a box is not
                finite.
        """
        geometry = with_area(geometry)
        radius = self.center_sample_radius if self.center_sampling else None
        return fcos_match(geometry, self.regress_ranges, center_radius=radius)
