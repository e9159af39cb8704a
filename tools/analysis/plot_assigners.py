"""Draw the assignments of one scene by each assigner of ours.

    python tools/analysis/plot_assigners.py --out docs/images/assigners

The scene is a drawn image of shapes. The priors are those of the assigner's usual head. The
predictions are those of a half-trained network: the box of each prior lies halfway between one
around itself and the nearest object, and its score for the right class grows with their IoU.
Writes a PNG per assigner.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.data.synthetic.shapes import draw_scene, render
from mmdet_ext.plots.assignments import draw_assignments
from mmdet_ext.studies.assigned_scene import assign_scene

WIDTH, HEIGHT = 320, 240
CLASSES = 3


def main(argv: list[str] | None = None) -> int:
    """Draw all figures and print their names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='folder')
    parser.add_argument('--seed', type=int, default=3)
    args = parser.parse_args(argv)
    image, boxes, labels = scene(args.seed)
    drawn: set[str] = set()
    for case in cases_of('assigner'):
        if case.name in drawn:  # the first case of an assigner has its usual options
            continue
        drawn.add(case.name)
        row = assign_scene(case, boxes, labels, width=WIDTH, height=HEIGHT, num_classes=CLASSES)
        path = args.out / f'{file_name(case.name)}.png'
        draw_assignments(image, [row], path)
        print(path)
    return 0


def file_name(assigner: str) -> str:
    """Turn the name of an assigner into words: ``max_iou`` for ``MaxIoUAssigner``.

    A word begins with a capital and a small letter behind a small letter. "Net" belongs to the
    word before it.
    """
    stem = assigner.removesuffix('Assigner')
    return re.sub(r'(?<=[a-z])(?=[A-Z][a-z])(?!Net)', '_', stem).lower()


def scene(seed: int) -> tuple[np.ndarray, Tensor, Tensor]:
    """Draw an image (H, W, 3), and return it with its boxes (G, 4), px, and labels (G,)."""
    rng = np.random.default_rng(seed)
    shapes = draw_scene(rng, WIDTH, HEIGHT)
    # Without the noise of the background, which makes large files.
    image = cv2.medianBlur(render(rng, shapes, WIDTH, HEIGHT), 7) // 64 * 64 + 32
    boxes = torch.tensor([shape.box(WIDTH, HEIGHT) for shape in shapes], dtype=torch.float32)
    names = sorted({shape.name for shape in shapes})
    labels = torch.tensor([names.index(shape.name) for shape in shapes])
    return np.ascontiguousarray(image[..., ::-1]), boxes, labels


if __name__ == '__main__':
    sys.exit(main())
