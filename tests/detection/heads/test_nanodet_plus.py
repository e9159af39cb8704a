"""Head of NanoDet-Plus: priors, outputs, losses by loops over the priors, guide, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmdet_ext.functional.boxes.overlap import box_iou
from tests._helpers.dense_heads import CHANNELS, CLASSES, STRIDES, Batch, build

BINS = 8


def outputs(seed: int, images: int = 3) -> tuple[list[Tensor], list[Tensor]]:
    """Draw outputs of the three levels of a `Batch`, with gradient."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(96 // stride, 128 // stride) for stride in STRIDES]
    return tuple(
        [
            torch.randn(images, columns, *size, generator=generator).requires_grad_()
            for size in sizes
        ]
        for columns in (CLASSES, 4 * BINS)
    )


def rows(maps: list[Tensor]) -> Tensor:
    """Return (B, P, D) of maps (B, D, H, W)."""
    return torch.cat([each.flatten(2).transpose(1, 2) for each in maps], 1)


def priors() -> list[tuple[float, float, int]]:
    """List the corner x, y and the stride of each cell."""
    return [
        (column * stride, row * stride, stride)
        for stride in STRIDES
        for row in range(96 // stride)
        for column in range(128 // stride)
    ]


def boxes_of(logits: Tensor) -> Tensor:
    """Decode one image's distributions (P, 4 * BINS) prior by prior."""
    found = []
    for (x, y, stride), each in zip(priors(), logits.view(-1, 4, BINS), strict=True):
        left, top, right, low = (each.softmax(1) * torch.arange(BINS)).sum(1) * stride
        found.append(torch.stack([x - left, y - top, x + right, y + low]))
    return torch.stack(found)


def giou(one: Tensor, other: Tensor) -> Tensor:
    overlap = box_iou(one, other)
    union = ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) / (1 + overlap)
    low, high = torch.minimum(one[:2], other[:2]), torch.maximum(one[2:], other[2:])
    hull = (high - low).prod()
    return overlap - (hull - union) / hull


def expected(own: Any, deciding: Any, batch: Batch, gt_index: Tensor) -> dict[str, Tensor]:
    """Compute the losses of some outputs by the formulas, one prior at a time."""
    scores, logits = rows(own[0]), rows(own[1])
    quality_boxes = [boxes_of(each.detach()) for each in rows(deciding[1])]
    boxes = [boxes_of(each) for each in logits]
    qfl, box_sum, dfl = [], [], []
    weights, count = [], 0
    for image in range(len(scores)):
        for prior, (x, y, stride) in enumerate(priors()):
            gt = int(gt_index[image, prior])
            sigma = scores[image, prior].sigmoid()
            target = torch.zeros(CLASSES)
            if gt >= 0:
                count += 1
                truth = batch.gts[image].bboxes[gt]
                label = batch.gts[image].labels[gt]
                target[label] = box_iou(quality_boxes[image][prior], truth)
                weight = sigma.detach().max()
                sides = torch.stack([x - truth[0], y - truth[1], truth[2] - x, truth[3] - y])
                sides = (sides / stride).clamp(0, BINS - 1 - 0.1)
                below = sides.long()
                table = logits[image, prior].view(4, BINS)
                entropy = (below + 1 - sides) * cross_entropy(table, below, reduction='none')
                entropy += (sides - below) * cross_entropy(table, below + 1, reduction='none')
                box_sum.append(weight * (1 - giou(boxes[image][prior], truth)))
                dfl.append(weight * entropy.sum())
                weights.append(weight)
            entropy = -(target * sigma.log() + (1 - target) * (1 - sigma).log())
            qfl.append(((target - sigma).square() * entropy).sum())
    total = max(sum(weights), 1.0)
    return dict(
        loss_cls=sum(qfl) / max(count, 1),
        loss_bbox=2 * sum(box_sum) / total,
        loss_dfl=0.25 * sum(dfl) / (4 * total),
    )


def losses_of(head: nn.Module, own: Any, batch: Batch, guide: Any = None) -> dict[str, Tensor]:
    return head.loss_by_feat(*own, batch.gts, batch.metas, guide=guide)


def gt_index_of(head: nn.Module, call: Any) -> Tensor:
    """Return the assignment of the only match that a call makes."""
    found = []
    match = head.assigner.match
    head.assigner.match = lambda *args: found.append(match(*args)) or found[-1]
    try:
        call()
    finally:
        head.assigner.match = match
    (only,) = found
    return only.gt_index


@pytest.mark.parametrize('guided', [False, True], ids=['own', 'guided'])
@pytest.mark.parametrize('counts', [(4, 0, 3), (0, 0, 0)], ids=str)
def test_losses_and_gradients_equal_loops_over_priors(
    counts: tuple[int, ...], guided: bool
) -> None:
    head, batch = build('NanoDetPlusHead', 'mmdet_ext'), Batch(counts)
    own, guide = outputs(1), outputs(2) if guided else None
    gt_index = gt_index_of(head, lambda: losses_of(head, own, batch, guide))
    found = losses_of(head, own, batch, guide)
    assert bool((gt_index >= 0).any()) is any(counts)
    wanted = expected(own, guide or own, batch, gt_index)
    if guide is not None:
        theirs = expected(guide, guide, batch, gt_index)
        wanted |= {f'aux_{name}': value for name, value in theirs.items()}
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], torch.as_tensor(value), rtol=1e-5, atol=1e-6)
    leaves = [*own[0], *own[1], *(guide[0] + guide[1] if guide else [])]
    one, other = (
        torch.autograd.grad(sum(part.values()), leaves, allow_unused=True)
        for part in (found, wanted)
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-4, atol=1e-7)


def test_sides_beyond_the_distribution_are_learned_as_its_longest() -> None:
    head, batch = build('NanoDetPlusHead', 'mmdet_ext'), Batch((2, 1, 1))
    for gts in batch.gts:
        gts.bboxes[:] = torch.tensor([0.0, 0.0, 128.0, 96.0])
    own = outputs(1)
    gt_index = gt_index_of(head, lambda: losses_of(head, own, batch))
    found = losses_of(head, own, batch)
    finest = (96 // STRIDES[0]) * (128 // STRIDES[0])
    assert bool((gt_index[:, :finest] >= 0).any())  # one side is of 8 strides at least
    for name, value in expected(own, own, batch, gt_index).items():
        torch.testing.assert_close(found[name], torch.as_tensor(value), rtol=1e-5, atol=1e-6)


def test_a_guide_decides_the_assignment_and_the_head_does_not() -> None:
    head, batch = build('NanoDetPlusHead', 'mmdet_ext'), Batch((6, 5, 4))
    first, second, guide = outputs(1), outputs(2), outputs(3)
    alone = [
        gt_index_of(head, lambda own=own: losses_of(head, own, batch)) for own in (first, second)
    ]
    guided = [
        gt_index_of(head, lambda own=own: losses_of(head, own, batch, guide))
        for own in (first, second)
    ]
    assert not torch.equal(*alone) and torch.equal(*guided)
    assert torch.equal(guided[0], gt_index_of(head, lambda: losses_of(head, guide, batch)))


def test_priors_are_the_corners_of_the_cells_and_boxes_are_decoded_from_them() -> None:
    head = build(
        'NanoDetPlusHead',
        'mmdet_ext',
        test_cfg=dict(
            nms_pre=1000, score_thr=0.3, nms=dict(type='nms', iou_threshold=0.6), max_per_img=100
        ),
    ).eval()
    scores = [torch.full((1, CLASSES, 96 // s, 128 // s), -9.0) for s in STRIDES]
    sides = [torch.full((1, 4 * BINS, 96 // s, 128 // s), -99.0) for s in STRIDES]
    scores[1][0, 2, 3, 4] = 0.0
    for side, bin_ in enumerate((1, 2, 3, 1)):  # left, top, right, bottom, in strides of 16
        sides[1][0, side * BINS + bin_, 3, 4] = 99.0
    meta = dict(img_shape=(96, 128), scale_factor=(2.0, 1.0))
    (plain,) = head.predict_by_feat(scores, sides, batch_img_metas=[meta], rescale=False)
    (scaled,) = head.predict_by_feat(scores, sides, batch_img_metas=[meta], rescale=True)
    # The cell in row 3 and column 4 has its corner at (64, 48).
    torch.testing.assert_close(plain.bboxes, torch.tensor([[48.0, 16, 112, 64]]))
    torch.testing.assert_close(scaled.bboxes, torch.tensor([[24.0, 16, 56, 64]]))
    assert plain.labels.tolist() == [2] and plain.scores.tolist() == [0.5]


def test_one_branch_per_level_gives_scores_and_distances_of_5_x_5_windows() -> None:
    head = build('NanoDetPlusHead', 'mmdet_ext', stacked_convs=2).eval()
    maps = [torch.randn(2, CHANNELS, 96 // s, 128 // s) for s in STRIDES]
    scores, distances = head(maps)
    for level, stride in enumerate(STRIDES):
        assert scores[level].shape == (2, CLASSES, 96 // stride, 128 // stride)
        assert distances[level].shape == (2, 4 * BINS, 96 // stride, 128 // stride)
    # Each level has weights of its own, and an output sees 9 x 9 cells of two convolutions.
    changed = [each.clone() for each in maps]
    changed[0][:, :, 6, 8] += 1
    again = head(changed)
    moved = (again[0][0] != scores[0]).any(0).any(0).nonzero()
    assert moved.amin(0).tolist() == [2, 4] and moved.amax(0).tolist() == [10, 12]
    assert torch.equal(again[0][1], scores[1])
    weights = [branch[0].depthwise_conv.conv.weight for branch in head.cls_convs]
    assert len({each.data_ptr() for each in weights}) == 3
    assert {tuple(each.shape) for each in weights} == {(CHANNELS, 1, 5, 5)}


def test_scores_begin_at_one_percent() -> None:
    config = ConfigDict(type='mmdet_ext.NanoDetPlusHead', num_classes=CLASSES)
    head = MODELS.build(config)
    head.init_weights()
    for last in head.gfl_cls:
        torch.testing.assert_close(
            last.bias[:CLASSES].sigmoid(), torch.full((CLASSES,), 0.01), rtol=1e-4, atol=0
        )
        assert 0.008 < float(last.weight.detach().std()) < 0.012


def test_ignored_priors_and_regions_have_no_loss_of_scores() -> None:
    head = build(
        'NanoDetPlusHead',
        'mmdet_ext',
        train_cfg=dict(
            assigner=dict(
                type='mmdet_ext.MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                ignore_iof_thr=0.5,
            )
        ),
    )
    batch, own = Batch((3,)), outputs(1, 1)
    region = InstanceData(bboxes=torch.tensor([[0.0, 0, 128, 96]]))
    plain = head.loss_by_feat(*own, batch.gts, batch.metas)
    less = head.loss_by_feat(*own, batch.gts, batch.metas, [region])
    assert float(less['loss_cls'].detach()) < float(plain['loss_cls'].detach())
    (gradient,) = torch.autograd.grad(less['loss_cls'], own[0][0])
    assert not gradient.all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(kernel_size=4), 'kernel_size must be odd, got 4'),
        (dict(stacked_convs=0), 'stacked_convs must be at least 1'),
        (dict(reg_max=0), 'reg_max must be at least 1'),
        (
            dict(loss_cls=dict(type='mmdet_ext.CrossEntropyLoss')),
            'loss_cls=mmdet_ext.CrossEntropyLoss of NanoDetPlusHead needs use_sigmoid=True',
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build('NanoDetPlusHead', 'mmdet_ext', **options)


def test_the_activation_of_gfl_is_an_option() -> None:
    plain, leaky = (
        build('GFLHead', 'mmdet_ext', **options)
        for options in ({}, dict(act_cfg=dict(type='LeakyReLU', negative_slope=0.1)))
    )
    assert plain.state_dict().keys() == leaky.state_dict().keys()
    layers = [*leaky.cls_convs, *leaky.reg_convs]
    assert layers and all(each.activate.negative_slope == 0.1 for each in layers)
    x = torch.randn(1, CHANNELS, 6, 6)
    conv = leaky.cls_convs[0]
    y = conv.norm(conv.conv(x))
    torch.testing.assert_close(conv(x), torch.where(y > 0, y, 0.1 * y))
    assert isinstance(plain.cls_convs[0].activate, nn.ReLU)
