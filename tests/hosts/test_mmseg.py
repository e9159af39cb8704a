"""Everything that claims MMSegmentation, by its data sets, segmentors, metrics and inferencer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.hosts import claims, host
from tests.hosts.faces import configured
from tests.hosts.runs import Setting, assert_calls_are_those_of_the_table, follow

pytest.importorskip('mmseg', reason='MMSegmentation is absent')

from mmseg.apis import MMSegInferencer
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules

HOST = host('mmseg')
LOSSES = [case for case in claims('mmseg') if case.kind == 'loss']
METRICS = [case for case in claims('mmseg') if case.kind == 'segmentation metric']
IMAGES, SIDE, IGNORED = 8, 16, 255
LOAD, LABELS, PACK = (
    dict(type=name) for name in ('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs')
)
CROSS_ENTROPY = dict(type='mmdet_ext.CrossEntropyLoss')


@pytest.fixture(scope='session')
def maps_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images of three grey levels, and label maps of three and of two classes.

    The last row of each map is ignored.
    """
    root = tmp_path_factory.mktemp('maps')
    for folder in ('images', 'of 3', 'of 2'):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        label = np.zeros((SIDE, SIDE), np.uint8)
        label[:, number:] = 1
        label[number + 2 :, : SIDE // 2] = 2
        image = (80 * label[..., None] + rng.integers(0, 40, (SIDE, SIDE, 3))).astype(np.uint8)
        label[-1] = IGNORED
        cv2.imwrite(str(root / 'images' / f'{number}.png'), image)
        cv2.imwrite(str(root / 'of 3' / f'{number}.png'), label)
        label[label == 2] = 1
        cv2.imwrite(str(root / 'of 2' / f'{number}.png'), label)
    return root


def data_of(root: Path, columns: int) -> dict[str, Any]:
    """Return the config of a data set of the host, for so many columns of logits."""
    classes = max(columns, 2)
    return dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path=f'of {2 if classes == 2 else 3}'),
        img_suffix='.png',
        metainfo=dict(
            classes=tuple(f'c{number}' for number in range(classes)),
            palette=[[10 * number] * 3 for number in range(classes)],
        ),
        pipeline=[LOAD, LABELS, PACK],
    )


@cache
def built(root: Path, columns: int) -> Any:
    """Return a data set, which runs share: each of MMEngine's collects garbage."""
    return DATASETS.build(data_of(root, columns))


def head(loss: Any, columns: int, **options: Any) -> dict[str, Any]:
    """Return the config of a small head on the last map of a small UNet."""
    return dict(
        **dict(type='FCNHead', channels=4, num_convs=1, concat_input=False),
        **dict(num_classes=max(columns, 2), out_channels=columns, dropout_ratio=0),
        **dict(norm_cfg=dict(type='BN'), align_corners=False, loss_decode=loss),
        **{**dict(in_channels=4, in_index=1), **options},
    )


def segmentor(loss: Any, columns: int, **options: Any) -> dict[str, Any]:
    """Return the config of a small UNet with a small head and a loss."""
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[127.0] * 3,
            std=[64.0] * 3,
            size=(SIDE, SIDE),
            seg_pad_val=IGNORED,
        ),
        backbone=dict(
            **dict(type='UNet', base_channels=4, num_stages=2, strides=(1, 1)),
            **dict(enc_num_convs=(1, 1), dec_num_convs=(1,), downsamples=(True,)),
            **dict(enc_dilations=(1, 1), dec_dilations=(1,), norm_cfg=dict(type='BN')),
        ),
        decode_head=head(loss, columns, **options.pop('decode', {})),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
        **options,
    )


def setting_of(root: Path, model: Any, columns: int, metric: Any = None) -> Setting:
    """Return a run of a segmentor."""
    data = built(root, columns)
    return Setting(model, data, data, metric or dict(type='IoUMetric'))


@pytest.mark.parametrize('case', LOSSES, ids=repr)
def test_a_loss_trains_tests_and_resumes(case: Case, maps_root: Path, tmp_path: Path) -> None:
    columns = case.inputs(torch.Generator(), 2)[0].shape[1]
    model = segmentor(configured(case), columns)
    outcome = follow(HOST, setting_of(maps_root, model, columns), tmp_path)
    loss = outcome.runner.model.decode_head.loss_decode
    assert set(outcome.watch.losses[0]) == {'loss', f'decode.{loss.loss_name}', 'decode.acc_seg'}
    assert {'prediction', 'decode_head.conv_seg.weight'} <= outcome.watch.pulled
    assert any(name.startswith('backbone.encoder.0') for name in outcome.watch.pulled)


@pytest.mark.parametrize('case', METRICS, ids=repr)
def test_a_metric_gives_the_figures_of_the_host(
    case: Case, maps_root: Path, tmp_path: Path
) -> None:
    measured = case.options.get('iou_metrics', ['mIoU'])
    stock = dict(type='IoUMetric', prefix='stock', iou_metrics=measured)
    stock.update({key: case.options[key] for key in ('beta',) if key in case.options})
    model = segmentor(CROSS_ENTROPY, 3)
    outcome = follow(HOST, setting_of(maps_root, model, 3, [configured(case), stock]), tmp_path)
    ours = {name.rpartition('/')[2]: value for name, value in outcome.metrics.items()}
    theirs = {
        name.rpartition('/')[2]: value
        for name, value in outcome.metrics.items()
        if name.startswith('stock/')
    }
    assert theirs and 'mIoU' in theirs
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=0.01), name


def test_several_losses_in_one_head_and_in_an_auxiliary_head(
    maps_root: Path, tmp_path: Path
) -> None:
    several = [
        dict(type='mmdet_ext.CrossEntropyLoss', loss_name='loss_one', loss_weight=0.5),
        dict(type='mmdet_ext.FocalLoss', use_sigmoid=False, loss_name='loss_two'),
        dict(type='mmdet_ext.CrossEntropyLoss', loss_name='loss_one', label_smoothing=0.1),
    ]
    beside = head(CROSS_ENTROPY, 3, in_channels=8, in_index=0)
    model = segmentor(several, 3, auxiliary_head=beside)
    outcome = follow(HOST, setting_of(maps_root, model, 3), tmp_path)
    parts = {'decode.loss_one', 'decode.loss_two', 'aux.loss_ce'}
    step = outcome.watch.losses[0]
    assert {name for name in step if 'loss_' in name} == parts
    assert step['loss'] == pytest.approx(sum(step[name] for name in parts), rel=1e-5)
    # Three calls of the head and one of the auxiliary head in each step; equal names are added.
    assert len(outcome.watch.values) == 8
    first, second, third = outcome.watch.values[:3]
    assert step['decode.loss_one'] == pytest.approx(float(first + third), rel=1e-5)
    assert step['decode.loss_two'] == pytest.approx(float(second), rel=1e-5)


@pytest.mark.parametrize('thresh', [None, 0.9], ids=['by loss', 'by probability'])
def test_pixels_that_the_host_samples(
    thresh: float | None, maps_root: Path, tmp_path: Path
) -> None:
    sampler = dict(type='OHEMPixelSampler', min_kept=20, thresh=thresh)
    model = segmentor(CROSS_ENTROPY, 3, decode=dict(sampler=sampler))
    stock = segmentor(dict(type='mmseg.CrossEntropyLoss'), 3, decode=dict(sampler=sampler))
    outcome = follow(HOST, setting_of(maps_root, model, 3), tmp_path / 'ours')
    theirs = follow(HOST, setting_of(maps_root, stock, 3), tmp_path / 'stock')
    for ours, expected in zip(outcome.watch.losses, theirs.watch.losses, strict=True):
        assert ours['loss'] == pytest.approx(expected['loss'], rel=1e-5)


def test_heads_call_a_loss_as_the_table_says(maps_root: Path, tmp_path: Path) -> None:
    loss = dict(type='CrossEntropyLoss')
    mined = dict(sampler=dict(type='OHEMPixelSampler', min_kept=20))
    models = [segmentor(loss, 3), segmentor([loss, loss], 3), segmentor(loss, 3, decode=mined)]
    settings = [setting_of(maps_root, model, 3) for model in models]
    assert_calls_are_those_of_the_table(HOST, settings, tmp_path)


def whole_config(root: Path, folder: Path) -> Config:
    """Return a config as a user writes it, with test-time augmentation."""
    loader = dict(batch_size=2, num_workers=0, dataset=data_of(root, 3))
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    Config(
        dict(
            default_scope='mmseg',
            custom_imports=dict(imports=['mmdet_ext.compat'], allow_failed_imports=False),
            model=segmentor(CROSS_ENTROPY, 3),
            train_dataloader=dict(**loader, sampler=dict(type='InfiniteSampler', shuffle=True)),
            test_dataloader=dict(**loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            test_evaluator=dict(type='IoUMetric'),
            test_pipeline=[LOAD, LABELS, PACK],
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=20),
            test_cfg=dict(type='TestLoop'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=20)),
            visualizer=dict(type='SegLocalVisualizer', vis_backends=[]),
            tta_model=dict(type='SegTTAModel'),
            tta_pipeline=[LOAD, dict(type='TestTimeAug', transforms=[flips, [LABELS], [PACK]])],
            work_dir=str(folder),
            randomness=dict(seed=0),
            log_level='ERROR',
        )
    ).dump(folder / 'config.py')
    return Config.fromfile(folder / 'config.py')


def test_augmented_test_and_inferencer_agree_with_the_test(maps_root: Path, tmp_path: Path) -> None:
    register_all_modules()
    cfg = whole_config(maps_root, tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    plain = runner.test()
    assert plain['mIoU'] > 20
    data, weights = runner.test_dataloader.dataset, str(tmp_path / 'iter_20.pth')
    with torch.no_grad():
        expected = [
            runner.model.test_step(dict(inputs=[one['inputs']], data_samples=[one['data_samples']]))
            for one in (data[number] for number in range(IMAGES))
        ]
    infer = MMSegInferencer(str(tmp_path / 'config.py'), weights, device='cpu')
    paths = [str(maps_root / 'images' / f'{number}.png') for number in range(IMAGES)]
    found = infer(paths)['predictions']
    for map_, (sample,) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(map_, sample.pred_sem_seg.data[0].numpy())

    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.load_from = weights
    augmented = Runner.from_cfg(cfg)
    merged = augmented.test()
    assert set(merged) == set(plain) and merged['mIoU'] > 20
