"""Everything that claims MMPreTrain, by its data sets, classifiers, metrics and inferencer."""

from __future__ import annotations

import json
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
from mmdet_ext.catalog.hosts import claims, host, target_of
from tests.hosts.faces import (
    SIZE,
    FaceHost,
    assert_took_part,
    configured,
    face_setting,
    group_for,
)
from tests.hosts.runs import (
    STEPS,
    Setting,
    assert_calls_are_those_of_the_table,
    follow,
    start,
)

pytest.importorskip('mmpretrain', reason='MMPreTrain is absent')

from mmpretrain.apis import FeatureExtractor, ImageClassificationInferencer
from mmpretrain.registry import DATASETS

HOST = host('mmpretrain')
LOSSES = [case for case in claims('mmpretrain') if case.kind == 'loss']
FACES = [case for case in claims('mmpretrain') if case.kind != 'loss']
IMAGES, SIDE = 8, 32
#: Channels of LeNet-5's features.
FEATURES = 120
FLIPS = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
LOAD, PACK = dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')


@pytest.fixture(scope='session')
def images_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images of stripes, and a list of their labels."""
    root = tmp_path_factory.mktemp('stripes')
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        image = rng.integers(0, 60, (SIDE, SIDE), dtype=np.uint8)
        image[:: number % 4 + 2] += 150
        cv2.imwrite(str(root / f'{number}.png'), image)
    lines = [f'{number}.png {number % 4}' for number in range(IMAGES)]
    (root / 'one.txt').write_text('\n'.join(lines))
    return root


def data_of(root: Path, columns: int, several: bool = False) -> dict[str, Any]:
    """Return the config of a data set of the host, with one label or several per image."""
    classes = [f'c{number}' for number in range(columns)]
    shared = dict(data_root=str(root), pipeline=[LOAD, PACK])
    if not several:
        return dict(
            type='CustomDataset', ann_file='one.txt', data_prefix='', classes=classes, **shared
        )
    path = root / f'several-{columns}.json'
    rows = [
        dict(img_path=f'{number}.png', gt_label=sorted({number % 4, (number + 1) % 3}))
        for number in range(IMAGES)
    ]
    path.write_text(json.dumps(dict(metainfo=dict(classes=classes), data_list=rows)))
    return dict(type='MultiLabelDataset', ann_file=path.name, **shared)


@cache
def built(root: Path, columns: int, several: bool) -> Any:
    """Return a data set, which runs share: each of MMEngine's collects garbage."""
    return DATASETS.build(data_of(root, columns, several))


def classifier(loss: dict[str, Any], columns: int, several: bool = False) -> dict[str, Any]:
    """Return the config of LeNet-5 with a linear head and a loss."""
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(mean=[127.0], std=[64.0], to_rgb=False, num_classes=columns),
        backbone=dict(type='LeNet5'),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='MultiLabelLinearClsHead' if several else 'LinearClsHead',
            num_classes=columns,
            in_channels=FEATURES,
            loss=loss,
        ),
    )


def loss_setting(case: Case, root: Path) -> Setting:
    """Return the run of a classifier, with as many classes as the case's predictions have."""
    columns = case.inputs(torch.Generator(), 2)[0].shape[1]
    several = target_of(case) == 'elements'
    data = built(root, columns, several)
    metric = dict(type='MultiLabelMetric' if several else 'Accuracy')
    model = classifier(configured(case), columns, several)
    return Setting(model, data, data, metric, batch=4, collate='default_collate')


@pytest.mark.parametrize('case', LOSSES, ids=repr)
def test_a_loss_trains_tests_and_resumes(case: Case, images_root: Path, tmp_path: Path) -> None:
    outcome = follow(HOST, loss_setting(case, images_root), tmp_path)
    assert set(outcome.watch.losses[0]) == {'loss'}
    assert {'prediction', 'head.fc.weight', 'backbone.features.0.weight'} <= outcome.watch.pulled


def test_heads_call_a_loss_as_the_table_says(images_root: Path, tmp_path: Path) -> None:
    loss = dict(type='CrossEntropyLoss')
    settings = [
        Setting(
            classifier({**loss, 'use_sigmoid': several}, 4, several),
            *2 * [built(images_root, 4, several)],
            dict(type='Accuracy'),
            collate='default_collate',
        )
        for several in (False, True)
    ]
    assert_calls_are_those_of_the_table(HOST, settings, tmp_path)


def recogniser(preprocessor: Any, backbone: Any, head: Any) -> dict[str, Any]:
    return dict(
        type='ImageClassifier',
        data_preprocessor=preprocessor,
        backbone=backbone,
        neck=None,
        head=head,
    )


STOCK = FaceHost(
    recogniser, dict(type='mmpretrain.PackInputs'), dict(type='mmpretrain.Resize', scale=SIZE)
)


@pytest.mark.parametrize('case', FACES, ids=repr)
def test_a_part_of_a_recogniser_trains_tests_and_resumes(
    case: Case, faces_root: Path, tmp_path: Path
) -> None:
    with group_for(case):
        outcome = follow(HOST, face_setting(case, STOCK, faces_root), tmp_path)
    assert_took_part(case, outcome, tmp_path)


def whole_config(root: Path, folder: Path) -> Config:
    """Return a config as a user writes it, with test-time augmentation."""
    loader = dict(batch_size=4, num_workers=0, dataset=data_of(root, 4))
    path = folder / 'config.py'
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            custom_imports=dict(imports=['mmdet_ext.compat'], allow_failed_imports=False),
            model=classifier(dict(type='mmdet_ext.FocalLoss', use_sigmoid=False), 4),
            train_dataloader=dict(**loader, sampler=dict(type='DefaultSampler', shuffle=True)),
            test_dataloader=dict(**loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            test_evaluator=dict(type='Accuracy'),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            test_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05)),
            tta_model=dict(type='AverageClsScoreTTA'),
            tta_pipeline=[LOAD, dict(type='TestTimeAug', transforms=[FLIPS, [PACK]])],
            work_dir=str(folder),
            randomness=dict(seed=0),
            log_level='ERROR',
        )
    )
    cfg.dump(path)
    return Config.fromfile(path)


def scores_of(runner: Runner, entry: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        (sample,) = runner.model.test_step(
            dict(inputs=[entry['inputs']], data_samples=[entry['data_samples']])
        )
    return sample.pred_score


def test_augmented_test_and_inferencer_agree_with_the_test(
    images_root: Path, tmp_path: Path
) -> None:
    cfg = whole_config(images_root, tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    plain = runner.test()
    paths = [str(images_root / f'{number}.png') for number in range(IMAGES)]
    data = runner.test_dataloader.dataset
    expected = torch.stack([scores_of(runner, data[number]) for number in range(IMAGES)])

    infer = ImageClassificationInferencer(
        str(tmp_path / 'config.py'), pretrained=str(tmp_path / 'epoch_1.pth'), device='cpu'
    )
    images = [cv2.imread(path, cv2.IMREAD_GRAYSCALE)[..., None] for path in paths]
    found = torch.stack([torch.tensor(each['pred_scores']) for each in infer(images)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.load_from = str(tmp_path / 'epoch_1.pth')
    augmented = Runner.from_cfg(cfg)
    assert set(augmented.test()) == set(plain)
    views = augmented.test_dataloader.dataset[3]
    with torch.no_grad():
        batch = {key: [[view] for view in value] for key, value in views.items()}
        (merged,) = augmented.model.test_step(batch)
    each = [
        scores_of(runner, dict(inputs=image, data_samples=sample))
        for image, sample in zip(views['inputs'], views['data_samples'], strict=True)
    ]
    assert not torch.allclose(each[0], each[1])
    torch.testing.assert_close(merged.pred_score, (each[0] + each[1]) / 2)


@pytest.mark.parametrize('sigmoid', [False, True], ids=['softmax', 'sigmoid'])
def test_mixed_images_give_a_loss_a_share_of_each_class(
    sigmoid: bool, images_root: Path, tmp_path: Path
) -> None:
    loss = dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=sigmoid)
    model = classifier(loss, 4) | dict(train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))
    data = built(images_root, 4, False)
    setting = Setting(model, data, data, dict(type='Accuracy'), batch=4, collate='default_collate')
    seen: list[torch.Tensor] = []
    runner, _ = start(HOST, setting, tmp_path)
    runner.model.head.loss_module.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    runner.train()
    for target in seen:
        torch.testing.assert_close(target.sum(1), torch.ones(4))
        assert ((target > 0) & (target < 1)).any()
    assert len(seen) == STEPS


def test_embeddings_are_what_the_feature_extractor_gives(faces_root: Path, tmp_path: Path) -> None:
    case = next(case for case in FACES if case.kind == 'face head')
    setting = face_setting(case, STOCK, faces_root)
    runner, _ = start(HOST, setting, tmp_path)
    runner.train()
    model, data = runner.model, setting.test
    model._config = Config(dict(test_dataloader=dict(dataset=dict(pipeline=STOCK.pipeline()))))
    entry = data[0]
    with torch.no_grad():
        (sample,) = model.eval().test_step(
            dict(inputs=[entry['inputs']], data_samples=[entry['data_samples']])
        )
    extract = FeatureExtractor(model)
    (found,) = extract([entry['data_samples'].img_path], stage='pre_logits')
    torch.testing.assert_close(torch.as_tensor(found).view(-1), sample.embedding)
