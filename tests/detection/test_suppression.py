"""Suppression rules by their names in ``test_cfg.nms``, through mmcv's own ``batched_nms``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmcv.ops import batched_nms
from mmdet.models.layers import multiclass_nms
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.detection import suppression
from mmdet_ext.functional.boxes.suppression import batched_diou_nms, batched_soft_nms
from tests._helpers.dense_heads import ANCHORS, CHANNELS, DELTAS, HEADS, Batch, build
from tests.functional.boxes.detections import detections

TEST = dict(nms_pre=200, min_bbox_size=0, score_thr=0.0, max_per_img=1000)


def suppressed(options: dict[str, Any], **more: Any) -> tuple[Tensor, Tensor]:
    """Suppress detections of seven classes through mmcv."""
    return batched_nms(*detections(1, 500, classes=7), ConfigDict(options), **more)


@pytest.mark.parametrize('method', ['linear', 'gaussian', 'naive'])
@pytest.mark.parametrize('split', [10_000, 10])
def test_soft_nms_equals_mmcvs_rule_and_the_function(method: str, split: int) -> None:
    options = dict(iou_threshold=0.4, method=method, min_score=0.01, split_thr=split)
    dets, keep = suppressed(dict(type='mmdet_ext.soft_nms', **options))
    their_dets, their_keep = suppressed(dict(type='soft_nms', **options))
    assert torch.equal(keep, their_keep)
    torch.testing.assert_close(dets, their_dets, rtol=0, atol=1e-6)
    own_dets, own = batched_soft_nms(
        *detections(1, 500, classes=7), 0.4, min_score=0.01, method=method
    )
    assert torch.equal(keep, own)
    torch.testing.assert_close(dets, own_dets, rtol=0, atol=1e-6)


def test_diou_nms_equals_the_function() -> None:
    dets, keep = suppressed(dict(type='mmdet_ext.diou_nms', iou_threshold=0.4))
    own_dets, own = batched_diou_nms(*detections(1, 500, classes=7), 0.4)
    assert torch.equal(keep, own) and torch.equal(dets, own_dets)
    boxes, scores, _ = detections(1, 500, classes=7)
    _, keep = suppressed(dict(type='mmdet_ext.diou_nms', iou_threshold=0.4), class_agnostic=True)
    assert torch.equal(keep, batched_diou_nms(boxes, scores, None, 0.4)[1])


@pytest.mark.parametrize('split', [10_000, 10])
@pytest.mark.parametrize('rule', ['soft_nms', 'diou_nms'])
def test_the_number_of_boxes_is_an_option_on_both_ways(rule: str, split: int) -> None:
    options = dict(type=f'mmdet_ext.{rule}', iou_threshold=0.4, split_thr=split)
    dets, keep = suppressed(options)
    few_dets, few = suppressed(options | dict(max_num=30))
    assert torch.equal(few, keep[:30]) and torch.equal(few_dets, dets[:30])


def test_scores_keep_their_precision() -> None:
    boxes, scores, labels = detections(1, 40, classes=2)
    for split in (10, 10_000):
        options = dict(type='mmdet_ext.soft_nms', split_thr=split)
        dets, _ = batched_nms(boxes, scores.half(), labels, options)
        assert dets[:, 4].isfinite().all() and len(dets) > 5


def test_mmcv_calls_a_rule_of_ours_once_unless_a_config_sets_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    rule = suppression.soft_nms

    def counted(boxes: Tensor, *given: Any, **options: Any) -> tuple[Tensor, Tensor]:
        calls.append(len(boxes))
        return rule(boxes, *given, **options)

    monkeypatch.setitem(suppression.Names._rules, 'soft_nms', counted)
    boxes, scores, labels = detections(1, 12_000, classes=3)
    options = ConfigDict(type='mmdet_ext.soft_nms')
    batched_nms(boxes, scores, labels, options)
    assert calls == [12_000] and options == dict(type='mmdet_ext.soft_nms')
    batched_nms(boxes, scores, labels, options | dict(split_thr=12_000))
    assert len(calls) == 4 and sum(calls[1:]) == 12_000


def test_full_paths_and_functions_are_types_too() -> None:
    dets, keep = suppressed(dict(type='mmdet_ext.soft_nms'))
    for kind in ('mmdet_ext.detection.suppression.soft_nms', suppression.soft_nms):
        other_dets, other = suppressed(dict(type=kind))
        assert torch.equal(other, keep) and torch.equal(other_dets, dets)


def test_stock_rules_are_mmcvs() -> None:
    names = vars(sys.modules['mmcv.ops.nms'])
    before = {name: id(value) for name, value in names.items() if name != 'mmdet_ext'}
    suppression.install()
    after = {name: id(value) for name, value in names.items() if name != 'mmdet_ext'}
    assert after == before
    dets, _ = suppressed(dict(type='nms', iou_threshold=0.4))
    assert set(dets[:, 4].tolist()) < set(detections(1, 500)[1].tolist())


def test_without_operators_of_mmcv_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = vars(sys.modules['mmcv.ops.nms'])
    monkeypatch.delitem(names, 'mmdet_ext')
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, 'mmcv.ops.nms', None)
        suppression.install()
    assert 'mmdet_ext' not in names


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (
            dict(type='mmdet_ext.soft_nms', iou_thr=0.5),
            TypeError,
            r"nms of type mmdet_ext.soft_nms has no option 'iou_thr'; did you mean "
            r"'iou_threshold'\? Its options: iou_threshold, sigma, min_score, method, .*max_num",
        ),
        (
            dict(type='mmdet_ext.diou_nms', widht=1),
            TypeError,
            r"mmdet_ext.diou_nms has no option 'widht'. Its options: iou_threshold, max_num",
        ),
        (
            dict(type='mmdet_ext.softnms'),
            AttributeError,
            r"no nms of type mmdet_ext.softnms; did you mean 'soft_nms'\? .*soft_nms, diou_nms",
        ),
        (dict(type='mmdet_ext.fast'), AttributeError, 'mmdet_ext.fast. There are: soft_nms, diou'),
        (
            dict(type='mmdet_ext.weighted_box_fusion'),
            AttributeError,
            'a fused box is none of them. Call mmdet_ext.functional.boxes.weighted_box_fusion',
        ),
        (dict(type='mmdet_ext.soft_nms', sigma=0), ValueError, 'sigma must be above 0 and finite'),
    ],
)
def test_wrong_configs_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        suppressed(options)


def results_of(head: Any, features: list[Tensor], rule: dict[str, Any]) -> list[InstanceData]:
    """Predict with a dense head and a suppression rule."""
    cfg = ConfigDict(**TEST, nms=rule)
    metas = [dict(img_shape=(96, 128), scale_factor=(1.0, 1.0))] * len(features[0])
    return head.predict_by_feat(*head(features), batch_img_metas=metas, cfg=cfg, rescale=False)


@pytest.mark.parametrize('name', [*HEADS, 'RPNHead'])
@pytest.mark.parametrize('scope', ['mmdet', 'mmdet_ext'])
def test_dense_heads_take_the_rules(name: str, scope: str) -> None:
    if name == 'RPNHead':
        head = MODELS.build(
            dict(
                type='mmdet.RPNHead',
                in_channels=CHANNELS,
                feat_channels=CHANNELS,
                anchor_generator=ANCHORS,
                bbox_coder=DELTAS,
            )
        ).eval()
    else:
        head = build(name, scope, 'mmdet').eval()
    if name == 'FCOSHead':
        head.conv_reg.bias.data += 3  # e**3 px from a point to a side: boxes overlap
    features = [level.detach() for level in Batch((1, 1)).features]
    ours, theirs = (
        results_of(head, features, dict(type=kind, method='gaussian', min_score=1e-5))
        for kind in ('mmdet_ext.soft_nms', 'soft_nms')
    )
    plain = results_of(head, features, dict(type='nms', iou_threshold=1.0))
    central = results_of(head, features, dict(type='mmdet_ext.diou_nms', iou_threshold=0.3))
    for one, other, left, every in zip(ours, theirs, central, plain, strict=True):
        assert len(one) > 10
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(one.bboxes, other.bboxes)
        assert torch.equal(one.labels, other.labels)
        assert one.scores.sum() < every.scores[: len(one)].sum()
        assert set(left.scores.tolist()) <= set(every.scores.tolist())
        assert 0 < len(left) < len(every)


def test_roi_heads_take_the_rules() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = detections(1, 120)[0]
    scores = torch.rand(120, 5, generator=generator).softmax(1)
    ours, theirs = (
        multiclass_nms(boxes, scores, 0.05, ConfigDict(type=kind, iou_threshold=0.5), 100)
        for kind in ('mmdet_ext.soft_nms', 'soft_nms')
    )
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-6)
    assert torch.equal(ours[1], theirs[1])
    dets, _ = multiclass_nms(boxes, scores, 0.05, ConfigDict(type='mmdet_ext.diou_nms'), 100)
    assert 0 < len(dets) <= 100


@pytest.mark.subprocess
def test_a_config_of_stock_types_reaches_the_rules_by_an_import(tmp_path: Path) -> None:
    path = tmp_path / 'config.py'
    path.write_text(
        "custom_imports = dict(imports=['mmdet_ext.detection'], allow_failed_imports=False)\n"
        "nms = dict(type='mmdet_ext.soft_nms', iou_threshold=0.5)\n"
    )
    code = (
        'import sys, torch\nfrom mmengine.config import Config\n'
        'config = Config.fromfile(sys.argv[1])\nfrom mmcv.ops import batched_nms\n'
        'boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 2.]])\n'
        'labels = torch.zeros(2, dtype=torch.int64)\n'
        'print(batched_nms(boxes, torch.tensor([.8, .6]), labels, config.nms)[0][:, 4].tolist())'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, path], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert [round(score, 4) for score in eval(result.stdout)] == [0.8, 0.3]
