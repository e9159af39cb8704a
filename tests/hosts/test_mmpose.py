"""Everything that claims MMPose, by its data set, bottom-up estimator and metric."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.hosts import claims, host
from mmdet_ext.catalog.pose_cases import FLIP, INPUT, JOINTS, LIMBS, MAP
from tests.hosts.faces import configured
from tests.hosts.runs import Setting, follow

pytest.importorskip('mmpose', reason='MMPose is absent')

from mmpose.models.heads import AssociativeEmbeddingHead
from mmpose.registry import DATASETS, MODELS

HOST = host('mmpose')
LOSSES, HEADS, CODECS = (
    [case for case in claims('mmpose') if case.kind == f'keypoint {kind}']
    for kind in ('loss', 'head', 'codec')
)
# Those of MMPose's bottom-up configs: with 'category_id', its metric gives lists of it.
META_KEYS = ('id', 'img_id', 'img_path', 'ori_shape', 'img_shape', 'input_size', 'input_center')
META_KEYS += ('input_scale', 'flip_indices', 'raw_ann_info', 'skeleton_links')
SIZES = dict(input_size=(INPUT, INPUT), heatmap_size=(MAP, MAP), sigma=1)
TAGS = dict(type='mmdet_ext.AssociativeEmbeddingCodec', **SIZES)
FIELDS = dict(type='mmdet_ext.PartAffinityField', **SIZES, limbs=LIMBS, decode_keypoint_thr=0.0)
HEATMAP_LOSS = dict(type='mmdet_ext.KeypointHeatmapLoss')
TAG_LOSS = dict(type='mmdet_ext.AssociativeEmbeddingLoss')
META = dict(
    dataset_name='figures',
    keypoint_info={
        number: dict(name=f'j{number}', id=number, color=[0, 0, 0], type='', swap='')
        for number in range(JOINTS)
    },
    skeleton_info={
        number: dict(link=(f'j{start}', f'j{end}'), id=number, color=[0, 0, 0])
        for number, (start, end) in enumerate(LIMBS)
    },
    joint_weights=[1.0] * JOINTS,
    sigmas=[0.1] * JOINTS,
)


@MODELS.register_module()
class OneLossHead(AssociativeEmbeddingHead):
    """MMPose's head with heatmaps and tags in one loss, as its options name it for the tags."""

    def loss(self, feats: Any, batch_data_samples: Any, train_cfg: Any = None) -> Any:
        heatmaps, tags = self.forward(feats)
        target = torch.stack([each.gt_fields.heatmaps for each in batch_data_samples])
        indices = [each.gt_instance_labels.keypoint_indices for each in batch_data_samples]
        return dict(loss=self.loss_module.tag_loss(heatmaps, target, tags, indices))


@pytest.fixture(scope='session')
def figures_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images of one to three people of five joints, some of them not labelled."""
    root = tmp_path_factory.mktemp('figures')
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 5):
        image = rng.integers(0, 60, (INPUT, INPUT, 3), dtype=np.uint8)
        for _ in range(1 + number % 3):
            joints = rng.integers(4, INPUT - 4, (JOINTS, 2))
            shown = np.where(rng.random(JOINTS) < 0.2, 0, 2)
            for x, y in joints:
                image[y - 1 : y + 2, x - 1 : x + 2] = 220
            keypoints = np.concatenate([joints * (shown > 0)[:, None], shown[:, None]], 1)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=1,
                    bbox=[2, 2, INPUT - 4, INPUT - 4],
                    area=(INPUT - 4) ** 2,
                    iscrowd=0,
                    num_keypoints=int((shown > 0).sum()),
                    keypoints=keypoints.reshape(-1).tolist(),
                    segmentation=[],
                )
            )
        cv2.imwrite(str(root / f'{number}.png'), image)
        images.append(dict(id=number, file_name=f'{number}.png', height=INPUT, width=INPUT))
    category = dict(id=1, name='person', keypoints=[f'j{n}' for n in range(JOINTS)], skeleton=[])
    content = dict(images=images, annotations=annotations, categories=[category])
    (root / 'figures.json').write_text(json.dumps(content))
    return root


@cache
def built(root: Path, codec: str) -> Any:
    """Return a data set, which runs share; without a codec it is that of the test."""
    # The mask of heatmaps needs the matrix of an affine transform.
    fit = dict(type='BottomupResize', input_size=(INPUT, INPUT), resize_mode='fit')
    still = dict(shift_prob=0.0, rotate_prob=0.0, scale_prob=0.0)
    warp = dict(type='BottomupRandomAffine', input_size=(INPUT, INPUT), **still)
    steps = [fit]
    if codec:
        encode = dict(type='GenerateTarget', encoder=json.loads(codec))
        steps = [warp, encode, dict(type='BottomupGetHeatmapMask')]
    return DATASETS.build(
        dict(
            type='CocoDataset',
            data_root=str(root),
            data_mode='bottomup',
            ann_file='figures.json',
            data_prefix=dict(img=''),
            metainfo=META,
            test_mode=not codec,
            pipeline=[
                dict(type='LoadImage'),
                *steps,
                dict(type='PackPoseInputs', meta_keys=META_KEYS),
            ],
        )
    )


def tag_head(**options: Any) -> dict[str, Any]:
    """Return the config of MMPose's head of tags."""
    usual = dict(
        type='AssociativeEmbeddingHead',
        in_channels=4,
        num_keypoints=JOINTS,
        deconv_out_channels=None,
        keypoint_loss=HEATMAP_LOSS,
        tag_loss=TAG_LOSS,
        decoder=TAGS,
        init_cfg=[dict(type='Normal', layer='Conv2d', std=0.1)],
    )
    return {**usual, **options}


def field_head(**options: Any) -> dict[str, Any]:
    """Return the config of our head of fields."""
    (case,) = HEADS
    usual = dict(decoder=FIELDS, init_cfg=[dict(type='Normal', layer='Conv2d', std=0.1)])
    return dict(configured(case), **{**usual, **options})


def estimator(head: dict[str, Any], **test: Any) -> dict[str, Any]:
    """Return the config of a bottom-up network of stride 4."""
    return dict(
        type='BottomupPoseEstimator',
        data_preprocessor=dict(type='PoseDataPreprocessor', mean=[100.0] * 3, std=[50.0] * 3),
        backbone=dict(
            **dict(type='ResNet', depth=18, num_stages=1, out_indices=(0,), strides=(1,)),
            **dict(dilations=(1,), stem_channels=4, base_channels=4),
        ),
        # MMPose's head of tags tests lists of features alone.
        neck=dict(type='FeatureMapProcessor', concat=False, select_index=(0,)),
        head=head,
        test_cfg=dict(flip_test=False, **test),
    )


def setting_of(root: Path, codec: dict[str, Any], head: dict[str, Any], **test: Any) -> Setting:
    """Return a run of an estimator."""
    metric = dict(
        type='CocoMetric', ann_file=str(root / 'figures.json'), nms_mode='none', score_mode='bbox'
    )
    train = built(root, json.dumps(codec, sort_keys=True))
    return Setting(estimator(head, **test), train, built(root, ''), metric)


@pytest.mark.parametrize('case', LOSSES, ids=repr)
def test_a_loss_trains_tests_and_resumes(case: Case, figures_root: Path, tmp_path: Path) -> None:
    loss = configured(case)
    dimensions = case.inputs(torch.Generator(), 1)[0].shape[1] // JOINTS
    codec = TAGS
    if case.name == 'KeypointHeatmapLoss':
        head = tag_head(keypoint_loss=loss)
    elif case.name == 'AssociativeEmbeddingLoss':
        head = tag_head(tag_loss=loss, tag_dim=dimensions)
    elif case.name == 'HeatmapGroupingLoss':
        head = tag_head(tag_loss=loss, type='OneLossHead')
    else:
        codec, head = FIELDS, field_head(loss=loss)
    outcome = follow(HOST, setting_of(figures_root, codec, head), tmp_path)
    assert 'head.final_layer.weight' in outcome.watch.pulled


@pytest.mark.parametrize('case', HEADS, ids=repr)
def test_a_head_trains_tests_and_resumes(case: Case, figures_root: Path, tmp_path: Path) -> None:
    head = dict(configured(case), decoder=FIELDS)
    outcome = follow(HOST, setting_of(figures_root, FIELDS, head), tmp_path)
    assert set(outcome.watch.losses[0]) == {'loss', 'loss_kpt', 'loss_paf'}
    assert {'head.final_layer.weight', 'head.field_layer.weight'} <= outcome.watch.pulled


@pytest.mark.parametrize('case', CODECS, ids=repr)
def test_a_codec_makes_targets_and_finds_people(
    case: Case, figures_root: Path, tmp_path: Path
) -> None:
    codec = configured(case)
    head = tag_head(decoder=codec) if 'Embedding' in case.name else field_head(decoder=codec)
    outcome = follow(HOST, setting_of(figures_root, codec, head), tmp_path)
    assert 'coco/AP' in outcome.metrics


def test_mirror_images_and_larger_maps(figures_root: Path, tmp_path: Path) -> None:
    decoder = {**FIELDS, 'heatmap_size': (INPUT, INPUT)}
    setting = setting_of(figures_root, FIELDS, field_head(decoder=decoder))
    setting.model['test_cfg'] = dict(
        flip_test=True, restore_heatmap_size=True, output_heatmaps=True
    )
    runner = Runner(
        model=setting.model,
        work_dir=str(tmp_path),
        default_scope='mmpose',
        log_level='ERROR',
        experiment_name='mirrored',
        **{k: v for k, v in setting.loaders().items() if k.startswith('test')},
    )
    runner.test()
    model = runner.model.eval()
    data = next(iter(runner.test_dataloader))
    assert tuple(data['data_samples'][0].metainfo['flip_indices']) == FLIP
    (straight, *_) = model.test_step(data)
    maps = straight.pred_fields
    assert maps.heatmaps.shape == (JOINTS, INPUT, INPUT)
    mirrored = dict(data, inputs=[each.flip(-1) for each in data['inputs']])
    (other, *_) = model.test_step(mirrored)
    torch.testing.assert_close(other.pred_fields.heatmaps.flip(-1), maps.heatmaps)
    pairs = other.pred_fields.limb_fields.flip(-1).view(len(LIMBS), 2, INPUT, INPUT).clone()
    pairs[:, 0] *= -1
    torch.testing.assert_close(pairs.flatten(0, 1), maps.limb_fields)
