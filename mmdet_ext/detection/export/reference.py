"""Detections of torch and of a model file on real images, and the worst difference between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import nn

from mmdet_ext.deploy.detections import Detections
from mmdet_ext.deploy.detector import Detector
from mmdet_ext.deploy.images import prepare, read_image
from mmdet_ext.detection.export.pipeline import pipeline_of

#: Largest differences of a float32 file that count as equal.
BOX_TOLERANCE, SCORE_TOLERANCE = 1e-2, 1e-4


@dataclass(frozen=True)
class Difference:
    """Worst difference of a model file from torch.

    Args:
        images: number of images.
        detections: number of detections of torch.
        compared: number of detections that both sides have.
        box: largest difference of a corner, px of the image.
        score: largest difference of a score.
        lacking: detections of torch alone, as text.
        added: detections of the file alone, as text.
        ties: detections that only one side has, because their score equals that of the last one
            kept: which of equals is kept is open in torch.
    """

    images: int
    detections: int
    compared: int
    box: float
    score: float
    lacking: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    ties: int = 0

    @property
    def equal(self) -> bool:
        """Return whether both sides agree within the tolerances, and enough was compared."""
        return (
            not (self.lacking or self.added)
            and self.says_something
            and self.box <= BOX_TOLERANCE
            and self.score <= SCORE_TOLERANCE
        )

    @property
    def says_something(self) -> bool:
        """Return whether detections were compared, more of them than are a choice among equals."""
        return 0 < self.compared >= self.ties

    def lines(self) -> list[str]:
        """Return the lines that a tool prints."""
        found = [
            f'{self.images} images, {self.detections} detections of torch: boxes differ by at most '
            f'{self.box:.2e} px (allowed {BOX_TOLERANCE:g}), scores by {self.score:.2e} '
            f'(allowed {SCORE_TOLERANCE:g})'
        ]
        if self.ties:
            found.append(f'{self.ties} detections differ by the choice among equal scores')
        if not self.says_something:
            found.append(
                f'only {self.compared} detections could be compared, which shows nothing: give '
                'trained weights and images with objects, or lower score_thr by --cfg-options'
            )
        for name, lines in (('torch', self.lacking), ('the file', self.added)):
            found += [f'only {name} has {line}' for line in lines[:5]]
            if len(lines) > 5:
                found.append(f'... and {len(lines) - 5} more that only {name} has')
        return found


def torch_detections(
    model: nn.Module, config: Config, detector: Detector, images: Sequence[Path]
) -> list[Detections]:
    """Detect by mmdet's own test pipeline, preprocessor, head and suppression.

    Where the file has one size of input and images keep their ratio, torch's input is padded to
    that size too, because the border of an image is part of what a network sees.

    Args:
        model: in evaluation mode.
        config: its config.
        detector: the file, whose input is described.
        images: files.
    """
    pipeline = Compose(_without_annotations(config))
    return [_one(model, pipeline, detector, file) for file in images]


@torch.no_grad()
def _one(model: Any, pipeline: Compose, detector: Detector, file: Path) -> Detections:
    data = pipeline(dict(img_path=str(file), img_id=0))
    inputs, sample = data['inputs'], data['data_samples']
    batch = model.data_preprocessor(dict(inputs=[inputs], data_samples=[sample]), False)
    pixels, samples = batch['inputs'], batch['data_samples']
    info = detector.info.input
    if info.size is not None and tuple(pixels.shape[-2:]) != info.size:
        pixels, samples = _padded(pixels, samples, detector, file)
    found = model.predict(pixels, samples, rescale=True)[0].pred_instances
    return Detections(
        found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy(), detector.classes
    )


def _padded(
    pixels: torch.Tensor, samples: list[DetDataSample], detector: Detector, file: Path
) -> tuple[torch.Tensor, list[DetDataSample]]:
    """Pad an input to the file's size; where it does not fit, resize as the file does."""
    info, sample = detector.info.input, samples[0]
    assert info.size is not None
    height, width = sample.img_shape[:2]
    if height > info.size[0] or width > info.size[1]:
        prepared = prepare(read_image(file), info)
        whole = torch.from_numpy(prepared.pixels)[None]
        sample.set_metainfo(dict(img_shape=prepared.size, scale_factor=prepared.factors))
    else:
        whole = pixels.new_full((1, 3, *info.size), info.pad_value)
        whole[..., :height, :width] = pixels[..., :height, :width]
    sample.set_metainfo(dict(batch_input_shape=info.size, pad_shape=info.size))
    return whole, samples


def _without_annotations(config: Config) -> list[Any]:
    """Return the test pipeline for an image without annotations."""
    found = []
    for transform in pipeline_of(config):
        kind = str(transform['type']).rpartition('.')[2]
        if kind == 'PackDetInputs':
            keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
            transform = {**transform, 'meta_keys': keys}
        if kind != 'LoadAnnotations':
            found.append(transform)
    return found


def compare(expected: Sequence[Detections], found: Sequence[Detections], limit: int) -> Difference:
    """Compare detections of two sides, image by image.

    A detection of one side belongs to that of the other with the same label whose box is nearest,
    among those whose score is equal within the tolerance.

    Args:
        expected: of torch, one per image.
        found: of the file.
        limit: most detections of an image, at which the last are a choice; 0 for none.
    """
    box = score = 0.0
    lacking: list[str] = []
    added: list[str] = []
    ties = compared = 0
    for place, (one, other) in enumerate(zip(expected, found, strict=True)):
        pairs, alone, extra = _matched(one, other)
        compared += len(pairs)
        for i, j in pairs:
            box = max(box, float(np.abs(one.boxes[i] - other.boxes[j]).max()))
            score = max(score, abs(float(one.scores[i]) - float(other.scores[j])))
        left = [i for i in alone if not _is_tie(one, i, limit)]
        right = [j for j in extra if not _is_tie(other, j, limit)]
        ties += len(alone) + len(extra) - len(left) - len(right)
        lacking += [f'image {place}: {_text(one, i)}' for i in left]
        added += [f'image {place}: {_text(other, j)}' for j in right]
    return Difference(
        images=len(expected),
        detections=sum(map(len, expected)),
        compared=compared,
        box=box,
        score=score,
        lacking=tuple(lacking),
        added=tuple(added),
        ties=ties,
    )


def _matched(
    one: Detections, other: Detections
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Return pairs of indices, and the indices of each side that have no partner."""
    pairs, alone = [], []
    free = np.ones(len(other), bool)
    for i in range(len(one)):
        apart = np.abs(other.scores - one.scores[i])
        fits = free & (other.labels == one.labels[i]) & (apart <= 10 * SCORE_TOLERANCE)
        if not fits.any():
            alone.append(i)
            continue
        distance = np.abs(other.boxes - one.boxes[i]).max(1)
        j = int(np.where(fits, distance, np.inf).argmin())
        if distance[j] > 1:  # another object
            alone.append(i)
            continue
        free[j] = False
        pairs.append((i, j))
    return pairs, alone, [int(j) for j in np.flatnonzero(free)]


def _is_tie(side: Detections, index: int, limit: int) -> bool:
    """Return whether a detection has the score of the last that an image may have."""
    full = 0 < limit <= len(side)
    return full and abs(float(side.scores[index]) - float(side.scores.min())) <= SCORE_TOLERANCE


def _text(side: Detections, index: int) -> str:
    box = ', '.join(f'{value:.1f}' for value in side.boxes[index])
    return f'{side.classes[side.labels[index]]} {side.scores[index]:.5f} at {box}'
