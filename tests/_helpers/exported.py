"""Small detectors with random weights, images, and the files that they are exported to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmdet_ext.deploy import Detector
from mmdet_ext.deploy.metadata import ModelInfo
from mmdet_ext.detection.export import ExportOptions, export_detector
from mmdet_ext.detection.export.reference import Difference, compare, torch_detections
from tests.hosts.detectors import CLASSES, TEST, single
from tests.hosts.nanodet_detectors import nanodet_plus
from tests.hosts.yolo_detectors import yolov1, yolov2, yolov4, yolov5

NAMES = tuple(f'class{number}' for number in range(CLASSES))
#: Width and height of the images of a small detector, px.
WIDTH, HEIGHT = 128, 96

OWN = {
    'nanodet_plus': nanodet_plus,
    'yolov1': yolov1,
    'yolov2': yolov2,
    'yolov4': yolov4,
    'yolov5': yolov5,
}


def model_config(kind: str, scope: str = 'mmdet_ext') -> dict[str, Any]:
    """Return the config of a small detector by the name of its head, or of `OWN`."""
    return OWN[kind]() if kind in OWN else single(kind, scope)


def config_of(model: dict[str, Any], resize: dict[str, Any] | None = None) -> Config:
    """Return a config with a test pipeline around a model."""
    square = model['bbox_head'].get('grid_size') is not None
    scale = (128, 128) if square else (WIDTH, HEIGHT)
    resize = resize or dict(type='Resize', scale=scale, keep_ratio=not square)
    model = {**model, 'train_cfg': None}
    model['test_cfg'] = {**TEST, **model['test_cfg']}
    if model['data_preprocessor'].get('pad_mask'):
        model['data_preprocessor'] = {**model['data_preprocessor'], 'pad_mask': False}
    pipeline = [
        dict(type='LoadImageFromFile', backend_args=None),
        resize,
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs'),
    ]
    return Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))


def built(config: Config, seed: int = 0) -> nn.Module:
    """Build a detector whose random weights spread its scores.

    Those of YOLO's heads are smaller, as sides grow exponentially with what they predict.
    """
    spread = 0.02 if 'YOLOV' in config.model.bbox_head.type.upper() else 0.2
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = MODELS.build(config.model).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_(noise * (spread if name.startswith('bbox_head') else 0.05))
        for module in model.modules():  # features of about unit size, however deep the network
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
                module.reset_running_stats()
        model.train()
        size = (128, 128) if config.model.bbox_head.get('grid_size') else (HEIGHT, WIDTH)
        model.bbox_head(model.extract_feat(torch.randn(4, 3, *size, generator=generator)))
        for layer in getattr(model.bbox_head, 'convs_pred', ()):
            layer.weight *= 0.1
    return model.eval()


def image_files(folder: Path, sizes: tuple[tuple[int, int], ...]) -> list[Path]:
    """Write images of smooth noise, one per size (height, width)."""
    generator = np.random.default_rng(0)
    files = []
    for number, (height, width) in enumerate(sizes):
        coarse = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        path = folder / f'{number}.png'
        cv2.imwrite(str(path), cv2.resize(coarse, (width, height)))
        files.append(path)
    return files


def export(model: nn.Module, config: Config, path: Path, **options: Any) -> ModelInfo:
    """Export a small detector."""
    return export_detector(model, config, NAMES, path, ExportOptions(**options))


def difference(
    model: nn.Module,
    config: Config,
    path: Path,
    files: list[Path],
    runtime: str | None = None,
    batch: int | None = None,
) -> Difference:
    """Compare a file with torch on images."""
    detector = Detector(path, runtime, threads=1)
    expected = torch_detections(model, config, detector, files)
    found = detector(files, batch)
    return compare(expected, found, detector.info.selection.max_per_image)
