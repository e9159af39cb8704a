"""Forward pass of TOOD's head without its deformable convolution, which no runtime has.

mmdet moves each side of a box by a deformable convolution of kernel 1, which reads the map of the
side at a predicted offset from the prior. That is a bilinear reading with zeros outside: a
``grid_sample``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, grid_sample

#: Number that makes at least 1 of every difference of two coordinates.
LARGE = 1e30


def tood_maps(head: Any, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Compute scores (B, C, H, W) and boxes (B, 4, H, W), in strides, as mmdet's ``TOODHead``.

    Args:
        head: mmdet's head, or ours.
        features: maps of the neck.
    """
    scores, boxes = [], []
    for level, (x, scale) in enumerate(zip(features, head.scales, strict=True)):
        stride = head.prior_generator.strides[level][0]
        layers = []
        for layer in head.inter_convs:
            x = layer(x)
            layers.append(x)
        joined = torch.cat(layers, 1)
        mean = adaptive_avg_pool2d(joined, (1, 1))
        for_scores = _decomposed(head.cls_decomp, joined, mean)
        for_boxes = _decomposed(head.reg_decomp, joined, mean)
        scores.append(geometric_mean(head.tood_cls(for_scores), head.cls_prob_module(joined)))
        plain = _boxes(head, level, scale, head.tood_reg(for_boxes), stride)
        moved = deformed(plain, head.reg_offset_module(joined))
        boxes.append(_upright(plain, moved))
    return scores, boxes


def _upright(plain: Tensor, moved: Tensor) -> Tensor:
    """Take back what moved the sides of a box past each other.

    The choice is written as arithmetic on 0 and 1, as ncnn has no comparison.
    """
    past = (moved[:, :2] - moved[:, 2:]).clamp(min=0) * LARGE
    inverted = past.clamp(max=1).amax(1, keepdim=True)
    return plain * inverted + moved * (1 - inverted)


def geometric_mean(one: Tensor, other: Tensor) -> Tensor:
    """Compute the geometric mean of the sigmoids of two logits.

    mmdet's ``sigmoid_geometric_mean`` is a function with a gradient of its own, which TorchScript
    does not trace.

    Args:
        one: logits.
        other: logits, of a shape that broadcasts.
    """
    return (one.sigmoid() * other.sigmoid()).sqrt()


def deformed(values: Tensor, offsets: Tensor) -> Tensor:
    """Read each map at an offset from each cell, bilinearly, with zeros outside.

    Args:
        values: (B, C, H, W).
        offsets: (B, 2 C, H, W), down and right for each map, in cells.
    """
    batch, count, height, width = values.shape
    rows = torch.arange(height, dtype=values.dtype, device=values.device)[:, None]
    columns = torch.arange(width, dtype=values.dtype, device=values.device)
    moves = offsets.reshape(-1, 2, height, width)
    down, right = moves[:, 0] + rows, moves[:, 1] + columns
    grid = torch.stack([(2 * right + 1) / width - 1, (2 * down + 1) / height - 1], -1)
    maps = values.reshape(-1, 1, height, width)
    read = grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
    return read.reshape(-1, count, height, width)


def _decomposed(module: Any, joined: Tensor, mean: Tensor) -> Tensor:
    """Apply mmdet's ``TaskDecomposition`` as a weighting of layers and one 1x1 convolution.

    mmdet makes a weight per image of it; weighting the layers instead gives the same sums.
    """
    weight = module.layer_attention(mean)  # (B, layers, 1, 1)
    layers = module.stacked_convs
    height, width = joined.shape[-2:]
    parts = joined.reshape(-1, layers, module.feat_channels, height, width)
    weighted = (parts * weight[:, :, None]).reshape(-1, module.in_channels, height, width)
    convolution: nn.Conv2d = module.reduction_conv.conv
    found = nn.functional.conv2d(weighted, convolution.weight)
    if module.norm_cfg is not None:
        found = module.reduction_conv.norm(found)
    activated: Tensor = module.reduction_conv.activate(found)
    return activated


def _boxes(head: Any, level: int, scale: nn.Module, raw: Tensor, stride: float) -> Tensor:
    """Return corners (B, 4, H, W) in strides."""
    height, width = raw.shape[-2:]
    anchors = head.prior_generator.single_level_grid_priors(
        (height, width), level, device=raw.device
    )
    if head.anchor_type == 'anchor_free':
        distances = scale(raw.exp())
        centres = (head.anchor_center(anchors) / stride).reshape(height, width, 2).permute(2, 0, 1)
        return torch.cat([centres - distances[:, :2], centres + distances[:, 2:]], 1)
    rows = scale(raw).permute(0, 2, 3, 1).reshape(-1, height * width, 4)
    every = anchors[None].expand(rows.shape[0], height * width, 4)
    boxes = head.bbox_coder.decode(every.reshape(-1, 4), rows.reshape(-1, 4)) / stride
    corners: Tensor = boxes.reshape(-1, height, width, 4).permute(0, 3, 1, 2)
    return corners
