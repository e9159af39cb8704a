"""Parameters, operations and time of a detector that is built from a config."""

from __future__ import annotations

import statistics
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmdet_ext.data.proposals import grid_windows


@dataclass(frozen=True)
class Cost:
    """Cost of the prediction of one image.

    Attributes:
        width: Width of the image in px.
        height: Height of the image in px.
        parameters: Number of weights that are trained.
        gflops: Floating-point operations of convolutions, products of matrices and attention, in
            1e9; a multiplication and its addition are two.
        median_ms: Median time of a prediction in ms.
        iqr_ms: Interquartile range of that time in ms.
        threads: Number of threads.
    """

    width: int
    height: int
    parameters: int
    gflops: float
    median_ms: float
    iqr_ms: float
    threads: int


def build_detector(cfg: Config, seed: int = 0) -> Any:
    """Build the detector of a config with random weights, ready to predict.

    Modules that only training uses are removed, where the detector has ``drop_guidance``.

    Args:
        cfg: Config of mmdet.
        seed: Seed of the weights.
    """
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        model = MODELS.build(cfg.model)
        model.init_weights()
    if hasattr(model, 'drop_guidance'):
        model.drop_guidance()
    model.eval()
    return model


def image_size(cfg: Config, size: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height of test images in px.

    They are ``size``, or what a `Resize` without ``keep_ratio`` or a `WarpResize` makes of any
    image.
    """
    for step in cfg.test_dataloader.dataset.pipeline:
        name = getattr(step['type'], '__name__', step['type']).rpartition('.')[2]
        if name in ('Resize', 'WarpResize') and not step.get('keep_ratio', False):
            width, height = step['scale']
            return int(width), int(height)
    return size


def example(cfg: Config, width: int, height: int, seed: int = 0) -> dict[str, Any]:
    """Return an image of noise as a data loader of mmdet gives it.

    A detector that takes proposals from files gets windows of several sizes.

    Args:
        cfg: Config of mmdet.
        width: Width of the image in px.
        height: Height of the image in px.
        seed: Seed of the noise.
    """
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    sample = DetDataSample(
        metainfo=dict(
            img_id=0,
            img_path='',
            ori_shape=(height, width),
            img_shape=(height, width),
            scale_factor=(1.0, 1.0),
            border=np.zeros(4, np.float32),
        )
    )
    if any(step['type'] == 'LoadProposals' for step in cfg.test_dataloader.dataset.pipeline):
        boxes = torch.from_numpy(grid_windows(pixels)[:, :4]).float()
        sample.proposals = InstanceData(bboxes=boxes, scores=torch.ones(len(boxes)))
    return dict(inputs=[torch.from_numpy(pixels).permute(2, 0, 1)], data_samples=[sample])


@torch.no_grad()
def predict(model: Any, data: dict[str, Any]) -> Any:
    """Predict an image that `example` made, post-processing included."""
    return model.test_step(
        dict(inputs=list(data['inputs']), data_samples=[s.clone() for s in data['data_samples']])
    )


def measure_cost(model: Any, data: dict[str, Any], runs: int = 5) -> Cost:
    """Measure the cost of a prediction.

    Time and operations include proposals, RoI heads and suppression. With random weights their
    numbers are not those of a trained detector.

    Args:
        model: Detector of `build_detector`.
        data: Image of `example`.
        runs: Number of predictions that are timed, at least 2; one more comes first.

    Raises:
        ValueError: If ``runs`` is below 2.
    """
    if runs < 2:
        raise ValueError(f'runs must be at least 2, got {runs}')
    fast = torch.backends.mha.get_fastpath_enabled()
    # The fused attention of PyTorch is one operation, which its own counter does not know.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            predict(model, data)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        predict(model, data)
        seconds.append(time.perf_counter() - start)
    low, middle, high = statistics.quantiles(seconds, n=4)
    height, width = data['inputs'][0].shape[-2:]
    return Cost(
        width=width,
        height=height,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        gflops=counter.get_total_flops() / 1e9,
        median_ms=middle * 1e3,
        iqr_ms=(high - low) * 1e3,
        threads=torch.get_num_threads(),
    )


def features_of(model: Any, data: dict[str, Any]) -> tuple[nn.Module, tuple[int, int]]:
    """Return backbone and neck in a row, and the height and width of the images that they get.

    R-CNN's backbone gets the crops of proposals instead of the image.

    Args:
        model: Detector of `build_detector`.
        data: Image of `example`.
    """
    if not any(True for _ in model.backbone.parameters()):
        extractor = model.roi_head.bbox_roi_extractor
        crop = (extractor.crop_size, extractor.crop_size)
        return nn.Sequential(OrderedDict(backbone=extractor.backbone)), crop
    parts = OrderedDict(backbone=model.backbone)
    if model.with_neck:
        parts['neck'] = model.neck
    height, width = model.data_preprocessor(data, False)['inputs'].shape[-2:]
    return nn.Sequential(parts), (height, width)
