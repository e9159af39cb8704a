"""R-FCN and Light-Head R-CNN: bins that read maps of their own, votes, thin maps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import ps_roi_pool

from tests.detection.roi.roi_parts import (
    CLASSES,
    assert_trains_and_predicts,
    build,
    random_rois,
    roi_head,
)

SIDE = 3


def slow_pool(maps: Tensor, rois: Tensor, stride: float, outputs: int, side: int) -> Tensor:
    """Average each bin cell by cell; a bin without a cell is 0."""
    height, width = maps.shape[-2:]
    found = torch.zeros(len(rois), outputs, side, side)
    for number, roi in enumerate(rois.tolist()):
        image, *corners = (int(roi[0]), *(math.floor(each / stride + 0.5) for each in roi[1:]))
        left, top, right, bottom = corners
        wide, tall = max(right - left, 1) / side, max(bottom - top, 1) / side
        for output in range(outputs):
            for i in range(side):
                for j in range(side):
                    rows = range(math.floor(i * tall) + top, math.ceil((i + 1) * tall) + top)
                    columns = range(math.floor(j * wide) + left, math.ceil((j + 1) * wide) + left)
                    values = [
                        maps[image, (output * side + i) * side + j, row, column].item()
                        for row in rows
                        for column in columns
                        if 0 <= row < height and 0 <= column < width
                    ]
                    if values:
                        found[number, output, i, j] = sum(values) / len(values)
    return found


def extractor(**options: Any) -> Any:
    usual = dict(out_channels=2, featmap_strides=[8], output_size=SIDE)
    return build('PSRoIPool', **{**usual, **options})


def maps_of(channels: int, size: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(seed))


def test_equals_a_slow_mean_over_cells() -> None:
    maps, rois = maps_of(2 * SIDE**2), random_rois(40)
    expected = slow_pool(maps, rois, 8, 2, SIDE)
    torch.testing.assert_close(extractor()((maps,), rois), expected)


def test_the_last_row_and_column_are_read_which_torchvision_leaves_out() -> None:
    maps = torch.zeros(1, 1, 8, 8)
    maps[..., 7], maps[..., 7, :] = 1, 1
    roi = torch.tensor([[0.0, 0, 0, 64, 64]])
    # Where this fails, torchvision has mended it, and the extractor need not pad.
    assert ps_roi_pool(maps, roi, 1, 1 / 8).item() == 0
    found = extractor(out_channels=1, output_size=1)((maps,), roi)
    assert found.item() == pytest.approx(15 / 64)
    beyond = torch.tensor([[0.0, 56, 56, 80, 80]])
    assert extractor(out_channels=1, output_size=1)((maps,), beyond).item() == 1


@pytest.mark.parametrize('sampling_ratio', [None, 2, 0])
def test_each_bin_reads_its_own_map(sampling_ratio: int | None) -> None:
    # Map number m holds m everywhere, so that bin (i, j) of output c is 9 c + 3 i + j.
    maps = torch.arange(18.0)[None, :, None, None].expand(1, -1, 8, 8)
    roi = torch.tensor([[0.0, 8, 8, 56, 56]])
    found = extractor(sampling_ratio=sampling_ratio)((maps,), roi)
    torch.testing.assert_close(found, torch.arange(18.0).reshape(1, 2, 3, 3))


def test_a_convolution_makes_the_maps_of_features() -> None:
    part = extractor(in_channels=5)
    features, rois = maps_of(5), random_rois(10)
    expected = extractor()((part.maps(features),), rois)
    torch.testing.assert_close(part((features,), rois), expected)


def test_levels_are_chosen_by_size() -> None:
    part = extractor(featmap_strides=[8, 16], finest_scale=16)
    maps = (torch.ones(1, 18, 8, 8), torch.full((1, 18, 4, 4), 2.0))
    rois = torch.tensor([[0.0, 0, 0, 30, 30], [0, 0, 0, 60, 60]])
    assert part(maps, rois).mean((1, 2, 3)).tolist() == [1, 2]


def test_half_precision_is_computed_in_float32() -> None:
    maps, rois = maps_of(18), random_rois(10)
    found = extractor()((maps.half(),), rois)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, extractor()((maps.half().float(),), rois))


def test_no_rois_and_rois_without_area() -> None:
    maps = maps_of(18)
    assert extractor()((maps,), torch.zeros(0, 5)).shape == (0, 2, SIDE, SIDE)
    flat = torch.tensor([[0.0, 20, 20, 20, 20], [1, -50, -50, -40, -40], [0, 60, 60, 99, 99]])
    assert torch.isfinite(extractor()((maps,), flat)).all()


def test_features_of_other_channels_are_named_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r'features of 20 channels, and takes 18: out_channels=2'):
        extractor()((maps_of(20),), random_rois(1))
    with pytest.raises(ValueError, match='features of 20 channels, and takes 5: give them as'):
        extractor(in_channels=5)((maps_of(20),), random_rois(1))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(out_channels=0), 'out_channels must be at least 1, got 0'),
        (dict(output_size=0), 'output_size must be at least 1, got 0'),
        (dict(sampling_ratio=-1), 'sampling_ratio must be a whole number from 0 on, got -1'),
    ],
)
def test_a_wrong_option_of_the_extractor_is_named(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extractor(**options)


def test_bins_vote_by_their_mean() -> None:
    head = build('RFCNHead', num_classes=CLASSES, roi_feat_size=SIDE)
    x = torch.arange(8.0)[:, None, None].expand(8, SIDE, SIDE) + torch.tensor([-1.0, 0, 1])
    scores, boxes = head(x[None])
    assert scores.tolist() == [[0, 1, 2, 3]] and boxes.tolist() == [[4, 5, 6, 7]]
    assert list(head.parameters()) == []


def test_boxes_per_class_are_an_option() -> None:
    head = build('RFCNHead', num_classes=CLASSES, roi_feat_size=SIDE, reg_class_agnostic=False)
    scores, boxes = head(torch.zeros(5, 4 + 12, SIDE, SIDE))
    assert scores.shape == (5, 4) and boxes.shape == (5, 12)


def test_outputs_that_do_not_fit_the_classes_are_named_with_both_numbers() -> None:
    head = build('RFCNHead', num_classes=CLASSES, roi_feat_size=SIDE)
    with pytest.raises(ValueError, match='got 9 outputs per bin, and takes 8: 4 for num_classes=3'):
        head(torch.zeros(1, 9, SIDE, SIDE))
    with pytest.raises(ValueError, match='in_channels must be absent, got 4: R-FCN has no layers'):
        build('RFCNHead', num_classes=CLASSES, in_channels=4)


OHEM = dict(type='OHEMSampler', num=8, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True)


@pytest.mark.parametrize('sampler', [None, OHEM], ids=['random', 'OHEM'])
@pytest.mark.parametrize('agnostic', [True, False])
def test_rfcn_trains_and_predicts(sampler: Any, agnostic: bool) -> None:
    outputs = CLASSES + 1 + (4 if agnostic else 4 * CLASSES)
    head = roi_head(
        sampler=sampler,
        bbox_roi_extractor=dict(
            type='mmdet_ext.PSRoIPool',
            out_channels=outputs,
            featmap_strides=[8],
            output_size=SIDE,
            in_channels=5,
        ),
        bbox_head=dict(
            type='mmdet_ext.RFCNHead',
            num_classes=CLASSES,
            roi_feat_size=SIDE,
            reg_class_agnostic=agnostic,
        ),
    )
    assert_trains_and_predicts(head, (maps_of(5),))


def test_the_hardest_rois_are_those_of_the_highest_cross_entropy() -> None:
    # The maps are of one cell each, so that a RoI scores what its image does.
    head = build('RFCNHead', num_classes=1, roi_feat_size=1)
    scores, _ = head(torch.tensor([[2.0, -1, 0, 0, 0, 0], [-1, 2, 0, 0, 0, 0]])[..., None, None])
    loss = head.loss(scores, None, None, torch.tensor([1, 1]), torch.ones(2), None, None, 'none')[
        'loss_cls'
    ]
    expected = [math.log(1 + math.exp(3)), math.log(1 + math.exp(-3))]
    torch.testing.assert_close(loss, torch.tensor(expected))


def light_head(**changes: Any) -> Any:
    pool = dict(type='mmdet_ext.PSRoIPool', out_channels=10, featmap_strides=[8], output_size=SIDE)
    options = dict(
        in_channels=5,
        mid_channels=4,
        map_channels=10 * SIDE**2,
        kernel_size=7,
        bbox_roi_extractor=pool,
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_fcs=1,
            fc_out_channels=16,
            in_channels=10,
            roi_feat_size=SIDE,
            num_classes=CLASSES,
        ),
    )
    return roi_head('mmdet_ext.LightHeadRoIHead', **{**options, **changes})


@pytest.mark.parametrize('sampler', [None, OHEM], ids=['random', 'OHEM'])
def test_light_head_trains_and_predicts(sampler: Any) -> None:
    assert_trains_and_predicts(light_head(sampler=sampler), (maps_of(5),))


def test_thin_maps_may_be_pooled_by_roi_align() -> None:
    extractor = dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=SIDE),
        out_channels=12,
        featmap_strides=[8],
    )
    box = dict(
        type='ConvFCBBoxHead',
        num_shared_fcs=1,
        fc_out_channels=16,
        in_channels=12,
        roi_feat_size=SIDE,
        num_classes=CLASSES,
    )
    head = light_head(bbox_roi_extractor=extractor, bbox_head=box, map_channels=12)
    assert_trains_and_predicts(head, (maps_of(5),))


def test_a_large_separable_convolution_is_the_sum_of_two_orders() -> None:
    conv = light_head().thin_maps
    x = maps_of(5, size=9)

    def convolved(x: Tensor, layer: Any, height: int, width: int) -> Tensor:
        padded = F.pad(x, (width // 2, width // 2, height // 2, height // 2))
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        summed = torch.einsum('bchwij,ocij->bohw', windows, layer.weight)
        return summed + layer.bias[:, None, None]

    (a, b), (c, d) = conv.tall_first, conv.wide_first
    expected = convolved(convolved(x, a, 7, 1), b, 1, 7)
    expected = expected + convolved(convolved(x, c, 1, 7), d, 7, 1)
    torch.testing.assert_close(conv(x), expected.clamp(min=0), rtol=1e-4, atol=1e-6)


def test_the_maps_of_the_papers_settings_are_490() -> None:
    head = light_head(
        map_channels=490,
        kernel_size=15,
        bbox_roi_extractor=dict(
            type='mmdet_ext.PSRoIPool', out_channels=10, featmap_strides=[8], output_size=7
        ),
    )
    assert head.thin_maps(maps_of(5)).shape == (2, 490, 8, 8)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(map_channels=80), 'map_channels must be 90, the channels .* PSRoIPool .*got 80'),
        (dict(kernel_size=8), 'kernel_size must be odd, got 8'),
        (dict(mid_channels=0), 'mid_channels must be at least 1, got 0'),
    ],
)
def test_a_wrong_option_of_the_head_is_named(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        light_head(**options)
