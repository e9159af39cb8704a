"""Assigner of CenterNet, and the heatmaps that its head learns."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner, with_area
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.center_heatmap import (
    SharedCell,
    center_heatmaps,
    center_match,
)
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class CenterNetAssigner(BatchAssigner):
    """Assigner of each box to the cell that holds its centre; it also draws the heatmaps.

    The heatmaps equal those of mmdet's ``CenterNetHead.get_targets``, drawn without a loop over
    boxes. Where the centres of several boxes lie in one cell, mmdet gives it to the last, so that
    the result depends on the order of the boxes; here the smallest gets it, and ``shared='last'``
    is mmdet's choice. A box whose centre lies outside of the heatmap gets no cell and is not
    drawn; mmdet raises an error or draws it in another place.

    Priors are the points (x, y, stride, stride) of one level, as mmdet's ``MlvlPointGenerator``
    gives them with ``with_stride=True``.

    Args:
        min_overlap: a Gaussian reaches as far as a box's corners may move for the IoU to stay
            at least this; above 0, below 1.
        shared: box that gets a cell which several boxes claim: the 'smallest', or the 'last'.

    Raises:
        ValueError: if an option is out of its range.
    """

    prior_form = 'points'
    one_level = True
    predictions_used = ()

    def __init__(self, min_overlap: float = 0.3, shared: SharedCell = 'smallest') -> None:
        check_number('min_overlap', min_overlap, above=0, below=1)
        check_one_of('shared', shared, ('smallest', 'last'))
        self.min_overlap = min_overlap
        self.shared: SharedCell = shared

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the cells of all images.

        Args:
            geometry: priors as the points of one level.
            predictions: not used.

        Returns:
            Assignment: all but the boxes' own cells are background; ``overlap`` is 1 in these.

        Raises:
            ValueError: if the priors are no full grid of one stride, or a box is not finite.
        """
        geometry = with_area(geometry)
        return center_match(geometry, self.shared)

    def heatmaps(self, geometry: BatchGeometry, num_classes: int) -> Tensor:
        """Draw the heatmaps that the head is to predict.

        Args:
            geometry: priors as the H x W points of one level.
            num_classes: number C of classes.

        Returns:
            Tensor: (B, C, H, W), in [0, 1]; exactly 1 in the cells of the class's boxes.

        Raises:
            ValueError: if the priors are no full grid of one stride, a box is not finite, or a
                label is not below C.
        """
        geometry = with_area(geometry)
        return center_heatmaps(geometry, num_classes, self.min_overlap)
