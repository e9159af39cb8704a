"""CutMix: pixels and boxes by counting pixels, chance, images of two sizes, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.datasets import MultiImageMixDataset
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import BaseDataset

from mmdet_ext.detection.transforms.cutmix import inside, outside
from mmdet_ext.registry import TRANSFORMS

SIZE = 32


def build(**options: Any) -> Any:
    return TRANSFORMS.build(dict(type='mmdet_ext.CutMix', **options))


def sample(value: int, boxes: Any, height: int = SIZE, width: int = SIZE) -> dict[str, Any]:
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return dict(
        img=np.full((height, width, 3), value, np.uint8),
        img_shape=(height, width),
        gt_bboxes=HorizontalBoxes(corners),
        gt_bboxes_labels=np.arange(len(corners)) + value,
        gt_ignore_flags=np.zeros(len(corners), bool),
    )


def mixed(transform: Any, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = transform(dict(one, mix_results=[other]))
    return found


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = rng.integers(0, SIZE + 1, (4 * count, 4))
    start, end = (
        np.minimum(corners[:, :2], corners[:, 2:]),
        np.maximum(corners[:, :2], corners[:, 2:]),
    )
    boxes = np.concatenate([start, end], 1)
    return boxes[(end > start).all(1)][:count]


@pytest.mark.parametrize('seed', range(5))
def test_boxes_and_shares_are_those_of_the_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 60)
    (left, top, right, bottom) = rectangle = tuple(random_boxes(rng, 1)[0].tolist())
    own = np.zeros((SIZE, SIZE), bool)
    own[top:bottom, left:right] = True
    tensor = torch.tensor(boxes, dtype=torch.float32)
    for found, pixels in ((inside(tensor, rectangle), own), (outside(tensor, rectangle), ~own)):
        for box, cut, share in zip(boxes, *found, strict=True):
            part = np.zeros_like(own)
            part[box[1] : box[3], box[0] : box[2]] = True
            seen = part & pixels
            assert float(share) == pytest.approx(seen.sum() / part.sum(), abs=1e-6)
            if seen.any():
                y, x = np.nonzero(seen)
                assert cut.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_a_rectangle_and_its_objects_come_from_the_other_image() -> None:
    transform = build(prob=1.0, min_visible=0.5)
    transform._draw = lambda: (True, 0.75, 0.5, 0.5)  # the middle quarter, from 8 to 24
    one = sample(0, [[0, 0, 6, 6], [10, 10, 20, 20], [10, 4, 20, 18], [4, 20, 10, 30]])
    other = sample(100, [[9, 9, 20, 20], [20, 20, 30, 30], [0, 0, 5, 5]])
    found = mixed(transform, one, other)
    image = found['img']
    assert (image[8:24, 8:24] == 100).all()
    assert (image == 100).sum() == 3 * 16 * 16
    # In order: untouched, removed; four of fourteen rows are left, too few; 52 of 60 px; then the
    # other image's: whole, 16 of 100 px, removed.
    assert found['gt_bboxes_labels'].tolist() == [0, 2, 3, 100, 101]
    assert found['gt_ignore_flags'].tolist() == [False, True, False, False, True]
    assert found['gt_bboxes'].tensor.tolist() == [
        [0, 0, 6, 6],
        [10, 4, 20, 8],
        [4, 20, 10, 30],
        [9, 9, 20, 20],
        [20, 20, 24, 24],
    ]


def test_inputs_stay_as_they_are_and_boxes_may_be_arrays() -> None:
    transform = build(prob=1.0)
    transform._draw = lambda: (True, 0.5, 0.5, 0.5)
    one, other = sample(0, [[0, 0, 9, 9]]), sample(9, [[8, 8, 20, 20]])
    image, boxes = one['img'], other['gt_bboxes'].tensor.clone()
    mixed(transform, one, other)
    assert not image.any()
    assert torch.equal(other['gt_bboxes'].tensor, boxes)
    for each in (one, other):
        each['gt_bboxes'] = each['gt_bboxes'].tensor.numpy()
    assert isinstance(mixed(transform, one, other)['gt_bboxes'], np.ndarray)


@pytest.mark.parametrize(('height', 'width'), [(8, 40), (40, 8), (1, 1), (64, 64)])
def test_the_other_image_may_have_another_size(height: int, width: int) -> None:
    transform = build(prob=1.0)
    np.random.seed(0)
    for _ in range(50):
        found = mixed(transform, sample(0, [[0, 0, 9, 9]]), sample(9, [], height, width))
        assert found['img'].shape == (SIZE, SIZE, 3)
        assert not found['img'][height:].any() and not found['img'][:, width:].any()


def test_the_share_that_is_kept_follows_the_beta_distribution() -> None:
    transform = build(prob=1.0, alpha=4.0)
    np.random.seed(0)
    draws = [transform._draw() for _ in range(4000)]
    kept = np.array([draw[1] for draw in draws])
    assert kept.mean() == pytest.approx(0.5, abs=0.01)
    assert kept.var() == pytest.approx(1 / (4 * 9), abs=0.002)  # 1 / (4 (2 alpha + 1))
    rare = build(prob=0.1)
    assert np.mean([rare._draw()[0] for _ in range(4000)]) == pytest.approx(0.1, abs=0.02)


def test_images_without_objects_and_a_probability_of_zero() -> None:
    nothing = sample(0, [])
    found = mixed(build(prob=0.0), nothing, sample(9, [[0, 0, 5, 5]]))
    assert not found['img'].any() and len(found['gt_bboxes']) == 0
    np.random.seed(0)
    found = mixed(build(prob=1.0), nothing, sample(9, []))
    assert found['gt_bboxes'].tensor.shape == (0, 4)
    assert found['gt_ignore_flags'].dtype == bool


class Images(BaseDataset):  # type: ignore[misc]
    """Data set of three images."""

    def load_data_list(self) -> list[dict[str, Any]]:
        return [sample(50 * number, [[2, 2, 30, 30]]) for number in range(3)]


def test_the_data_set_of_mixed_images_gives_the_other_one() -> None:
    images = Images(serialize_data=False)
    dataset = MultiImageMixDataset(images, [dict(type='mmdet_ext.CutMix', prob=1.0)])
    np.random.seed(0)
    values = {tuple(np.unique(dataset[1]['img'])) for _ in range(40)}
    assert {(0, 50), (50, 100), (50,)} <= values
    assert 'mix_results' not in dataset[0]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'prob': 1.5}, 'prob must be'),
        ({'alpha': 0}, 'alpha must be'),
        ({'min_visible': 0}, 'min_visible must be'),
    ],
)
def test_options_out_of_range_are_named(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_masks_and_a_missing_image_are_named() -> None:
    one = sample(0, [[0, 0, 5, 5]])
    with pytest.raises(ValueError, match='mix_results must be one image'):
        build()(dict(one))
    with pytest.raises(ValueError, match='gt_masks must be left out'):
        build()(dict(one, gt_masks=object(), mix_results=[sample(1, [])]))
