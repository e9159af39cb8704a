"""Measures of how well boxes fit, with the call of mmdet's ``BboxOverlaps2D``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor

from mmdet_ext.detection.host import as_tensor
from mmdet_ext.functional.boxes.overlap import box_nwd, pairwise_box_iof
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.numerics.chunks import row_chunks
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class NWDCalculator:
    """Normalised Gaussian Wasserstein distance in place of the IoU, for tiny objects.

    mmdet's assigners and ours take it::

        assigner=dict(
            type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3,
            iou_calculator=dict(type='mmdet_ext.NWDCalculator'))

    Values are those of :func:`mmdet_ext.functional.boxes.overlap.box_nwd`. Half precision is
    computed in float32. Beside the table of results, little memory is used.

    Args:
        constant: px, above 0 and finite; of the order of the objects' size. The paper's authors
            take 12.8 for AI-TOD.

    Raises:
        ValueError: if ``constant`` is not a finite number above 0.

    References:
        Wang et al., A Normalized Gaussian Wasserstein Distance for Tiny Object Detection, 2021,
        equation 8 and section 3.3.
    """

    def __init__(self, constant: float = 12.8) -> None:
        check_number('constant', constant, finite=True)
        check_number('constant', constant, above=0)
        self.constant = constant

    def __call__(
        self,
        bboxes1: Any,
        bboxes2: Any,
        mode: Literal['iou', 'iof'] = 'iou',
        is_aligned: bool = False,
    ) -> Tensor:
        """Measure pairs of boxes.

        Args:
            bboxes1: (..., N, 4) corners, px, or (..., N, 5) with a score, which is not used; a
                tensor or one of mmdet's box types.
            bboxes2: (..., M, 4) or (..., M, 5), as ``bboxes1``.
            mode: 'iou' gives the similarity. 'iof' gives the share of the first box that lies in
                the second, as mmdet's calculator does: assigners find priors in ignore regions
                with it.
            is_aligned: whether to measure each box with that of the same index; N is then M.

        Returns:
            Tensor: (..., N, M), or (..., N) where aligned, in [0, 1].

        Raises:
            ValueError: if ``mode`` or a shape does not fit.
        """
        boxes, others = promote_half(_corners('bboxes1', bboxes1), _corners('bboxes2', bboxes2))
        if mode not in ('iou', 'iof'):
            raise ValueError(
                f"NWDCalculator knows the modes 'iou' and 'iof', got {mode!r}; use mmdet's "
                'BboxOverlaps2D for others'
            )
        measure = partial(box_nwd, constant=self.constant) if mode == 'iou' else _aligned_iof
        if not is_aligned:
            return _table(measure, boxes, others)
        if boxes.shape != others.shape:
            raise ValueError(
                'is_aligned needs boxes of one shape, got '
                f'{tuple(boxes.shape)} and {tuple(others.shape)}'
            )
        return measure(boxes, others)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(constant={self.constant})'


def _corners(name: str, bboxes: Any) -> Tensor:
    """Return the corners (..., N, 4) of boxes with or without a score."""
    boxes = as_tensor(bboxes)
    if boxes.dim() < 2 or boxes.shape[-1] not in (4, 5):
        raise ValueError(f'{name} must be (..., N, 4) or (..., N, 5), got {tuple(boxes.shape)}')
    return boxes[..., :4]


def _aligned_iof(boxes: Tensor, others: Tensor) -> Tensor:
    return pairwise_box_iof(boxes[..., None, :], others[..., None, :])[..., 0, 0]


def _table(measure: Callable[[Tensor, Tensor], Tensor], boxes: Tensor, others: Tensor) -> Tensor:
    """Measure all pairs, (..., N, M), some rows at a time."""
    rows, columns = boxes.shape[-2], others.shape[-2]
    table = boxes.new_empty((*boxes.shape[:-1], columns))
    images = boxes[..., 0, 0].numel() if rows else 1
    for start, stop in row_chunks(rows, images * columns * 4):
        part = boxes[..., start:stop, None, :]
        table[..., start:stop, :] = measure(part, others[..., None, :, :])
    return table
