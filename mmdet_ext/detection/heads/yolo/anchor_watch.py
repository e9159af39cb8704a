"""Report in the log of how many boxes the anchors of a head fit."""

from __future__ import annotations

from collections.abc import Sequence
from logging import INFO, WARNING
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmdet_ext.functional.assignment.geometry import BatchGeometry
from mmdet_ext.functional.numerics.checks import check_whole
from mmdet_ext.functional.yolo.anchors import LEAST_RECALL, AnchorRecall, anchor_recall


class AnchorWatch:
    """Count of the first boxes of a training, as the pipeline gives them, that have an anchor.

    A box that no anchor fits is never learned, and nothing in the losses shows it. After enough
    boxes one line of the log gives the best possible recall, as a warning below 0.98.

    Args:
        anchors: width and height, px, of the anchors of each level.
        assigner: of the head; only rules with a ``ratio_thr`` are watched.
        boxes: number of boxes to look at; 0 for none.

    Raises:
        ValueError: if ``boxes`` is below 0.

    Attributes:
        found: the figures, None until there are enough boxes.
    """

    def __init__(
        self, anchors: Sequence[Sequence[Sequence[float]]], assigner: Any, boxes: int
    ) -> None:
        check_whole('anchor_boxes', boxes, 0)
        self.ratio_thr: float | None = getattr(assigner, 'ratio_thr', None)
        self.anchors = [[float(side) for side in pair] for level in anchors for pair in level]
        self.boxes = boxes
        self.found: AnchorRecall | None = None
        self._seen: list[Tensor] = []

    def see(self, geometry: BatchGeometry) -> None:
        """Look at the ground truth of a batch; boxes without area do not count."""
        if self.ratio_thr is None or self.found is not None or self.boxes == 0:
            return
        boxes = geometry.gt_boxes[geometry.gt_valid].float()
        sides = boxes[:, 2:] - boxes[:, :2]
        self._seen.append(sides[(sides > 0).all(1)].cpu())
        if sum(len(each) for each in self._seen) >= self.boxes:
            sides = torch.cat(self._seen)
            self._seen = []
            self.found = anchor_recall(sides, torch.tensor(self.anchors), self.ratio_thr)
            self._report(len(sides))

    def _report(self, count: int) -> None:
        assert self.found is not None
        recall, per_box = self.found
        text = (
            f'Anchors: {recall:.1%} of the first {count} boxes have one whose sides differ by '
            f'less than {self.ratio_thr:g} times (best possible recall), {per_box:.1f} on average'
        )
        if recall < LEAST_RECALL:
            text += (
                '. The others are never learned. Find anchors of your data with '
                'tools/data/anchors.py, and set bbox_head.anchors'
            )
        print_log(text, 'current', INFO if recall >= LEAST_RECALL else WARNING)
