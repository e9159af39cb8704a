"""A rectangle of another image pasted over an image, with the boxes of what can still be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.structures.bbox import autocast_box_type
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number, check_that
from mmdet_ext.registry import TRANSFORMS

#: Left, top, right and bottom, px.
Rectangle = tuple[int, int, int, int]


@TRANSFORMS.register_module()
class CutMix(BaseTransform):  # type: ignore[misc]
    r"""Paste a rectangle of another image over an image, at the same place.

    The share of the area that the image keeps is drawn from a beta distribution, and the centre
    of the rectangle evenly over the image. What reaches beyond the border is cut off:

    .. math::
        \lambda \sim \text{Beta}(\alpha, \alpha), \qquad
        w_r = w \sqrt{1 - \lambda}, \quad h_r = h \sqrt{1 - \lambda}

    The paper mixes the labels of two images by their areas. A detector has boxes instead: objects
    of both images count if at least ``min_visible`` of their box is still seen. A box is cut
    where the rectangle takes a whole end of it, and otherwise stays as large as it was. Objects of
    which less is seen are ignored (``gt_ignore_flags``), and those of which nothing is are removed.

    It belongs into the pipeline of a ``MultiImageMixDataset``, which gives the other image. Where
    that is smaller, the rectangle is cut off at its border.

    Required keys: img, gt_bboxes, gt_bboxes_labels, gt_ignore_flags, mix_results.

    Changed keys: img, gt_bboxes, gt_bboxes_labels, gt_ignore_flags.

    Args:
        prob: probability of a rectangle, from 0 to 1.
        alpha: parameter of the beta distribution, above 0. 1 draws evenly; the larger it is, the
            closer to half of the image.
        min_visible: share of a box that must be seen for the object to count, above 0, at most 1.

    Raises:
        ValueError: for an option out of its range, or, in use, masks or maps, which are not mixed.

    References:
        Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features, 2019, section 3.1.
    """

    def __init__(self, prob: float = 0.5, alpha: float = 1.0, min_visible: float = 0.5) -> None:
        check_number('prob', prob, least=0, most=1)
        check_number('alpha', alpha, above=0, finite=True)
        check_number('min_visible', min_visible, above=0, most=1)
        self.prob = prob
        self.alpha = alpha
        self.min_visible = min_visible

    @cache_randomness
    def get_indexes(self, dataset: Any) -> int:
        """Draw the number of the other image."""
        return int(np.random.randint(len(dataset)))

    @cache_randomness
    def _draw(self) -> tuple[bool, float, float, float]:
        """Draw whether to paste, the share that is kept, and the centre as shares of the sides."""
        kept = np.random.beta(self.alpha, self.alpha)
        x, y, chance = np.random.uniform(size=3)
        return bool(chance < self.prob), kept, x, y

    def _rectangle(self, shape: tuple[int, int], other: tuple[int, int]) -> Rectangle | None:
        """Draw the rectangle for images of two sizes (height, width); None for nothing to paste."""
        pasted, kept, across, down = self._draw()
        if not pasted:
            return None
        half = 0.5 * (1 - kept) ** 0.5
        (height, width), (other_height, other_width) = shape, other
        left, right = (round(min(max(across + s * half, 0), 1) * width) for s in (-1, 1))
        top, bottom = (round(min(max(down + s * half, 0), 1) * height) for s in (-1, 1))
        right, bottom = min(right, other_width), min(bottom, other_height)
        return (left, top, right, bottom) if left < right and top < bottom else None

    @autocast_box_type()  # type: ignore[untyped-decorator]
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Paste a rectangle of ``results['mix_results'][0]``."""
        others = results.get('mix_results', ())
        check_that(len(others) == 1, 'mix_results', len(others), 'one image, of the data set')
        for each in (results, others[0]):
            for key in ('gt_masks', 'gt_seg_map'):
                check_that(each.get(key) is None, key, 'a value', 'left out: boxes alone are mixed')
        return self._paste(results, others[0])

    def _paste(self, results: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        shape, other_shape = results['img'].shape[:2], other['img'].shape[:2]
        rectangle = self._rectangle(shape, other_shape)
        if rectangle is None:
            return results
        left, top, right, bottom = rectangle
        image = results['img'].copy()
        image[top:bottom, left:right] = other['img'][top:bottom, left:right]
        results['img'] = image
        own, pasted = results['gt_bboxes'], other['gt_bboxes']
        parts = [
            (results, *outside(own.tensor, rectangle)),
            (other, *inside(pasted.tensor, rectangle)),
        ]
        seen = [share > 0 for _, _, share in parts]
        boxes = torch.cat([box[kept] for (_, box, _), kept in zip(parts, seen, strict=True)])
        results['gt_bboxes'] = type(own)(boxes, clone=False)
        ignored = [
            np.asarray(each['gt_ignore_flags'], bool) | (share < self.min_visible).numpy()
            for each, _, share in parts
        ]
        labels = [each['gt_bboxes_labels'] for each, _, _ in parts]
        for key, values in (('gt_bboxes_labels', labels), ('gt_ignore_flags', ignored)):
            results[key] = np.concatenate(
                [value[kept.numpy()] for value, kept in zip(values, seen, strict=True)]
            )
        return results

    def __repr__(self) -> str:
        """Return the name with the options."""
        return (
            f'{type(self).__name__}(prob={self.prob}, alpha={self.alpha}, '
            f'min_visible={self.min_visible})'
        )


def inside(boxes: Tensor, rectangle: Rectangle) -> tuple[Tensor, Tensor]:
    """Cut boxes to a rectangle.

    Args:
        boxes: x1, y1, x2 and y2, px, (N, 4).
        rectangle: px.

    Returns:
        tuple: the boxes within it, (N, 4), and their share of each box, (N,), 0 for boxes
        without area.
    """
    left, top, right, bottom = rectangle
    low, high = boxes.new_tensor([left, top]), boxes.new_tensor([right, bottom])
    start = torch.minimum(torch.maximum(boxes[:, :2], low), high)
    end = torch.maximum(torch.minimum(boxes[:, 2:], high), low)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    share = (end - start).clamp(min=0).prod(1) / area.clamp(min=torch.finfo(area.dtype).tiny)
    return torch.cat([start, end], 1), share


def outside(boxes: Tensor, rectangle: Rectangle) -> tuple[Tensor, Tensor]:
    """Cut boxes where a rectangle hides a whole end of them.

    Args:
        boxes: x1, y1, x2 and y2, px, (N, 4).
        rectangle: px.

    Returns:
        tuple: the smallest boxes around what is seen, (N, 4), and the share of each box that is
        seen, (N,), 0 for boxes without area.
    """
    cut = boxes.clone()
    for axis in range(2):
        low, high = rectangle[axis], rectangle[axis + 2]
        across = 1 - axis
        # The rectangle reaches over the box from side to side, and takes one of its ends.
        over = (boxes[:, across] >= rectangle[across]) & (
            boxes[:, across + 2] <= rectangle[across + 2]
        )
        start, end = boxes[:, axis], boxes[:, axis + 2]
        first = over & (start >= low) & (start < high) & (end > high)
        last = over & (end <= high) & (end > low) & (start < low)
        cut[first, axis] = float(high)
        cut[last, axis + 2] = float(low)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return cut, (1 - inside(boxes, rectangle)[1]).clamp(0, 1) * has_area
