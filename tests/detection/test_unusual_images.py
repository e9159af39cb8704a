"""Images that a data set may hold by accident, through small detectors with each of our heads.

Each batch goes through mmdet's ``Resize`` and the detector's padding. Two iterations of training
have finite losses and gradients, or an error names the size and what to do.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.registry import HOOKS, MODELS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from PIL import Image

from mmdet_ext.detection.datasets.coco import CocoDataset
from mmdet_ext.detection.transforms import WarpResize
from tests._helpers.dense_heads import HEADS
from tests.hosts.detectors import CLASSES, MORE_HEADS, single
from tests.hosts.nanodet_detectors import nanodet_plus
from tests.hosts.roi_detectors import PARTS, _part
from tests.hosts.yolo_detectors import yolov1, yolov2, yolov4, yolov5

#: Options of the parts of two-stage detectors that have no useful default in small.
ROI_PARTS: dict[str, dict[str, Any]] = {
    'BiFPN': {},
    'LightHeadRoIHead': dict(kernel_size=3),
    'RCNNWarpRoIExtractor': dict(crop_size=32, context=4),
    'RFCNHead': dict(roi_feat_size=3),
    'SPPRoIExtractor': {},
    'SqueezeExcitation': {},
}
OURS = [name for name in {**HEADS, **MORE_HEADS} if name != 'VFNetHead']
USUAL = [[10, 10, 50, 60]]


def crowd(count: int) -> Any:
    """Return boxes of 2 to 18 px within 128 px, of which many overlap."""
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 110, (count, 2))
    return np.concatenate([corner, corner + generator.uniform(2, 18, (count, 2))], 1)


#: Images of a batch: height, width, boxes in px of the file, and the scale of ``Resize``.
BATCHES: dict[str, list[tuple[int, int, Any, tuple[int, int]]]] = {
    'no boxes at all': [(128, 128, [], (128, 128))] * 2,
    'an image without boxes': [(128, 128, [], (128, 128)), (128, 128, USUAL, (128, 128))],
    '5000 boxes': [(128, 128, crowd(5000), (128, 128)), (128, 128, USUAL, (128, 128))],
    '1 x 1 px': [(1, 1, [[0, 0, 1, 1]], (1, 1))] * 2,
    '1 x 1 px, enlarged': [(1, 1, [[0, 0, 1, 1]], (128, 128)), (128, 128, USUAL, (128, 128))],
    '10 x 8000 px': [(10, 8000, [[4, 2, 90, 9], [0, 0, 8000, 10]], (1333, 800))] * 2,
}


def detector_of(name: str) -> dict[str, Any]:
    """Return the config of a detector that has a head or a part of ours."""
    networks: dict[str, Callable[[], dict[str, Any]]] = {
        'NanoDetPlus': nanodet_plus,
        'YOLOV1Head': yolov1,
        'YOLOV2Head': yolov2,
        'YOLOV4': yolov4,
        'YOLOv5Head': yolov5,
    }
    if name in networks:
        return networks[name]()
    if name in ROI_PARTS:
        return PARTS[name](_part(name, **ROI_PARTS[name]))[1]
    phase = dict(train_cfg=dict(initial_epoch=0)) if name == 'TOODHead' else {}
    return single(name, **phase)


def packed(
    height: int, width: int, boxes: Any, scale: tuple[int, int], warped: bool = False
) -> dict[str, Any]:
    """Return a sample of mmdet, resized and packed, with two proposals.

    Args:
        height: of the file, px.
        width: of the file, px.
        boxes: corners (G, 4), px of the file.
        scale: of ``Resize``.
        warped: whether the image is warped to 96 x 96 px instead, as NanoDet-Plus takes it.
    """
    corners = torch.tensor(np.asarray(boxes, np.float32).reshape(-1, 4))
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    results = dict(
        img=image,
        img_shape=(height, width),
        ori_shape=(height, width),
        gt_bboxes=HorizontalBoxes(corners),
        gt_bboxes_labels=np.arange(len(corners)) % CLASSES,
        gt_ignore_flags=np.zeros(len(corners), bool),
        img_id=0,
        img_path='x.jpg',
    )
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    resize = WarpResize((96, 96)) if warped else Resize(scale, keep_ratio=True)
    sample = PackDetInputs(meta_keys=keys).transform(resize(results))
    rows, columns = sample['inputs'].shape[-2:]
    proposals = torch.tensor([[0, 0, columns, rows], [0, 0, columns / 2, rows]])
    sample['data_samples'].proposals = InstanceData(bboxes=proposals)
    return sample


def train(config: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    """Train for two iterations, and assert that all losses and gradients are finite."""
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(copy.deepcopy(config))).train()
    MessageHub.get_current_instance().update_info('epoch', 0)  # TOOD's phase of training
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs = [sample['inputs'] for sample in samples]
    for _ in range(2):
        data = dict(
            inputs=inputs, data_samples=[copy.deepcopy(each['data_samples']) for each in samples]
        )
        data = model.data_preprocessor(data, True)
        total, logged = model.parse_losses(model(**data, mode='loss'))
        bad = {name: float(value) for name, value in logged.items() if not value.isfinite()}
        assert not bad
        optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 35, error_if_nonfinite=True)
        assert norm.isfinite()
        optimizer.step()


@pytest.mark.parametrize('batch', BATCHES)
@pytest.mark.parametrize(
    'name', [*OURS, 'NanoDetPlus', 'YOLOV1Head', 'YOLOV2Head', 'YOLOV4', 'YOLOv5Head', *ROI_PARTS]
)
def test_two_iterations_are_finite_or_the_size_is_named(name: str, batch: str) -> None:
    samples = [packed(*image, warped=name == 'NanoDetPlus') for image in BATCHES[batch]]
    if name == 'YOLOV1Head' and batch in ('1 x 1 px', '10 x 8000 px'):
        found = {'1 x 1 px': '1 x 1', '10 x 8000 px': '1 x 21'}[batch]
        message = f'needs a map of 2 x 2, but got one of {found} .* keep_ratio=False'
        with pytest.raises(ValueError, match=message):
            train(detector_of(name), samples)
        return
    train(detector_of(name), samples)


@pytest.mark.parametrize(
    'name', [*OURS, 'NanoDetPlus', 'YOLOV1Head', 'YOLOV2Head', 'YOLOV4', 'YOLOv5Head']
)
def test_a_label_beyond_the_classes_is_named_with_both_numbers(name: str) -> None:
    config = detector_of(name)
    for head in ('bbox_head', 'aux_head'):
        if head in config:
            config[head]['num_classes'] = CLASSES - 2
    boxes = [[0, 0, 30, 30], [20, 20, 60, 60], [60, 60, 90, 90]]
    with pytest.raises(ValueError, match=r'num_classes') as caught:
        train(config, [packed(128, 128, boxes, (128, 128))])
    text = str(caught.value)
    assert 'num_classes=2' in text or 'scores of 2 classes' in text
    assert 'the label 2' in text or 'got 2' in text


def test_an_image_that_resize_leaves_no_pixel_of_is_named(tmp_path: Path) -> None:
    Image.new('RGB', (8000, 10)).save(tmp_path / 'long.png')
    content = dict(
        images=[dict(id=1, file_name='long.png', width=8000, height=10)],
        annotations=[
            dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 900, 10], area=9000, iscrowd=0)
        ],
        categories=[dict(id=1, name='a')],
    )
    (tmp_path / 'a.json').write_text(json.dumps(content))
    data = CocoDataset(
        data_root=str(tmp_path),
        ann_file='a.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('a',)),
        pipeline=[
            LoadImageFromFile(),
            LoadAnnotations(with_bbox=True),
            Resize((240, 180), keep_ratio=True),
            PackDetInputs(),
        ],
    )
    with pytest.raises(ValueError, match=r"long.png', of 8000 x 10 px .* raise scale of Resize"):
        data[0]


@pytest.mark.parametrize('part', ['atss', 'two_stage'])
def test_the_runtime_of_the_configs_names_classes_that_differ(part: str) -> None:
    runtime = Config.fromfile('configs/_base_/runtime.py')
    (hook,) = [HOOKS.build(each) for each in runtime.custom_hooks]
    config = detector_of('ATSSHead' if part == 'atss' else 'SPPRoIExtractor')
    runner = Mock(model=MODELS.build(ConfigDict(config)))
    runner.train_dataloader.dataset.metainfo = dict(classes=tuple('abcd'))
    hook.before_train_epoch(runner)
    runner.train_dataloader.dataset.metainfo = dict(classes=tuple('abc'))
    with pytest.raises(AssertionError, match=r'num_classes` \(4\) .*Head.*3\)'):
        hook.before_train_epoch(runner)
