"""Anchors of a data set, for several numbers of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mmdet_ext.functional.yolo.anchors import AnchorFit, kmeans_anchors


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
