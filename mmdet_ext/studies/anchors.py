"""Anchors of a data set, for several numbers of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from mmdet_ext.functional.yolo.anchors import (
    LEAST_RECALL,
    AnchorFit,
    AnchorRecall,
    anchor_recall,
    kmeans_anchors,
)


def fit_anchors(sides: np.ndarray, clusters: Sequence[int], seed: int = 0) -> dict[int, AnchorFit]:
    """Cluster boxes by shape, for each number of anchors.

    Args:
        sides: widths and heights, (N, 2), px.
        clusters: numbers of anchors.
        seed: seed of the first centres.

    Returns:
        dict: number of anchors -> anchors, in ascending order.

    Raises:
        ValueError: if there are fewer different boxes than anchors.
    """
    table = torch.from_numpy(np.asarray(sides, dtype=np.float64))
    return {k: kmeans_anchors(table, k, seed) for k in sorted(set(clusters))}


def anchors_table(fits: Mapping[int, AnchorFit], chosen: int, stride: int) -> str:
    """Format the mean IoU per number of anchors, and the anchors of the chosen number.

    Args:
        fits: number of anchors -> anchors, px.
        chosen: number of anchors, a key of ``fits``.
        stride: side of a cell, px.
    """
    lines = ['anchors  mean IoU']
    lines += [f'{k:>7}  {fit.mean_iou:.4f}' for k, fit in fits.items()]
    fit = fits[chosen]
    total = int(fit.counts.sum())
    lines += ['', f'{chosen} anchors, in px and in cells of {stride} px', '']
    lines.append('    px: width  height  cells: width  height   boxes')
    for (width, height), count in zip(fit.anchors.tolist(), fit.counts.tolist(), strict=True):
        cells = f'{width / stride:>12.3f} {height / stride:>7.3f}'
        lines.append(f'{width:>13.1f} {height:>7.1f} {cells}  {count / total:>6.1%}')
    return '\n'.join(lines)


def anchors_json(fits: Mapping[int, AnchorFit], chosen: int, stride: int) -> dict[str, Any]:
    """Return the anchors of the chosen number, and the mean IoU per number.

    Args:
        fits: number of anchors -> anchors, px.
        chosen: number of anchors, a key of ``fits``.
        stride: side of a cell, px.
    """
    fit = fits[chosen]
    return {
        'anchors_px': [[round(side, 2) for side in pair] for pair in fit.anchors.tolist()],
        'anchors_cells': [
            [round(side / stride, 4) for side in pair] for pair in fit.anchors.tolist()
        ],
        'counts': fit.counts.tolist(),
        'mean_iou': fit.mean_iou,
        'mean_iou_by_number': {str(k): other.mean_iou for k, other in fits.items()},
        'stride': stride,
    }


def config_anchors(path: Path) -> list[tuple[float, float]]:
    """Return the anchors of the head of a detector, of all levels.

    Args:
        path: Config whose ``model.bbox_head`` has ``anchors`` in px (`YOLOv5Head`), or
            ``anchor_generator.base_sizes`` (mmdet's ``YOLOAnchorGenerator``).

    Raises:
        ValueError: if the config cannot be read, or its head has no such anchors.
    """
    try:
        head = Config.fromfile(path).get('model', {}).get('bbox_head', {})
    except Exception as error:  # a config is code, which may raise anything
        raise ValueError(f'{path} cannot be read: {type(error).__name__}: {error}') from error
    levels = (head.get('anchor_generator') or {}).get('base_sizes') or head.get('anchors')
    try:
        found = [(float(width), float(height)) for level in levels for width, height in level]
    except TypeError:
        found = []
    if not found:
        raise ValueError(
            f'{path} has no anchors per level, in px, as model.bbox_head.anchors (YOLOv5Head) or '
            'model.bbox_head.anchor_generator.base_sizes (YOLOAnchorGenerator)'
        )
    return found


def recall_of(sides: np.ndarray, anchors: Sequence[Any], ratio: float) -> AnchorRecall:
    """Compute the best possible recall of anchors.

    Args:
        sides: widths and heights of boxes, (N, 2), px.
        anchors: widths and heights, (k, 2), px.
        ratio: largest ratio of the sides, above 1.

    Raises:
        ValueError: if the ratio is not above 1, or a side is not above 0.
    """
    boxes = torch.from_numpy(np.asarray(sides, dtype=np.float64))
    return anchor_recall(boxes, torch.tensor(anchors, dtype=torch.float64), ratio)


def recall_line(name: str, found: AnchorRecall, ratio: float) -> str:
    """Format the best possible recall, with a warning where it is too low.

    Args:
        name: whose anchors.
        found: the figures.
        ratio: at which they were computed.
    """
    line = (
        f'{name}: {found.recall:.1%} of the boxes have an anchor whose sides differ by less than '
        f'{ratio:g} times (best possible recall), {found.per_box:.1f} on average'
    )
    if found.recall < LEAST_RECALL:
        line += f'\nwarning: below {LEAST_RECALL:.0%}: the other boxes are never learned'
    return line
