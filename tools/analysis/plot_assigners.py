"""Draw what each assigner of ours makes of one and the same scene.

    python tools/analysis/plot_assigners.py --out docs/images/assigners

A drawn scene of shapes, priors as the assigner's usual head has them, and predictions of a network
half trained: each prior's box lies halfway between one about itself and the nearest object, and
its score for the right class is higher the nearer it is. A PNG an assigner, and counts.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mmdet_ext import registry
from mmdet_ext.catalog.cases import ASSIGNERS, AssignerCase
from mmdet_ext.catalog.scenes import pyramid_points, yolo_anchors
from mmdet_ext.catalog.synthetic import pyramid_anchors
from mmdet_ext.data.synthetic.shape_scenes import draw_scene, render
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.boxes.overlap import box_centers, box_iou
from mmdet_ext.plots.assignments import LevelAssignment, PictureAssignment, draw_assignments

WIDTH, HEIGHT = 320, 240
CLASSES = 3


def main(argv: list[str] | None = None) -> int:
    """Draw all and print their names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='folder')
    parser.add_argument('--seed', type=int, default=3)
    args = parser.parse_args(argv)
    image, boxes, labels = scene(args.seed)
    drawn: dict[str, PictureAssignment] = {}
    for case in ASSIGNERS:
        if case.name not in drawn:  # the first row of each shows it as it is usually set
            drawn[case.name] = assigned(case, boxes, labels)
            path = args.out / f'{file_name(case.name)}.png'
            draw_assignments(image, [drawn[case.name]], path)
            print(path)
    return 0


def file_name(assigner: str) -> str:
    """``MaxIoUAssigner`` as ``max_iou``, as its module is called."""
    words = {
        'ATSS': 'atss',
        'MaxIoU': 'max_iou',
        'SimOTA': 'simota',
        'FCOS': 'fcos',
        'RFLA': 'rfla',
        'DynamicSoftLabel': 'dynamic_soft_label',
        'TaskAligned': 'task_aligned',
        'OneToOneTaskAligned': 'one_to_one_task_aligned',
        'CenterNet': 'centernet',
    }
    stem = assigner.removesuffix('Assigner')
    return words.get(stem, stem.lower())


def scene(seed: int) -> tuple[np.ndarray, Tensor, Tensor]:
    """A picture (H, W, 3), its boxes (G, 4), px, and labels (G,)."""
    rng = np.random.default_rng(seed)
    shapes = draw_scene(rng, WIDTH, HEIGHT)
    # Without the noise of the background, which makes large files.
    image = cv2.medianBlur(render(rng, shapes, WIDTH, HEIGHT), 7) // 64 * 64 + 32
    image = image[..., ::-1]
    boxes = torch.tensor([shape.box(WIDTH, HEIGHT) for shape in shapes], dtype=torch.float32)
    names = sorted({shape.name for shape in shapes})
    labels = torch.tensor([names.index(shape.name) for shape in shapes])
    return np.ascontiguousarray(image), boxes, labels


def assigned(case: AssignerCase, boxes: Tensor, labels: Tensor) -> PictureAssignment:
    """One assigner's way with the scene."""
    priors, sizes = {
        'anchors': lambda: pyramid_anchors(WIDTH, HEIGHT, scale=4.0),
        'points': lambda: pyramid_points(WIDTH, HEIGHT),
        'heatmap': lambda: pyramid_points(WIDTH, HEIGHT, strides=(4,)),
        'cells': lambda: yolo_anchors(WIDTH, HEIGHT),
    }[case.priors]()
    geometry = BatchGeometry.from_lists(priors, sizes, [boxes], [labels])
    centers = priors[:, :2] if case.priors in ('points', 'heatmap') else box_centers(priors)
    registry.TASK_UTILS.import_from_location()
    assigner = registry.TASK_UTILS.get(case.name)(**case.options)
    found = None
    if case.predicts:
        scores, predictions = predicted(centers, priors, boxes, labels)
        if case.name == 'DynamicSoftLabelAssigner':
            scores = scores.logit()  # what RTMDet's head gives it
        found = Predictions(scores[None], predictions[None])
    (index,) = assigner.match(geometry, found).gt_index
    levels = zip(centers.split(sizes), index.split(sizes), strict=True)
    return PictureAssignment(
        title=case.name,
        boxes=boxes.numpy(),
        levels=tuple(LevelAssignment(c.numpy(), i.numpy()) for c, i in levels),
    )


def predicted(
    centers: Tensor, priors: Tensor, boxes: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """What a half-trained network says at each prior: probabilities (P, C) and boxes (P, 4)."""
    points = bool((priors[:, 2] == priors[:, 3]).all())
    side = 4 * priors[:, 2:] if points else priors[:, 2:] - priors[:, :2]
    own = torch.cat([centers - side / 2, centers + side / 2], 1)
    gap = torch.cat([centers[:, None] - boxes[:, :2], boxes[:, 2:] - centers[:, None]], 2).amin(2)
    nearest = gap.argmax(1)
    found = torch.lerp(own, boxes[nearest], 0.5)
    fit = box_iou(found, boxes[nearest])
    scores = torch.full((len(priors), CLASSES), 0.05)
    scores[torch.arange(len(priors)), labels[nearest]] = 0.05 + 0.9 * fit
    return scores, found


if __name__ == '__main__':
    sys.exit(main())
