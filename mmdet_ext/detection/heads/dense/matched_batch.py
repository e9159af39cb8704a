"""A batch after assignment, and the targets that follow from it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mmdet.models.task_modules.assigners import AssignResult
from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.claims import IGNORE
from mmdet_ext.functional.assignment.geometry import BatchGeometry
from mmdet_ext.functional.boxes.overlap import box_iou
from mmdet_ext.functional.numerics.precision import promote_half


class Sampled(NamedTuple):
    """Stand-in for a sampling result of mmdet, with the one field that its heads read.

    Attributes:
        avg_factor: number of positives of the image, at least 1.
    """

    avg_factor: int


@dataclass(frozen=True, eq=False)
class MatchedBatch:
    """A batch after assignment, and the targets that follow from it.

    Below, N is the number of positives of the batch: the pairs of an image and a prior to which a
    ground truth is assigned.

    Attributes:
        geometry: priors and ground truth of the batch.
        assignment: the ground truth of each prior of each image.
    """

    geometry: BatchGeometry
    assignment: Assignment

    @cached_property
    def place(self) -> tuple[Tensor, Tensor]:
        """Indices of image (N,) and prior (N,) of each positive, ascending by image, then prior."""
        image, prior = self.assignment.positive_mask.nonzero(as_tuple=True)
        return image, prior

    @cached_property
    def box_index(self) -> Tensor:
        """Index (N,) of each positive's ground truth among those of its image."""
        return self.assignment.gt_index[self.place]

    @cached_property
    def counts(self) -> list[int]:
        """Number of positives per image."""
        return self.assignment.positive_mask.sum(1).tolist()

    @property
    def priors(self) -> Tensor:
        """Priors (N, 4) of the positives."""
        return self.geometry.priors.rows[self.place[1]]

    @property
    def boxes(self) -> Tensor:
        """Ground-truth boxes (N, 4) of the positives, px, in the type of the priors."""
        boxes = self.geometry.gt_boxes[self.place[0], self.box_index]
        return boxes.to(self.geometry.priors.rows.dtype)

    @property
    def labels(self) -> Tensor:
        """Ground-truth labels (N,) of the positives."""
        return self.geometry.gt_labels[self.place[0], self.box_index]

    def spread(self, values: Tensor, fill: float = 0) -> Tensor:
        """Write one value per positive into a table of all priors.

        Args:
            values: (N, ...), one per positive.
            fill: value at all other priors.

        Returns:
            Tensor: (B, P, ...).
        """
        table = values.new_full((*self.assignment.gt_index.shape, *values.shape[1:]), fill)
        table[self.place] = values
        return table

    def label_targets(self, num_classes: int, positive_weight: float) -> tuple[Tensor, Tensor]:
        """Compute the label of each prior and its weight in the loss.

        Args:
            num_classes: number of classes without the background, and label of the background.
            positive_weight: weight of positives; 0 and below stands for 1. Background has
                weight 1, ignored priors have weight 0.

        Returns:
            tuple: labels (B, P) in [0, num_classes], and weights (B, P).
        """
        weights = (self.assignment.gt_index != IGNORE).float()
        if positive_weight > 0:
            weights[self.place] = positive_weight
        return self.spread(self.labels, num_classes), weights

    def priors_per_image(self) -> Tensor:
        """Return the priors (B, P, 4), with zeros for those that an image does not have."""
        valid = self.geometry.prior_valid
        priors = self.geometry.priors.rows.expand(len(self.counts), -1, -1)
        return priors if valid is None else priors.where(valid[..., None], 0)

    def overlap_of(self, boxes: Tensor) -> Tensor:
        """Compute the IoU (N,) of the boxes predicted for the positives with their ground truth.

        Args:
            boxes: predicted boxes (B, P, 4), corners, px.
        """
        predicted, own = promote_half(boxes[self.place], self.boxes)
        return box_iou(predicted, own)

    def result(self, assigner: BatchAssigner, image: int) -> AssignResult:
        """Return the assignment of one image as mmdet has it, for the priors that the image has.

        Args:
            assigner: the assigner that matched the batch.
            image: index of the image.
        """
        found, valid = self.assignment, self.geometry.prior_valid
        kept = slice(None) if valid is None else valid[image]
        one = Assignment(
            found.gt_index[image][kept][None],
            found.overlap[image][kept][None],
            None if found.metric is None else found.metric[image][kept][None],
        )
        real = self.geometry.gt_valid[image]
        boxes, labels = self.geometry.gt_boxes[image], self.geometry.gt_labels[image]
        return assigner.result(one, boxes[real][None], labels[real][None])

    def sampled(self) -> list[Sampled]:
        """Return the count of positives per image, as mmdet's ``PseudoSampler`` reports it."""
        return [Sampled(max(count, 1)) for count in self.counts]


class MatchedAssigner:
    """Stand-in for an assigner of ours where a sampler draws from each image of a matched batch.

    mmdet's code asks it for one image after the other, and draws from what it gets.

    Args:
        assigner: the assigner that matched the batch.
        matched: the batch.
    """

    def __init__(self, assigner: BatchAssigner, matched: MatchedBatch) -> None:
        images = range(len(matched.assignment.gt_index))
        self._results = deque(matched.result(assigner, image) for image in images)

    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """Return the assignment of the next image."""
        return self._results.popleft()
