"""HardNegativeSampler with given losses, and in the heads that build it."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.detection.samplers import HardNegativeSampler
from mmdet_ext.detection.samplers.head_scores import background_loss, subsequence_index
from tests._helpers.configs import shrink

NUM = 24


def scene(positives: int, priors: int = 100) -> tuple[AssignResult, InstanceData, InstanceData]:
    """Return an assignment to one ground truth, its priors, and the ground truth."""
    generator = torch.Generator().manual_seed(0)
    index = torch.zeros(priors, dtype=torch.long)
    index[torch.randperm(priors, generator=generator)[:positives]] = 1
    gt = InstanceData(bboxes=random_boxes(generator, 1), labels=torch.tensor([2]))
    result = AssignResult(1, index, torch.zeros(priors), torch.where(index > 0, 2, -1))
    return result, InstanceData(priors=random_boxes(generator, priors)), gt


def hardest(losses: Tensor, negative: Tensor, count: int) -> list[int]:
    """Return the indices of the highest losses among the negatives, in ascending order."""
    ranked = sorted((-losses[i].item(), i) for i in negative.nonzero().flatten().tolist())
    return sorted(i for _, i in ranked[:count])


def test_negatives_are_the_hardest_and_positives_those_of_random_sampler() -> None:
    for positives in (0, 5, 30):
        assigned, pred, gt = scene(positives)
        losses = torch.rand(100, generator=torch.Generator().manual_seed(1))
        results = {}
        for name in ('mmdet_ext.HardNegativeSampler', 'RandomSampler'):
            sampler = TASK_UTILS.build(
                dict(type=name, num=NUM, pos_fraction=0.5, add_gt_as_proposals=False)
            )
            torch.manual_seed(7)
            more = {'losses': losses} if 'Hard' in name else {}
            results[name] = sampler.sample(assigned, pred, gt, **more)
        ours, stock = results.values()
        assert torch.equal(ours.pos_inds, stock.pos_inds)
        assert len(ours.neg_inds) == len(stock.neg_inds) == NUM - min(12, positives)
        expected = hardest(losses, assigned.gt_inds == 0, len(stock.neg_inds))
        assert ours.neg_inds.tolist() == expected != stock.neg_inds.tolist()
        assert ours.avg_factor == stock.avg_factor


def test_losses_of_predictions_come_before_scores_and_scores_before_the_keyword() -> None:
    assigned, pred, gt = scene(5)
    generator = torch.Generator().manual_seed(1)
    keyword, scores, losses = (torch.rand(100, 3, generator=generator) for _ in range(3))
    sampler = HardNegativeSampler(NUM, 0.5)
    negative = assigned.gt_inds == 0
    for name, measure in (
        (None, keyword.sum(1)),
        ('scores', scores.amax(1)),
        ('losses', losses.sum(1)),
    ):
        if name is not None:
            pred[name] = {'scores': scores, 'losses': losses}[name]
        found = sampler.sample(assigned, pred, gt, losses=keyword).neg_inds.tolist()
        assert found == hardest(measure, negative, NUM - 5)


def test_ground_truth_that_joins_the_priors_shifts_the_losses() -> None:
    assigned, pred, gt = scene(5)
    pred.scores = torch.rand(100, generator=torch.Generator().manual_seed(1))
    expected = hardest(pred.scores, assigned.gt_inds == 0, NUM - 6)
    found = HardNegativeSampler(NUM, 0.5, add_gt_as_proposals=True).sample(
        assigned, pred, gt, feats=['as RoI heads give them']
    )
    assert (found.neg_inds - 1).tolist() == expected


def head(
    sigmoid: bool = True, border: int = -1, kind: str = 'AnchorHead', **options: Any
) -> nn.Module:
    """Build a head of two levels that samples hard negatives."""
    torch.manual_seed(0)
    classes = 1 if kind == 'RPNHead' else 3
    built = MODELS.build(
        ConfigDict(
            type=kind,
            in_channels=8,
            feat_channels=8,
            num_classes=classes,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[2.0], ratios=[0.5, 1.0, 2.0], strides=[8, 16]
            ),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=sigmoid),
            loss_bbox=dict(type='L1Loss'),
            train_cfg=dict(
                assigner=dict(
                    type='MaxIoUAssigner',
                    pos_iou_thr=0.5,
                    neg_iou_thr=0.3,
                    min_pos_iou=0.3,
                    match_low_quality=True,
                    ignore_iof_thr=-1,
                ),
                sampler=dict(type='mmdet_ext.HardNegativeSampler', num=NUM, pos_fraction=0.5),
                allowed_border=border,
                pos_weight=-1,
                debug=False,
            ),
            init_cfg=dict(type='Normal', layer='Conv2d', std=0.3),
            **options,
        )
    )
    built.init_weights()
    return built


SHAPES = ((96, 96), (70, 96), (96, 50))


def batch() -> tuple[tuple[Tensor, ...], list[InstanceData], list[dict[str, Any]]]:
    """Make a batch of three images of different sizes, the second without boxes."""
    generator = torch.Generator().manual_seed(4)
    features = tuple(
        torch.randn(3, 8, side, side, generator=generator, requires_grad=True) for side in (12, 6)
    )
    gts = [
        InstanceData(
            bboxes=random_boxes(generator, count, 90, 50, 10, 50),
            labels=torch.zeros(count, dtype=torch.long),
        )
        for count in (4, 0, 2)
    ]
    return features, gts, [dict(img_shape=shape, pad_shape=shape) for shape in SHAPES]


class Spy:
    """Wrapper of a sampler that keeps the arguments and the result of each call."""

    def __init__(self, sampler: Any) -> None:
        self.calls: list[tuple[AssignResult, InstanceData, SamplingResult]] = []
        self.plain = sampler.sample
        sampler.sample = self

    def __call__(self, assigned: AssignResult, pred: InstanceData, gt: InstanceData) -> Any:
        self.calls.append((assigned, pred, self.plain(assigned, pred, gt)))
        return self.calls[-1][-1]


@pytest.mark.parametrize('border', [-1, 0, 8])
@pytest.mark.parametrize(
    ('kind', 'sigmoid'),
    [
        ('RPNHead', True),
        ('AnchorHead', True),
        ('AnchorHead', False),
    ],
)
def test_in_a_head_the_negatives_are_those_of_highest_background_loss(
    kind: str, sigmoid: bool, border: int
) -> None:
    model = head(sigmoid, border, kind)
    spy = Spy(model.sampler)
    features, gts, metas = batch()
    scores, boxes = model(features)
    model.loss_by_feat(scores, boxes, gts, metas)
    columns = model.cls_out_channels
    grid = torch.cat(model.prior_generator.grid_priors([(12, 12), (6, 6)], device='cpu'))
    sizes = []
    for image, (assigned, pred, result) in enumerate(spy.calls):
        logits = torch.cat([score[image].permute(1, 2, 0).reshape(-1, columns) for score in scores])
        if sigmoid:
            loss = F.binary_cross_entropy_with_logits(
                logits, torch.zeros_like(logits), reduction='none'
            ).sum(1)
        else:
            background = torch.full((len(logits),), columns - 1)
            loss = F.cross_entropy(logits, background, reduction='none')
        # The index of each prior is found by comparison with all: no two are equal here.
        place = (pred.priors[:, None] == grid).all(-1).float().argmax(1)
        count = NUM - len(result.pos_inds)
        assert result.neg_inds.tolist() == hardest(loss[place], assigned.gt_inds == 0, count)
        assert len(result.neg_inds) == count < (assigned.gt_inds == 0).sum()
        sizes.append(len(place))
    assert sizes[0] == len(grid) or border >= 0
    assert len(sizes) == 3 and max(sizes[1:]) < len(grid)


def test_only_samples_get_a_gradient() -> None:
    model = head()
    spy = Spy(model.sampler)
    features, gts, metas = batch()
    scores, boxes = model(features)
    for score in scores:
        score.retain_grad()
    losses = model.loss_by_feat(scores, boxes, gts, metas)
    sum(losses['loss_cls']).backward()
    touched = sum(int((s.grad.unflatten(1, (3, -1)).abs().sum(2) > 0).sum()) for s in scores)
    assert touched == sum(len(r.pos_inds) + len(r.neg_inds) for _, _, r in spy.calls)


def test_no_scores_are_kept_after_the_last_image() -> None:
    model = head()
    features, gts, metas = batch()
    scores, boxes = model(features)
    kept = weakref.ref(scores[0])
    model.loss_by_feat(scores, boxes, gts, metas)
    del scores, boxes
    gc.collect()
    assert kept() is None
    held = vars(model.sampler._head_scores)
    assert not any(isinstance(value, (Tensor, tuple)) for value in held.values())
    with torch.no_grad():
        model.eval()(features)
    held = vars(model.sampler._head_scores)
    assert not any(isinstance(value, (Tensor, tuple)) for value in held.values())


def losses_of(model: nn.Module) -> list[Tensor]:
    features, gts, metas = batch()
    losses = model.loss_by_feat(*model(features), gts, metas)
    return [part.detach() for parts in losses.values() for part in parts]


@pytest.mark.parametrize('how', ['deepcopy', 'pickle', 'torch.save'])
def test_a_copy_of_a_head_samples_by_its_own_scores(how: str) -> None:
    model = head()
    features, gts, metas = batch()
    model(features)  # the scores of a pass are kept while the copy is made
    if how == 'deepcopy':
        twin = copy.deepcopy(model)
    elif how == 'pickle':
        twin = pickle.loads(pickle.dumps(model))
    else:
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        twin = torch.load(buffer, weights_only=False)
    assert twin.sampler is not model.sampler
    with pytest.raises(RuntimeError, match='has no scores of its head'):
        twin.loss_by_feat(*twin.forward(features), gts, metas)
    expected = losses_of(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    # The copy uses its own scores, not those of the original, which are all equal now.
    torch.testing.assert_close(losses_of(twin), expected)


def test_state_and_modules_are_those_of_a_head_with_random_sampler() -> None:
    model = head()
    stock = head()
    stock.sampler = TASK_UTILS.build(dict(type='RandomSampler', num=NUM, pos_fraction=0.5))
    assert list(model.state_dict()) == list(stock.state_dict())
    assert [name for name, _ in model.named_modules()] == [
        name for name, _ in stock.named_modules()
    ]


def test_without_losses_or_scores_the_error_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match='take OHEMSampler in a RoI head'):
        HardNegativeSampler(NUM, 0.5).sample(*scene(5))
    model = head()
    features, gts, metas = batch()
    outs = model(features)
    model.loss_by_feat(*outs, gts, metas)
    with pytest.raises(RuntimeError, match='each image of a forward pass once'):
        model.loss_by_feat(*outs, gts, metas)


def test_losses_and_priors_that_do_not_fit_are_refused() -> None:
    assigned, pred, gt = scene(5)
    with pytest.raises(ValueError, match='losses has 99 rows, but .* has 100'):
        HardNegativeSampler(NUM, 0.5).sample(assigned, pred, gt, losses=torch.zeros(99))
    model = head()
    model(batch()[0])
    with pytest.raises(ValueError, match=r'priors \(100\) are not priors of the head \(540\)'):
        model.sampler.sample(assigned, pred, gt)


def test_places_of_the_rows_that_are_left_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        table = torch.randint(-4, 4, (300, 4), generator=generator).float()
        table = table[torch.randperm(300, generator=generator)].unique(dim=0)
        table = table[torch.randperm(len(table), generator=generator)]
        # Some rows are there two or three times; equal rows are removed or kept together.
        table = torch.cat([table, table[:10], table[:5]])
        keep = torch.rand(len(table), generator=generator) < 0.05 * seed
        keep[-15:-5] = keep[:10]
        keep[-5:] = keep[:5]
        rows = table[keep]
        if len(rows):
            assert torch.equal(subsequence_index(rows, table), keep.nonzero().flatten())
    assert torch.equal(subsequence_index(table, table), torch.arange(len(table)))
    for wrong in (rows.flip(0), rows + 100, torch.cat([table, table]), rows[:, :2], rows[:0]):
        with pytest.raises(ValueError, match='not priors of the head'):
            subsequence_index(wrong, table)


def test_background_loss_equals_the_formula() -> None:
    score = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1).half()
    sigmoid = background_loss([score], 2, use_sigmoid=True)
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).exp().log1p().sum(1)
    torch.testing.assert_close(sigmoid, expected[None])
    softmax = background_loss([score], 2, use_sigmoid=False)
    torch.testing.assert_close(softmax, torch.tensor([[1.0, 1.0]]).neg().exp().log1p().expand(1, 2))


def faster_rcnn(root: Path, work_dir: Path) -> Config:
    """Make mmdet's Faster R-CNN config small, for the drawn shapes."""
    source = work_dir / 'faster.py'
    source.write_text("_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n")
    cfg = shrink(source, root, work_dir=str(work_dir))
    cfg.model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.model.rpn_head.update(in_channels=16, feat_channels=16)
    cfg.model.roi_head.bbox_roi_extractor.out_channels = 16
    cfg.model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32)
    cfg.model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
    return cfg


def test_faster_rcnn_trains_with_the_sampler_in_both_stages(
    shapes_root: Path, tmp_path: Path
) -> None:
    cfg = faster_rcnn(shapes_root, tmp_path)
    cfg.model.train_cfg.rpn.sampler.type = 'mmdet_ext.HardNegativeSampler'
    # In the RoI head the scores are the RPN's, of the proposals.
    cfg.model.train_cfg.rcnn.sampler.update(type='mmdet_ext.HardNegativeSampler', num=32)
    cfg.model.roi_head.bbox_head.loss_cls = dict(
        type='mmdet_ext.OHEMLoss', loss=dict(type='CrossEntropyLoss'), min_negatives=8
    )
    runner = Runner.from_cfg(cfg)
    samplers = (runner.model.rpn_head.sampler, runner.model.roi_head.bbox_sampler)
    spies = [Spy(samplers[0]), RoISpy(samplers[1])]
    runner.train()
    assert runner.iter == 2
    assert all(isinstance(sampler, HardNegativeSampler) for sampler in samplers)
    assert [len(spy.calls) for spy in spies] == [4, 4]
    for assigned, _, result in spies[0].calls:
        assert len(result.neg_inds) == 256 - len(result.pos_inds)
        assert (assigned.gt_inds[result.neg_inds] == 0).all()
    for assigned, pred, result in spies[1].calls:
        added = len(assigned.gt_inds) - len(pred.priors)
        scores = torch.cat([torch.zeros(added), pred.scores])
        chosen = scores[result.neg_inds]
        others = torch.ones_like(scores, dtype=torch.bool)
        others[result.neg_inds] = False
        others &= assigned.gt_inds == 0
        assert not others.any() or chosen.min() >= scores[others].max()
    for name, value in runner.model.state_dict().items():
        assert torch.isfinite(value.float()).all(), name


class RoISpy(Spy):
    """Wrapper of a sampler of an RoI head, which is called with keyword arguments."""

    def __call__(
        self, assigned: AssignResult, pred: InstanceData, gt: InstanceData, **kwargs: Any
    ) -> Any:
        self.calls.append((assigned, pred, self.plain(assigned, pred, gt, **kwargs)))
        return self.calls[-1][-1]
