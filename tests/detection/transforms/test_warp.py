"""WarpResize: values of pixels by the formula, boxes by the same matrix, chance, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import Resize
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from mmdet_ext.registry import TRANSFORMS

BOXES = [[2.0, 3.0, 10.0, 8.0], [0.0, 0.0, 24.0, 16.0]]


def build(**options: Any) -> Any:
    return TRANSFORMS.build(dict(type='mmdet_ext.WarpResize', **options))


def sample(height: int = 16, width: int = 24, boxes: Any = BOXES) -> dict[str, Any]:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    corners = torch.tensor(boxes).reshape(-1, 4)
    return dict(
        img=image,
        img_shape=(height, width),
        gt_bboxes=HorizontalBoxes(corners.clone()),
        gt_bboxes_labels=np.arange(len(corners)),
        gt_ignore_flags=np.zeros(len(corners), bool),
    )


def bilinear(image: Any, y: float, x: float) -> Any:
    """Return the pixel at a place between pixels; black outside."""
    bordered = np.pad(image.astype(float), ((0, 1), (0, 1), (0, 0)))
    row, column = int(y), int(x)
    down, right = y - row, x - column
    top = (1 - right) * bordered[row, column] + right * bordered[row, column + 1]
    low = (1 - right) * bordered[row + 1, column] + right * bordered[row + 1, column + 1]
    return (1 - down) * top + down * low


@pytest.mark.parametrize('scale', [(48, 32), (36, 40), (12, 8)], ids=str)
def test_pixels_are_those_of_the_scaled_place_with_corners_aligned(scale: tuple[int, int]) -> None:
    given = sample()
    image = given['img']
    found = build(scale=scale)(given)['img']
    assert found.shape == (scale[1], scale[0], 3)
    for y in range(scale[1]):
        for x in range(scale[0]):
            wanted = bilinear(image, y * 16 / scale[1], x * 24 / scale[0])
            # OpenCV has 5 bits for the place between two pixels.
            assert np.abs(found[y, x] - wanted).max() <= 255 / 32 + 1, (y, x)
    assert np.array_equal(found[0, 0], image[0, 0])


def test_it_is_not_the_resize_of_mmdet() -> None:
    ours, theirs = build(scale=(36, 40))(sample()), Resize((36, 40))(sample())
    assert np.abs(ours['img'].astype(int) - theirs['img']).max() > 9
    torch.testing.assert_close(ours['gt_bboxes'].tensor, theirs['gt_bboxes'].tensor)
    for key in ('scale', 'scale_factor', 'keep_ratio', 'img_shape'):
        assert ours[key] == theirs[key], key
    np.testing.assert_allclose(ours['homography_matrix'], theirs['homography_matrix'])


@pytest.mark.parametrize('seed', range(5))
def test_boxes_and_pixels_move_by_the_same_matrix(seed: int) -> None:
    """A white rectangle is found where its box says."""
    image = np.zeros((160, 240, 3), np.uint8)
    image[60:100, 90:150] = 255
    given = sample(160, 240, [[90.0, 60.0, 149.0, 99.0]])
    given['img'] = image
    np.random.seed(seed)
    warp = build(scale=(320, 320), zoom=(0.6, 1.4), stretch=(0.8, 1.2), translate=0.1)
    found = warp(given)
    rows, columns = np.nonzero(found['img'][..., 0] > 127)
    seen = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert np.abs(found['gt_bboxes'].tensor[0].numpy() - seen).max() <= 1.5
    corner = found['homography_matrix'] @ [90, 60, 1]
    np.testing.assert_allclose(corner[:2], found['gt_bboxes'].tensor[0, :2], atol=1e-3)


def test_factors_and_shifts_are_drawn_from_their_ranges() -> None:
    warp = build(scale=(240, 160), zoom=(0.5, 1.5), stretch=(0.8, 1.2), translate=0.25)
    drawn = []
    for seed in range(300):
        np.random.seed(seed)
        matrix = warp(sample(160, 240))['homography_matrix'].astype(float)
        center = matrix @ [120, 80, 1]
        drawn.append([matrix[0, 0], matrix[1, 1], center[0] / 240 - 0.5, center[1] / 160 - 0.5])
    across, down, right, below = np.array(drawn).T
    for side in (across, down):
        assert 0.4 <= side.min() < 0.55 and 1.5 < side.max() <= 1.8
    for shift in (right, below):
        assert -0.25 <= shift.min() < -0.2 and 0.2 < shift.max() <= 0.25
    ratio = across / down
    assert 0.8 / 1.2 <= ratio.min() < 0.75 and 1.3 < ratio.max() <= 1.2 / 0.8
    assert abs(np.corrcoef(right, below)[0, 1]) < 0.2


def test_boxes_are_clipped_and_those_outside_removed() -> None:
    warp = build(scale=(100, 100), zoom=(4.0, 4.0))
    given = sample(100, 100, [[40.0, 40.0, 90.0, 60.0], [0.0, 0.0, 20.0, 20.0]])
    given['gt_ignore_flags'] = np.array([True, False])
    found = warp(given)
    assert found['gt_bboxes'].tensor.tolist() == [[10.0, 10.0, 100.0, 90.0]]
    assert found['gt_bboxes_labels'].tolist() == [0]
    assert found['gt_ignore_flags'].tolist() == [True]
    empty = warp(sample(100, 100, []))
    assert empty['gt_bboxes'].tensor.shape == (0, 4)


@pytest.mark.parametrize('size', [(1, 1), (10, 8000)], ids=str)
@pytest.mark.parametrize('options', [{}, dict(zoom=(0.6, 1.4), translate=0.2)], ids=str)
def test_images_of_any_size(size: tuple[int, int], options: dict[str, Any]) -> None:
    height, width = size
    found = build(scale=(96, 64), **options)(sample(height, width, [[0.0, 0.0, width, height]]))
    assert found['img'].shape == (64, 96, 3) and found['img_shape'] == (64, 96)
    assert found['gt_bboxes'].tensor.isfinite().all() and len(found['gt_bboxes']) == 1


def test_masks_are_resized_but_not_changed_in_shape() -> None:
    masks = BitmapMasks(np.ones((2, 16, 24), np.uint8), 16, 24)
    plain = build(scale=(48, 32))(sample() | dict(gt_masks=masks))
    assert plain['gt_masks'].masks.shape == (2, 32, 48)
    with pytest.raises(ValueError, match='got gt_masks: leave zoom, stretch and translate out'):
        build(scale=(48, 32), translate=0.1)(sample() | dict(gt_masks=masks))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scale=320), 'scale must be a width and a height'),
        (dict(scale=(0, 320)), 'scale must be a width and a height'),
        (dict(scale=(3, 3), zoom=1.5), 'zoom must be two factors above 0'),
        (dict(scale=(3, 3), zoom=(1.5, 0.5)), 'zoom must be two factors above 0'),
        (dict(scale=(3, 3), stretch=(0, 1)), 'stretch must be two factors above 0'),
        (dict(scale=(3, 3), translate=-0.1), 'translate must be at least 0'),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_its_name_holds_its_options() -> None:
    warp = build(scale=[96, 64], zoom=(0.5, 1))
    text = 'WarpResize(scale=(96, 64), zoom=(0.5, 1), stretch=(1.0, 1.0), translate=0.0)'
    assert repr(warp) == text
