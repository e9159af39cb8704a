"""Behaviours that every RoI extractor of ours has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.detection.roi.roi_parts import SIZE, build, random_rois

NETWORK = dict(type='ResNet', depth=18, base_channels=4, out_indices=(3,))
#: Name -> type, options, channels and stride of the features that it takes.
EXTRACTORS: dict[str, tuple[str, dict[str, Any], int, int]] = {
    'maps': ('PSRoIPool', dict(out_channels=2, output_size=3, featmap_strides=[8]), 18, 8),
    'features': (
        'PSRoIPool',
        dict(out_channels=2, output_size=3, featmap_strides=[8], in_channels=5),
        5,
        8,
    ),
    'interpolated': (
        'PSRoIPool',
        dict(out_channels=2, output_size=3, featmap_strides=[8], sampling_ratio=2),
        18,
        8,
    ),
    'pyramid': ('SPPRoIExtractor', dict(out_channels=3, featmap_strides=[8]), 3, 8),
    'warp': (
        'RCNNWarpRoIExtractor',
        dict(backbone=NETWORK, out_channels=32, output_size=1, crop_size=32, context=4),
        3,
        1,
    ),
}


@pytest.fixture(params=EXTRACTORS)
def case(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    """Return an extractor, and features of two images."""
    kind, options, channels, stride = EXTRACTORS[request.param]
    torch.manual_seed(0)
    features = torch.randn(2, channels, SIZE // stride, SIZE // stride)
    return build(kind, **options).eval(), features


@torch.no_grad()
def test_permuted_rois_give_permuted_features(case: tuple[Any, Tensor]) -> None:
    extractor, features = case
    rois = random_rois(12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    found = extractor((features,), rois)
    torch.testing.assert_close(extractor((features,), rois[order]), found[order])
    assert found.var(0).max() > 0


@torch.no_grad()
def test_a_batch_is_the_stack_of_its_images(case: tuple[Any, Tensor]) -> None:
    extractor, features = case
    rois = random_rois(12)
    found = extractor((features,), rois)
    for image in range(2):
        own = rois[rois[:, 0] == image].clone()
        assert len(own)
        own[:, 0] = 0
        alone = extractor((features[image : image + 1],), own)
        torch.testing.assert_close(alone, found[rois[:, 0] == image])


def test_autocast_gives_finite_features_and_gradients(case: tuple[Any, Tensor]) -> None:
    extractor, features = case
    features.requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        found = extractor((features,), random_rois(12))
        found.float().square().sum().backward()
    assert torch.isfinite(found).all() and found.any()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all() and features.grad.any()


def test_other_pixels_do_not_matter(case: tuple[Any, Tensor]) -> None:
    extractor, features = case
    # RoIs of the first image, in its upper left quarter; context reaches a little beyond.
    rois = random_rois(6, images=1)
    rois[:, 1:] /= 2
    far = features.clone()
    far[1] += 1
    edge = features.shape[-1] * 3 // 4
    far[0, :, edge:] += 1
    far[0, :, :, edge:] += 1
    with torch.no_grad():
        torch.testing.assert_close(extractor((far,), rois), extractor((features,), rois))
