"""NanoDet-Plus: when the guidance works and what it trains, averaged weights, costs, bad input."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.runner import Runner, load_checkpoint
from torch import Tensor

from mmdet_ext.detection.inspection.cost import build_detector, example, image_size, measure_cost
from tests._helpers.configs import CONFIGS, shrink
from tests.detection.test_unusual_images import packed
from tests.hosts.nanodet_detectors import nanodet_plus

FOLDER = CONFIGS / 'detection' / 'nanodet_plus'
IMAGES = [(128, 128, [[10, 10, 50, 60], [60, 40, 120, 100]], (128, 128))] * 2


@pytest.fixture
def epoch() -> Iterator[Callable[[int], None]]:
    hub = MessageHub.get_current_instance()
    yield lambda number: hub.update_info('epoch', number)
    hub.update_info('epoch', 0)


def build(**changes: Any) -> Any:
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(copy.deepcopy(nanodet_plus(**changes))))
    model.init_weights()
    return model.train()


def losses_of(model: Any) -> dict[str, Tensor]:
    samples = [packed(*image) for image in IMAGES]
    data = dict(
        inputs=[each['inputs'] for each in samples],
        data_samples=[each['data_samples'] for each in samples],
    )
    return model(**model.data_preprocessor(data, True), mode='loss')


def pulled_by(model: Any, prefix: str) -> set[str]:
    """Return the modules that the losses of a prefix, or those without one, give a gradient."""
    losses = losses_of(model)
    model.zero_grad()
    kept = [value for name, value in losses.items() if name.startswith('aux_') == bool(prefix)]
    sum(kept).backward()
    return {
        name.partition('.')[0]
        for name, weight in model.named_parameters()
        if weight.grad is not None and weight.grad.any()
    }


def test_the_guidance_trains_backbone_and_neck_until_it_is_detached(
    epoch: Callable[[int], None],
) -> None:
    model = build(detach_epoch=3)
    epoch(2)
    assert pulled_by(model, 'aux_') == {'backbone', 'neck', 'aux_neck', 'aux_head'}
    epoch(3)
    assert pulled_by(model, 'aux_') == {'aux_neck', 'aux_head'}
    for number in (2, 3):
        epoch(number)
        assert pulled_by(model, '') == {'backbone', 'neck', 'bbox_head'}


def test_after_its_epochs_the_head_is_on_its_own(epoch: Callable[[int], None]) -> None:
    model, alone = build(guide_epochs=2), build(guided=False)
    missing = alone.load_state_dict(model.state_dict(), strict=True)
    assert missing.missing_keys == []
    epoch(1)
    assert {name for name in losses_of(model) if name.startswith('aux_')}
    before = copy.deepcopy(model.aux_neck.state_dict())
    epoch(2)
    torch.testing.assert_close(losses_of(model), losses_of(alone), rtol=0, atol=0)
    assert model.aux_neck.state_dict().keys() == before.keys()
    torch.testing.assert_close(model.aux_neck.state_dict(), before, rtol=0, atol=0)


def test_the_second_neck_begins_as_the_first() -> None:
    model = build()
    torch.testing.assert_close(
        dict(model.aux_neck.named_parameters()), dict(model.neck.named_parameters()), rtol=0, atol=0
    )
    with torch.no_grad():
        model.aux_neck.reduce_layers[0].conv.weight.add_(1)
    assert not torch.equal(
        model.aux_neck.reduce_layers[0].conv.weight, model.neck.reduce_layers[0].conv.weight
    )


def test_a_test_computes_no_guidance_and_needs_none() -> None:
    model = build().eval()
    calls: list[int] = []
    for part in (model.aux_neck, model.aux_head):
        part.register_forward_hook(lambda *_: calls.append(1))
    bare = build(guided=False).eval()
    bare.load_state_dict(model.state_dict())
    assert not any(name.startswith('aux_') for name in bare.state_dict())
    sample = packed(*IMAGES[0])
    data = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
    dropped = copy.deepcopy(model)
    dropped.drop_guidance()
    found = [
        each.test_step(copy.deepcopy(data))[0].pred_instances for each in (model, bare, dropped)
    ]
    assert not calls and len(found[0]) > 0
    for other in found[1:]:
        assert torch.equal(found[0].bboxes, other.bboxes)
        assert torch.equal(found[0].scores, other.scores)
    assert list(dropped.state_dict()) == list(bare.state_dict())
    assert 'aux_loss_cls' not in losses_of(dropped.train())


@pytest.mark.slow
def test_a_detector_learns_an_image() -> None:
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        total = sum(losses_of(model).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    sample = packed(*IMAGES[0])
    data = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
    found = model.eval().test_step(data)[0].pred_instances[:2]
    order = found.labels.argsort()
    assert found.labels[order].tolist() == [0, 1] and (found.scores > 0.5).all()
    assert (found.bboxes[order] - torch.tensor(IMAGES[0][2])).abs().max() < 4


@pytest.mark.parametrize('width', [1.0, 1.5])
def test_parameters_and_operations_of_the_published_networks(width: float) -> None:
    """The numbers of weights are those of the authors' code, with and without the guidance."""
    name = 'nanodet_plus_m_320_300e_coco' if width == 1 else 'nanodet_plus_m_1.5x_320_300e_coco'
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    cfg.model.backbone.init_cfg = None
    whole = MODELS.build(cfg.model)
    expected = {1.0: (4_330_904, 1_197_924, 0.90), 1.5: (7_962_196, 2_477_792, 1.76)}[width]
    assert sum(each.numel() for each in whole.parameters()) == expected[0]
    model = build_detector(cfg)
    size = image_size(cfg, (1333, 800))
    assert size == (320, 320)
    cost = measure_cost(model, example(cfg, *size), runs=2)
    assert cost.parameters == expected[1] and round(cost.gflops, 2) == expected[2]


def narrow(shapes_root: Path, folder: Path) -> Config:
    """Return the leaf of the drawn shapes, with a narrow network."""
    cfg = shrink(FOLDER / 'nanodet_plus_m_320_24e_shapes.py', shapes_root, work_dir=str(folder))
    cfg.model = ConfigDict(nanodet_plus(classes=3))
    return cfg


@pytest.mark.leaf
def test_averaged_weights_are_validated_and_saved(shapes_root: Path, tmp_path: Path) -> None:
    """The runner swaps the average in, guidance included, and a test without EMA loads it."""
    cfg = narrow(shapes_root, tmp_path)
    cfg.train_dataloader.dataset.indices = 8
    cfg.custom_hooks[1].momentum = 0.5
    cfg.custom_hooks[1].gamma = 1
    runner = Runner.from_cfg(cfg)
    runner.train()
    (hook,) = [each for each in runner.hooks if type(each).__name__ == 'EMAHook']
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    average = {
        key.removeprefix('module.'): value
        for key, value in hook.ema_model.state_dict().items()
        if key != 'steps'
    }
    assert {name.partition('.')[0] for name in average} >= {'aux_neck', 'aux_head', 'backbone'}
    torch.testing.assert_close(
        {key: value for key, value in saved['state_dict'].items()}, average, rtol=0, atol=0
    )
    now = runner.model.state_dict()
    assert not torch.equal(
        now['neck.reduce_layers.0.conv.weight'], average['neck.reduce_layers.0.conv.weight']
    )
    cfg.model.aux_head = None
    model = MODELS.build(cfg.model)
    load_checkpoint(model, str(tmp_path / 'epoch_1.pth'), strict=True)
    key = 'bbox_head.gfl_cls.0.weight'
    assert torch.equal(model.state_dict()[key], average[key])


@pytest.mark.leaf
def test_test_time_augmentation_inferencer_and_visualiser(
    shapes_root: Path, tmp_path: Path
) -> None:
    cfg = narrow(shapes_root, tmp_path)
    runner = Runner.from_cfg(copy.deepcopy(cfg))
    runner.train()
    checkpoint = str(tmp_path / 'epoch_1.pth')
    cfg.load_from = checkpoint
    cfg.visualizer.vis_backends = []
    views = copy.deepcopy(cfg)
    views.tta_model.module = views.model
    views.model = views.tta_model
    views.test_dataloader.dataset.pipeline = views.tta_pipeline
    views.experiment_name = cfg.experiment_name + '-views'
    metrics = Runner.from_cfg(views).test()
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    image = next((shapes_root / 'images' / 'val').iterdir())
    inferencer = DetInferencer(cfg, checkpoint, device='cpu', show_progress=False)
    result = inferencer(str(image), out_dir=str(tmp_path / 'drawn'), pred_score_thr=0.0)
    boxes = np.array(result['predictions'][0]['bboxes'])
    assert boxes.shape[1] == 4 and np.isfinite(boxes).all() and len(boxes) > 0
    # Boxes are in px of the file of 240 x 180 px, not of the warped image.
    assert boxes.min() >= 0 and boxes[:, 2].max() <= 240 and boxes[:, 3].max() <= 180
    assert (tmp_path / 'drawn' / 'vis' / image.name).stat().st_size > 0


@pytest.mark.parametrize('size', [(1, 1), (10, 8000), (8000, 10)], ids=str)
def test_images_of_unusual_sizes_are_predicted_in_their_own_pixels(size: tuple[int, int]) -> None:
    model = build(guided=False).eval()
    height, width = size
    sample = packed(height, width, [[0, 0, width, height]], (96, 96), warped=True)
    assert tuple(sample['inputs'].shape[-2:]) == (96, 96)
    data = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
    boxes = model.test_step(data)[0].pred_instances.bboxes
    assert len(boxes) > 0 and boxes.isfinite().all()
    limits = torch.tensor([width, height] * 2) * 1.0001
    assert (boxes >= 0).all() and (boxes <= limits).all()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(bbox_head=dict(type='mmdet_ext.GFLHead')), 'bbox_head must be mmdet_ext.NanoDetPlus'),
        (dict(aux_head=dict(type='mmdet_ext.RetinaHead')), 'aux_head must be mmdet_ext.GFLHead'),
        (dict(aux_head=dict(num_classes=5)), 'aux_head.num_classes=5, but bbox_head.num_classes=4'),
        (dict(aux_head=dict(reg_max=16)), 'aux_head.reg_max=16, but bbox_head.reg_max=7'),
        (dict(aux_head=dict(in_channels=16)), r'aux_head.in_channels must be 32, .* got 16'),
        (
            dict(aux_head=dict(anchor_generator=dict(strides=[8, 16, 32]))),
            r'aux_head has the strides .*\(32, 32\)\], but bbox_head .*\(64, 64\)\]',
        ),
        (dict(detach_epoch=-1), 'detach_epoch must be a whole number from 0 on, got -1'),
        (dict(guide_epochs=0), 'guide_epochs must be at least 1'),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    config = ConfigDict(copy.deepcopy(nanodet_plus()))
    for key, value in change.items():
        if not isinstance(value, dict):
            config[key] = value
        elif 'type' in value:
            # Of another type, with as few options as it takes.
            config[key] = dict(num_classes=4, in_channels=32, **value)
            if value['type'].endswith('GFLHead'):
                config[key].anchor_generator = copy.deepcopy(config.aux_head.anchor_generator)
        else:
            for name, part in value.items():
                if isinstance(part, dict):
                    config[key][name].update(part)
                else:
                    config[key][name] = part
    with pytest.raises(ValueError, match=message):
        MODELS.build(config)
