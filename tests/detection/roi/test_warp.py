"""R-CNN: a network on each warped crop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.pooling.warp import warp_regions
from tests.detection.roi.roi_parts import (
    CLASSES,
    SIZE,
    assert_trains_and_predicts,
    build,
    random_rois,
    roi_head,
)

NETWORK = dict(type='ResNet', depth=18, base_channels=4, out_indices=(2, 3))
OPTIONS = dict(backbone=NETWORK, out_channels=32, output_size=1, crop_size=32, context=4)


def images() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def extractor(**options: Any) -> Any:
    torch.manual_seed(0)
    return build('RCNNWarpRoIExtractor', **{**OPTIONS, **options})


def test_the_features_are_those_of_the_crops() -> None:
    part, rois = extractor().eval(), random_rois(5)
    with torch.no_grad():
        expected = part.backbone(warp_regions(images(), rois, 32, 4))[-1]
        torch.testing.assert_close(part((images(),), rois), expected)


def test_a_test_runs_few_crops_at_once_and_training_all() -> None:
    part, rois = extractor(crops_per_run=2), random_rois(5)
    counts: list[int] = []
    part.backbone.register_forward_pre_hook(lambda _, args: counts.append(len(args[0])))
    part((images(),), rois)
    assert counts == [5]
    part.eval()
    with torch.no_grad():
        few = part((images(),), rois)
        assert counts == [5, 2, 2, 1]
        part.crops_per_run = 5
        torch.testing.assert_close(few, part((images(),), rois))


def test_without_rois_there_are_no_features() -> None:
    assert extractor()((images(),), torch.zeros(0, 5)).shape == (0, 32, 1, 1)


def test_a_head_trains_and_predicts() -> None:
    head = roi_head(
        bbox_roi_extractor=dict(type='mmdet_ext.RCNNWarpRoIExtractor', **OPTIONS),
        bbox_head=dict(
            type='BBoxHead',
            with_avg_pool=True,
            in_channels=32,
            roi_feat_size=1,
            num_classes=CLASSES,
        ),
    )
    assert_trains_and_predicts(head, (images(),))


def test_the_backbone_gives_the_image_alone() -> None:
    (found,) = build('IdentityBackbone')(images())
    assert torch.equal(found, images())


@pytest.mark.parametrize(
    'feats', [(torch.zeros(1, 64, 8, 8),), (torch.zeros(1, 3, 8, 8),) * 2], ids=['maps', 'levels']
)
def test_features_in_place_of_the_image_are_refused(feats: tuple[Tensor, ...]) -> None:
    with pytest.raises(ValueError, match=r'takes the image, one map of 3 channels, got .*Identity'):
        extractor()(feats, random_rois(1))


def test_a_network_of_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r'makes \(32, 1, 1\) of a crop of 32 px, .* \(16, 1, 1\)'):
        extractor(out_channels=16)((images(),), random_rois(2))
    with pytest.raises(ValueError, match=r'makes \(32, 2, 2\) of a crop of 64 px, .* \(32, 1, 1\)'):
        extractor(crop_size=64)((images(),), random_rois(2))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(context=16), 'context must be less than half of size=32, got 16'),
        (dict(out_channels=0), 'out_channels must be at least 1, got 0'),
        (dict(crops_per_run=0), 'crops_per_run must be at least 1, got 0'),
    ],
)
def test_a_wrong_option_is_named(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extractor(**options)
