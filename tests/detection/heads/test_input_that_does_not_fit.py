"""Input that does not fit a dense head: levels, strides and classes are named with both numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample

from tests._helpers.dense_heads import (
    ALL_HEADS,
    CHANNELS,
    CLASSES,
    HEIGHT,
    WIDTH,
    Batch,
    build,
)

pytestmark = pytest.mark.usefixtures('epoch')


def samples(batch: Batch, shape: tuple[int, int] | None = (HEIGHT, WIDTH)) -> list[DetDataSample]:
    """Return a batch's ground truth as mmdet's detectors give it to a head."""
    found = []
    for gts, meta in zip(batch.gts, batch.metas, strict=True):
        sample = DetDataSample(gt_instances=gts, ignored_instances=batch.ignored[len(found)])
        size = {} if shape is None else dict(batch_input_shape=shape)
        sample.set_metainfo({**meta, **size, 'scale_factor': (1.0, 1.0)})
        found.append(sample)
    return found


@pytest.mark.parametrize('count', [2, 4])
@pytest.mark.parametrize('name', ALL_HEADS)
def test_more_or_fewer_maps_than_levels(name: str, count: int) -> None:
    head = build(name, 'mmdet_ext')
    features = [torch.zeros(1, CHANNELS, 8, 8)] * count
    with pytest.raises(
        ValueError, match=rf'{name} has 3 levels, with strides .*8, 8.* of {count} levels. Give'
    ):
        head(features)


@pytest.mark.parametrize('name', ['FCOSHead', 'ATSSHead', 'GFLHead'])
def test_mmdet_leaves_out_a_map_beyond_its_strides_without_a_word(name: str) -> None:
    theirs = build(name, 'mmdet')
    outputs = theirs([torch.zeros(1, CHANNELS, 8, 8)] * 4)
    assert len(outputs[0]) == 3


@pytest.mark.parametrize('name', ALL_HEADS)
def test_maps_of_another_stride(name: str) -> None:
    head, batch = build(name, 'mmdet_ext'), Batch((2, 1))
    shape = (2 * HEIGHT, 2 * WIDTH)
    wanted = (
        rf'{name} has the stride \(8, 8\) in level 0, which makes 24 x 32 cells of a batch of '
        r'\(192, 256\) px, but got a feature map of 12 x 16'
    )
    with pytest.raises(ValueError, match=wanted):
        head.loss(batch.features, samples(batch, shape))
    with pytest.raises(ValueError, match=wanted):
        head.eval().predict(batch.features, samples(batch, shape))


@pytest.mark.parametrize('shape', [(HEIGHT, WIDTH), (HEIGHT - 7, WIDTH + 8), None], ids=str)
@pytest.mark.parametrize('name', ALL_HEADS)
def test_maps_that_fit_pass(name: str, shape: tuple[int, int] | None) -> None:
    head, batch = build(name, 'mmdet_ext'), Batch((2, 0, 1))
    losses = head.loss(batch.features, samples(batch, shape))
    for part in losses.values():
        assert all(each.isfinite().all() for each in (part if isinstance(part, list) else [part]))


@pytest.mark.parametrize('label', [CLASSES, CLASSES + 5])
@pytest.mark.parametrize('name', ALL_HEADS)
def test_a_data_set_of_more_classes(name: str, label: int) -> None:
    head, batch = build(name, 'mmdet_ext'), Batch((2, 3))
    batch.gts[1].labels[1] = label
    wanted = (
        rf'{name} has num_classes={CLASSES}, but the ground truth has the label {label}, so that '
        rf'the data set has at least {label + 1} classes'
    )
    with pytest.raises(ValueError, match=wanted):
        head.loss(batch.features, samples(batch))


def test_a_map_of_one_axis_is_named_too() -> None:
    head, batch = build('FCOSHead', 'mmdet_ext'), Batch((1,))
    features: list[Any] = [each[..., : each.shape[-1] // 2] for each in batch.features]
    with pytest.raises(ValueError, match='makes 12 x 16 cells .* got a feature map of 12 x 8'):
        head.loss(features, samples(batch))
