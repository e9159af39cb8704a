"""Decoding of the maps of dense heads, for a whole batch and without choices that depend on values.

mmdet's heads decode image by image, after they have dropped what scores low. A graph of a runtime
has fixed shapes, so that here every prior is decoded, and what scores low is dropped afterwards.
`decode_maps` finds the rule of a head:

1. the rule in `RULES` of its class, or of the nearest class that it inherits from;
2. a method ``decode_for_export(*maps)`` of that class, which returns one `Level` per level;
3. for any other head of mmdet's ``BaseDenseHead`` whose prediction is that class's own, the head's
   priors and its coder.

A head of which the prediction is its own and that has neither is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from mmdet.models import dense_heads
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn

from mmdet_ext.detection.export.tood import tood_maps
from mmdet_ext.detection.heads.yolo import YOLOV1Head, YOLOV2Head, YOLOv5Head
from mmdet_ext.functional.yolo.terms import LARGEST_LOG

__all__ = ['Decoded', 'Level', 'Rule', 'decode_maps', 'flat_map', 'rule_of']


class Level(NamedTuple):
    """Decoded priors of one level.

    Attributes:
        scores: (B, P_l, C) probabilities.
        boxes: (B, P_l, 4) corners, px of the input, not clipped.
        factors: (B, P_l) that multiply the scores after the selection; None for none.
    """

    scores: Tensor
    boxes: Tensor
    factors: Tensor | None = None


class Decoded(NamedTuple):
    """Decoded priors of all levels.

    Attributes:
        boxes: (B, P, 4) corners, px of the input, not clipped.
        scores: (B, P, C) probabilities.
        factors: (B, P); None for none.
        sizes: priors per level.
    """

    boxes: Tensor
    scores: Tensor
    factors: Tensor | None
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """Reading of the maps of a head, and how the head chooses among priors.

    Args:
        decode: function of the head, its maps and the size (height, width) of the input, which
            returns one `Level` per level.
        clip: whether boxes are clipped to the image ``first``, before the suppression, ``last``,
            or ``never``.
        selection: ``pairs``: every class of a prior is a candidate, unless ``multi_label`` of
            ``test_cfg`` is False, and ``nms_pre`` holds per level; ``best_class``: a prior has its
            best class alone, whose score times the factor reaches ``score_thr``.
        one_level: whether ``nms_pre`` holds for all levels together.
        limit: whether ``max_per_img`` holds.
        min_size: whether ``min_bbox_size`` holds.
        forward: function of the head and its features in place of the head's forward pass, where
            that holds an operator which no runtime has.
    """

    decode: Callable[[Any, Sequence[Any], tuple[int, int]], Sequence[Level]]
    clip: Literal['first', 'last', 'never'] = 'first'
    selection: Literal['pairs', 'best_class'] = 'pairs'
    one_level: bool = False
    limit: bool = True
    min_size: bool = True
    forward: Callable[[Any, Sequence[Tensor]], Any] | None = None


def decode_maps(head: nn.Module, maps: Sequence[Any], size: tuple[int, int]) -> Decoded:
    """Decode what a head's forward pass returns.

    Args:
        head: a dense head.
        maps: result of ``head(features)``.
        size: height and width of the network's input, px.

    Raises:
        ValueError: if there is no rule for the head.
    """
    levels = rule_of(head).decode(head, maps, size)
    factors = [level.factors for level in levels if level.factors is not None]
    return Decoded(
        boxes=torch.cat([level.boxes for level in levels], 1),
        scores=torch.cat([level.scores for level in levels], 1),
        factors=torch.cat(factors, 1) if factors else None,
        sizes=tuple(level.boxes.shape[1] for level in levels),
    )


def rule_of(head: nn.Module) -> Rule:
    """Return the rule of a head.

    Raises:
        ValueError: if there is none.
    """
    for base in type(head).__mro__:
        if base in RULES:
            return RULES[base]
        if 'decode_for_export' in vars(base):
            return Rule(_decode_by_head)
    if _predicts_as_base(head):
        return Rule(_decode_by_coder)
    raise ValueError(
        f'{type(head).__name__} has a prediction of its own, for which there is no rule of export. '
        'Give it a method decode_for_export(*maps) that returns one '
        'mmdet_ext.detection.export.decoding.Level per level. There are rules for '
        f'{", ".join(sorted(base.__name__ for base in RULES))}, and for all heads that predict as '
        "mmdet's BaseDenseHead does"
    )


def _predicts_as_base(head: nn.Module) -> bool:
    return (
        isinstance(head, BaseDenseHead)
        and all(
            getattr(type(head), name) is getattr(BaseDenseHead, name)
            for name in ('predict_by_feat', '_predict_by_feat_single')
        )
        and hasattr(head, 'prior_generator')
        and hasattr(head, 'bbox_coder')
    )


def flat_map(values: Tensor, columns: int) -> Tensor:
    """Flatten a map (B, A * D, H, W), for A priors per cell, to (B, P, D).

    The batch is read from the shape, as its ``len`` would be a constant of the graph.

    Args:
        values: the map.
        columns: D.
    """
    return values.permute(0, 2, 3, 1).reshape(values.shape[0], -1, columns)


def _sizes(maps: Sequence[Tensor]) -> list[tuple[int, int]]:
    return [tuple(each.shape[-2:]) for each in maps]  # type: ignore[misc]


def _scores(head: Any, maps: Tensor) -> Tensor:
    """Return the probabilities (B, P, C) of a map of logits, without the background."""
    logits = flat_map(maps, head.cls_out_channels)
    if getattr(getattr(head, 'loss_cls', None), 'custom_cls_channels', False):
        activated: Tensor = head.loss_cls.get_activation(logits)
        return activated
    if head.use_sigmoid_cls:
        return logits.sigmoid()
    return logits.softmax(-1)[..., :-1]


def _by_coder(coder: Any, priors: Tensor, rows: Tensor) -> Tensor:
    """Decode rows (B, P, 4) at priors (P, K) by a coder of mmdet, without clipping.

    The coders decode batches, except for that of deltas, which takes rows.
    """
    batch, count = rows.shape[:2]
    flat = priors[None].expand(batch, count, priors.shape[-1]).reshape(-1, priors.shape[-1])
    boxes: Tensor = coder.decode(flat, rows.reshape(-1, rows.shape[-1]))
    return boxes.reshape(batch, count, 4)


def _decode_by_coder(head: Any, maps: Sequence[Any], size: tuple[int, int]) -> list[Level]:
    """Decode as mmdet's ``BaseDenseHead``: RetinaNet, ATSS, FCOS, SSD, RTMDet and others."""
    scores, boxes = maps[0], maps[1]
    factors = maps[2] if len(maps) > 2 and maps[2] is not None else [None] * len(scores)
    priors = head.prior_generator.grid_priors(
        _sizes(scores), dtype=scores[0].dtype, device=scores[0].device
    )
    return [
        Level(
            _scores(head, score),
            _by_coder(head.bbox_coder, prior, flat_map(box, head.bbox_coder.encode_size)),
            None if factor is None else flat_map(factor, 1)[..., 0].sigmoid(),
        )
        for score, box, factor, prior in zip(scores, boxes, factors, priors, strict=True)
    ]


def _decode_by_head(head: Any, maps: Sequence[Any], size: tuple[int, int]) -> Sequence[Level]:
    """Decode by the head's own ``decode_for_export``."""
    levels: Sequence[Level] = head.decode_for_export(*maps)
    return levels


def _decode_gfl(head: Any, maps: Sequence[Any], size: tuple[int, int]) -> list[Level]:
    """Decode distributions of distances from the centres of anchors, as mmdet's ``GFLHead``."""
    scores, boxes = maps[0], maps[1]
    generator = head.prior_generator
    priors = generator.grid_priors(_sizes(scores), dtype=scores[0].dtype, device=scores[0].device)
    bins = head.reg_max + 1
    levels = []
    for score, box, prior, stride in zip(scores, boxes, priors, generator.strides, strict=True):
        rows = flat_map(box, 4 * bins)
        project = torch.arange(bins, dtype=rows.dtype, device=rows.device)
        shares = rows.reshape(*rows.shape[:2], 4, bins).softmax(-1)
        distances = (shares * project).sum(-1) * stride[0]
        centres = head.anchor_center(prior)
        levels.append(Level(_scores(head, score), _by_coder(head.bbox_coder, centres, distances)))
    return levels


def _decode_tood(head: Any, maps: Sequence[Any], size: tuple[int, int]) -> list[Level]:
    """Scale boxes by the strides: a head of TOOD has decoded them, and its scores are activated."""
    strides = head.prior_generator.strides
    return [
        Level(
            flat_map(score, head.cls_out_channels),
            flat_map(box, 4) * stride[0],
        )
        for score, box, stride in zip(maps[0], maps[1], strides, strict=True)
    ]


def _decode_yolox(head: Any, maps: Sequence[Any], size: tuple[int, int]) -> list[Level]:
    """Decode centres and sizes in strides, with objectness as a factor."""
    scores, boxes, objectness = maps
    priors = head.prior_generator.grid_priors(
        _sizes(scores), dtype=scores[0].dtype, device=scores[0].device, with_stride=True
    )
    return [
        Level(
            flat_map(score, head.cls_out_channels).sigmoid(),
            head._bbox_decode(prior, flat_map(box, 4)),
            flat_map(each, 1)[..., 0].sigmoid(),
        )
        for score, box, each, prior in zip(scores, boxes, objectness, priors, strict=True)
    ]


def _decode_yolov3(head: Any, maps: Sequence[Any], size: tuple[int, int]) -> list[Level]:
    """Decode cells of anchors, with objectness as a factor."""
    levels = maps[0]
    priors = head.prior_generator.grid_priors(_sizes(levels), device=levels[0].device)
    found = []
    for pred, prior, stride in zip(levels, priors, head.featmap_strides, strict=True):
        rows = flat_map(pred, head.num_attrib)
        moved = torch.cat([rows[..., :2].sigmoid(), rows[..., 2:4]], -1)
        boxes = head.bbox_coder.decode(prior[None], moved, stride)
        found.append(Level(_yolov3_classes(head, rows[..., 5:]), boxes, rows[..., 4].sigmoid()))
    return found


def _yolov3_classes(head: Any, logits: Tensor) -> Tensor:
    classes: Tensor = (
        head._class_scores(logits) if hasattr(head, '_class_scores') else logits.sigmoid()
    )
    return classes


def _decode_yolov1(head: Any, maps: Sequence[Any], size: tuple[int, int]) -> list[Level]:
    """Decode cells of shares of the input, as `mmdet_ext.functional.yolo.v1` does.

    Tables have three axes, because ncnn misreads those of five.
    """
    height, width = size
    count, side = head.boxes_per_cell, head.grid_size
    rows = flat_map(maps[0], 5 * count + head.num_classes)
    steps = torch.arange(side, dtype=rows.dtype, device=rows.device)
    corner = torch.stack([steps.repeat(side), steps.repeat_interleave(side)], -1)
    whole = rows.new_tensor([width, height])
    classes = rows[..., 5 * count :].clamp(0, 1)
    boxes, scores = [], []
    for own in (rows[..., 5 * place : 5 * place + 5] for place in range(count)):
        centre = (own[..., :2] + corner) / side
        half = own[..., 2:4] * own[..., 2:4] / 2
        boxes.append(torch.cat([(centre - half) * whole, (centre + half) * whole], -1))
        scores.append(own[..., 4:].clamp(0, 1) * classes)
    return [Level(torch.cat(scores, 1), torch.cat(boxes, 1))]


def _decode_yolov2(head: Any, maps: Sequence[Any], size: tuple[int, int]) -> list[Level]:
    """Decode anchors of the cells of one map, as `mmdet_ext.functional.yolo.v2` does.

    A side grows as a straight line from exp(T) anchors on: exp(T + ln(1 + t - T)) is written as
    exp(T) (1 + t - T).
    """
    (priors,) = head.prior_generator.grid_priors(_sizes(maps[:1]), device=maps[0].device)
    rows = flat_map(maps[0], head.num_attrib)
    centre = (priors[:, :2] + priors[:, 2:]) / 2 + (rows[..., :2].sigmoid() - 0.5) * head.stride
    logs = rows[..., 2:4]
    factor = logs.clamp(max=LARGEST_LOG).exp() * (1 + (logs - LARGEST_LOG).relu())
    half = (priors[:, 2:] - priors[:, :2]) * factor / 2
    scores = rows[..., 4:5].sigmoid() * rows[..., 5:].softmax(-1)
    return [Level(scores, torch.cat([centre - half, centre + half], -1))]


#: Class of a head -> its rule, which classes that inherit from it have too.
RULES: dict[type, Rule] = {
    dense_heads.GFLHead: Rule(_decode_gfl),
    dense_heads.TOODHead: Rule(_decode_tood, clip='never', forward=tood_maps),
    dense_heads.RTMDetHead: Rule(_decode_by_coder),
    dense_heads.YOLOXHead: Rule(
        _decode_yolox, clip='never', selection='best_class', limit=False, min_size=False
    ),
    dense_heads.YOLOV3Head: Rule(_decode_yolov3, clip='never', one_level=True),
    YOLOv5Head: Rule(_decode_by_head, clip='last', one_level=True),
    YOLOV1Head: Rule(_decode_yolov1),
    YOLOV2Head: Rule(_decode_yolov2),
}
