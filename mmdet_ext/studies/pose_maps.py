"""Maps of a bottom-up pose estimator for an image, and the people and limbs found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from mmdet_ext.functional.pose import limb_scores, match_limb

#: Value of a heatmap from which on a joint is a candidate, and a prediction is shown.
SHOWN = 0.1
_NEIGHBOURHOOD = 5


@dataclass(frozen=True)
class PoseMaps:
    """Image as the network sees it, with the network's maps and people. All places are in its px.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        heatmaps: (K, h, w).
        maps: tags (K * T, h, w), or fields (C, 2, h, w).
        truth: x, y and v of the ground truth, (G, K, 3).
        found: x, y and score of the predictions, (N, K, 3), the best person first.
        stride: px per cell. The first cell lies at the first pixel, as codecs have it.
    """

    image: np.ndarray
    heatmaps: np.ndarray
    maps: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    stride: float


@dataclass(frozen=True)
class MatchedLimb:
    """Graph of a limb: candidates for both joints (M, 2) px, and connections.

    Attributes:
        first, second: candidates for its joints, (M, 2) and (M', 2), px.
        scores: of all connections, (M, M').
        kept: connections that the matching took, (M, M') bool.
    """

    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray
    kept: np.ndarray


def look(model: Any, item: dict[str, Any], limbs: int | None = None) -> PoseMaps:
    """Run a bottom-up pose estimator of MMPose on an item of its test set.

    Args:
        model: in evaluation mode; its head gives heatmaps, and tags or fields.
        item: what the pipeline of tests gives for an image.
        limbs: number C of limbs of its fields; None for tags.
    """
    batch = pseudo_collate([item])
    with torch.no_grad():
        inputs = model.data_preprocessor(batch, False)['inputs']
        heatmaps, maps = model.head.forward(model.extract_feat(inputs))
        (sample,) = model.test_step(batch)
    image = item['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
    found = sample.pred_instances
    order = np.argsort(-np.asarray(found.bbox_scores))
    places = _in_input(np.asarray(found.keypoints), sample.metainfo)
    scores = np.asarray(found.keypoint_scores)[..., None]
    annotations = sample.metainfo.get('raw_ann_info') or []
    truth = np.reshape([item['keypoints'] for item in annotations], (len(annotations), -1, 3))
    truth = np.concatenate([_in_input(truth[..., :2], sample.metainfo), truth[..., 2:]], 2)
    height, width = heatmaps.shape[2:]
    rest = maps[0].reshape(-1, height, width)
    return PoseMaps(
        image=np.ascontiguousarray(image).astype(np.uint8),
        heatmaps=heatmaps[0].numpy(),
        maps=(rest if limbs is None else rest.reshape(limbs, 2, height, width)).numpy(),
        truth=truth,
        found=np.concatenate([places, scores], 2)[order],
        stride=inputs.shape[-1] / width,
    )


def joint_tags(maps: PoseMaps) -> np.ndarray:
    """Read the first dimension of the tag at each joint that was found, (N, K)."""
    joints, height, width = maps.heatmaps.shape
    cells = np.rint(maps.found[..., :2] / maps.stride).astype(int)
    x, y = cells[..., 0].clip(0, width - 1), cells[..., 1].clip(0, height - 1)
    return np.asarray(maps.maps[np.arange(joints), y, x])


def matched_limbs(
    maps: PoseMaps, limbs: Sequence[tuple[int, int]], chosen: Sequence[int], min_share: float = 0.8
) -> list[MatchedLimb]:
    """Score and match the candidates of chosen limbs, as `group_by_limbs` does.

    Args:
        maps: with fields.
        limbs: pairs of joints of all fields.
        chosen: numbers of limbs.
        min_share: smallest share of points of a connection along its field.
    """
    heatmaps = torch.from_numpy(maps.heatmaps)
    highest = torch.nn.functional.max_pool2d(
        heatmaps[None], _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2
    )[0]
    peaks = (heatmaps == highest) & (heatmaps > SHOWN)
    cells = [_cells(peak) for peak in peaks]
    places = torch.zeros(len(cells), max([1, *map(len, cells)]), 2)
    for row, cell in zip(places, cells, strict=True):
        row[: len(cell)] = cell
    fit = limb_scores(torch.from_numpy(maps.maps), places, limbs)
    found = []
    for number in chosen:
        start, end = (cells[joint] for joint in limbs[number])
        score = fit.score[number, : len(start), : len(end)].numpy()
        share = fit.share[number, : len(start), : len(end)].numpy()
        valid = (share >= min_share - 1e-6) & (score > 0)
        kept = np.zeros_like(valid)
        for pair in match_limb(score, valid):
            kept[pair] = True
        first, second = (cell.numpy() * maps.stride for cell in (start, end))
        found.append(MatchedLimb(first, second, score, kept))
    return found


def _cells(peak: Tensor) -> Tensor:
    """List x and y of the cells of a mask, (M, 2)."""
    return peak.nonzero().flip(1).float()


def _in_input(places: np.ndarray, meta: dict[str, Any]) -> np.ndarray:
    """Map places from px of the image to px of the network's input."""
    size, scale, centre = (
        np.asarray(meta[name]) for name in ('input_size', 'input_scale', 'input_center')
    )
    return np.asarray((places - centre + 0.5 * scale) / scale * size)
