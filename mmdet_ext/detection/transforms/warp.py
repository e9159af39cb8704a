"""Resizing by one warp, whose corners are aligned, with random changes of shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import Resize
from mmdet.structures.bbox import autocast_box_type
from numpy.typing import NDArray

from mmdet_ext.functional.numerics.checks import (
    check_number,
    check_that,
    is_number,
    is_pair,
    is_whole,
)
from mmdet_ext.registry import TRANSFORMS

Matrix = NDArray[np.float64]
Range = Sequence[float]


@TRANSFORMS.register_module()
class WarpResize(Resize):  # type: ignore[misc]
    r"""Resize of images and boxes to a fixed size, without their ratio, by one warp.

    mmdet's ``Resize`` aligns the outer borders of the first and last pixels (``cv2.resize``). This
    transform maps pixel (0, 0) to (0, 0) and scales from there, as NanoDet does by
    ``cv2.warpPerspective``. For weights that were trained so, the images must be warped so too.

    In training the image can be changed at random about its centre, all within the one warp:

    .. math::
        M = \begin{pmatrix} w'/w & & \\ & h'/h & \\ & & 1 \end{pmatrix} T(c + t) \;
            \begin{pmatrix} a s_x & & \\ & a s_y & \\ & & 1 \end{pmatrix} T(-c)

    with :math:`w \times h` the size of the image, :math:`w' \times h'` = ``scale``, :math:`c` the
    centre, :math:`a` drawn from ``zoom``, :math:`s_x, s_y` from ``stretch``, :math:`t_x` from
    :math:`\pm` ``translate`` :math:`w`, and :math:`t_y` in the same way. Boxes are
    clipped to the image; those that lie outside of it are removed. What lies outside of the old
    image is black.

    Required keys: img, and gt_bboxes, gt_bboxes_labels, gt_ignore_flags where there are boxes.

    Changed keys: img, img_shape, gt_bboxes, gt_bboxes_labels, gt_ignore_flags.

    Added keys: scale, scale_factor, keep_ratio, homography_matrix. The scale factor is that of
    the size alone.

    Args:
        scale: width and height, px.
        zoom: range of the factor on both sides.
        stretch: range of the factor on each side of its own.
        translate: largest shift, as a share of the side, at least 0.

    Raises:
        ValueError: if an option is out of its range, or, in use, there are masks or maps, which a
            change of shape does not take.

    References:
        RangiLyu, NanoDet-Plus, 2021, https://github.com/RangiLyu/nanodet.
    """

    def __init__(
        self,
        scale: Sequence[int],
        zoom: Range = (1.0, 1.0),
        stretch: Range = (1.0, 1.0),
        translate: float = 0.0,
    ) -> None:
        check_that(
            is_pair(scale) and all(is_whole(each) and each >= 1 for each in scale),
            'scale',
            scale,
            'a width and a height of at least 1 px',
        )
        for name, value in (('zoom', zoom), ('stretch', stretch)):
            check_that(
                is_pair(value)
                and all(is_number(each) and 0 < each < float('inf') for each in value)
                and value[0] <= value[1],
                name,
                value,
                'two factors above 0, the smaller one first',
            )
        check_number('translate', translate, least=0, finite=True)
        super().__init__(scale=tuple(scale), keep_ratio=False)
        self.zoom = tuple(zoom)
        self.stretch = tuple(stretch)
        self.translate = translate

    @property
    def is_random(self) -> bool:
        """Return whether the options leave anything to chance."""
        return self.zoom != (1, 1) or self.stretch != (1, 1) or self.translate > 0

    @cache_randomness
    def _draw(self) -> tuple[float, float, float, float]:
        """Draw the factors on both sides, and the shifts as shares of the sides."""
        zoom = np.random.uniform(self.zoom[0], self.zoom[1])
        across, down = np.random.uniform(self.stretch[0], self.stretch[1], size=2)
        right, below = np.random.uniform(-self.translate, self.translate, size=2)
        return zoom * across, zoom * down, right, below

    def _matrix(self, height: int, width: int) -> Matrix:
        """Return the change of shape (3, 3) of an image of a size, before it is resized."""
        across, down, right, below = self._draw()
        x, y = width / 2, height / 2
        return np.array(
            [
                [across, 0.0, x - across * x + right * width],
                [0.0, down, y - down * y + below * height],
                [0.0, 0.0, 1.0],
            ]
        )

    def _resize_img(self, results: dict[str, Any], change: Matrix | None = None) -> None:
        """Warp the image, and note what the size makes of it."""
        (width, height), image = results['scale'], results['img']
        factors = (width / image.shape[1], height / image.shape[0])
        matrix = np.diag([*factors, 1.0])
        if change is not None:
            matrix = matrix @ change
        results['img'] = cv2.warpPerspective(image, matrix, (width, height))
        results['img_shape'] = results['img'].shape[:2]
        results['scale_factor'] = factors
        results['keep_ratio'] = False

    @autocast_box_type()
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Warp the image and its boxes.

        Args:
            results: dict with the keys above.
        """
        if not self.is_random:
            return super().transform(results)
        for key in ('gt_masks', 'gt_seg_map'):
            if results.get(key) is not None:
                raise ValueError(
                    f'WarpResize changes the shape of images with boxes, but got {key}: leave '
                    'zoom, stretch and translate out, or load no masks and maps'
                )
        results['scale'] = self.scale
        height, width = results['img'].shape[:2]
        change = self._matrix(height, width)
        self._resize_img(results, change)
        if results.get('gt_bboxes') is not None:
            boxes = results['gt_bboxes']
            boxes.project_((np.diag([*results['scale_factor'], 1.0]) @ change).astype(np.float32))
            # By whether they lie inside: clipped boxes all do.
            kept = boxes.is_inside(results['img_shape']).numpy()
            boxes.clip_(results['img_shape'])
            results['gt_bboxes'] = boxes[kept]
            for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
                if key in results:
                    results[key] = results[key][kept]
        before = results.get('homography_matrix', np.eye(3, dtype=np.float32))
        results['homography_matrix'] = change.astype(np.float32) @ before
        self._record_homography_matrix(results)
        return results

    def __repr__(self) -> str:
        """Return the name with the options."""
        return (
            f'{type(self).__name__}(scale={self.scale}, zoom={self.zoom}, '
            f'stretch={self.stretch}, translate={self.translate})'
        )
