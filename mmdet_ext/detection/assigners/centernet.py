"""CenterNet's targets: a cell a box, and heatmaps."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.center_heatmap import (
    Shared,
    center_cells,
    center_match,
    gaussian_heatmaps,
    gaussian_radius,
    heatmap_grid,
)
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class CenterNetAssigner(BatchAssigner):
    """The cell that holds a box's centre is its positive; heatmaps tell how near others are.

    Heatmaps are those of stock's ``CenterNetHead.get_targets``, drawn without a loop over boxes.
    Where the centres of several boxes lie in one cell, stock lets the last one have it, so that
    the result goes by the order of the boxes; here the smallest has it, and ``shared='last'``
    gives what stock does. A box whose centre lies outside of the heatmap has no cell and is not
    drawn; stock raises, or draws in another place.

    Priors are the points (x, y, stride, stride) of one level, as stock's ``MlvlPointGenerator``
    gives them with ``with_stride=True``.

    Args:
        min_overlap: a Gaussian reaches as far as a box's corners may move for the IoU to stay
            this large; above 0, below 1.
        shared: which of several boxes has a cell: the 'smallest', or the 'last' as in stock.

    Raises:
        ValueError: if an option is out of its range.
    """

    def __init__(self, min_overlap: float = 0.3, shared: Shared = 'smallest') -> None:
        check_number('min_overlap', min_overlap, 'above 0 and below 1', lambda iou: 0 < iou < 1)
        if shared not in ('smallest', 'last'):
            raise ValueError(f"shared must be 'smallest' or 'last', got {shared!r}")
        self.min_overlap = min_overlap
        self.shared: Shared = shared

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the cells of all images.

        Args:
            geometry: priors as points (x, y, stride, stride) of one level.
            predictions: not looked at.

        Returns:
            Assignment: all but the boxes' own cells are background; ``overlap`` is 1 in these.

        Raises:
            ValueError: if the priors are no grid of one stride, or a box is not finite.
        """
        geometry.check_ground_truth()
        gt_index, overlap = center_match(
            heatmap_grid(geometry.priors),
            geometry.gt_boxes,
            geometry.gt_valid,
            shared=self.shared,
            prior_valid=geometry.prior_valid,
        )
        return Assignment(gt_index, overlap)

    def heatmaps(self, geometry: BatchGeometry, num_classes: int) -> Tensor:
        """What the heatmap of each class is to be.

        Args:
            geometry: priors as points (x, y, stride, stride) of one level of H x W.
            num_classes: C.

        Returns:
            Tensor: (B, C, H, W), in [0, 1]; exactly 1 in the cells of the class's boxes.

        Raises:
            ValueError: if the priors are no grid of one stride, a box is not finite, or a label is
                not below C.
        """
        geometry.check_ground_truth()
        grid = heatmap_grid(geometry.priors)
        (boxes,) = promote_half(geometry.gt_boxes)
        cells, inside = center_cells(grid, boxes)
        sides = (boxes[..., 2:] - boxes[..., :2]) / grid.stride
        return gaussian_heatmaps(
            cells,
            gaussian_radius(sides, self.min_overlap),
            geometry.gt_labels,
            geometry.gt_valid & inside,
            num_classes,
            (grid.rows, grid.columns),
        )
