"""Priors and boxes of a batch, and what every assigner derives from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.grids import Grid, find_grid
from mmdet_ext.functional.boxes.overlap import box_centers


@dataclass(frozen=True, eq=False)
class BatchGeometry:
    """Priors, shared by the images, and the images' boxes, padded to one number.

    Padding is told by the masks alone; what stands in padded places never matters. What stands in
    the others is looked at by `check_ground_truth`, which the assigners call.

    Attributes:
        priors: (P, 4), px: corners of anchors, or points (x, y, stride, stride), as the assigner
            expects them.
        level_sizes: priors of each pyramid level, summing to P.
        gt_boxes: (B, G, 4) corners, px.
        gt_labels: (B, G) int64.
        gt_valid: (B, G) bool, False on padding.
        ignore_boxes: (B, I, 4) corners of regions to ignore, px; None for none.
        ignore_valid: (B, I) bool; goes with ``ignore_boxes``.
        strides: (P,) px between neighbouring priors of the same level; None where not needed.
        prior_valid: (B, P) bool, False for priors that an image does not have, as those beyond its
            border in a batch of mixed sizes: they are no box's and count as "ignore". None is all.
        gt_centers: (B, G, 2), px, where they are not the middles of the boxes, but of masks.

    Raises:
        ValueError: naming the attribute whose shape or type does not fit.
    """

    priors: Tensor
    level_sizes: tuple[int, ...]
    gt_boxes: Tensor
    gt_labels: Tensor
    gt_valid: Tensor
    ignore_boxes: Tensor | None = None
    ignore_valid: Tensor | None = None
    strides: Tensor | None = None
    prior_valid: Tensor | None = None
    gt_centers: Tensor | None = None

    def __post_init__(self) -> None:
        images, boxes = self.gt_valid.shape
        _check_shape('priors', self.priors, (sum(self.level_sizes), 4))
        _check_shape('gt_boxes', self.gt_boxes, (images, boxes, 4))
        _check_shape('gt_labels', self.gt_labels, (images, boxes))
        for name in ('gt_valid', 'ignore_valid', 'prior_valid'):
            mask = getattr(self, name)
            if mask is not None and mask.dtype != torch.bool:
                raise ValueError(f'{name} must be a bool tensor, got {mask.dtype}')
        if self.gt_labels.dtype != torch.int64:
            raise ValueError(f'gt_labels must be int64, got {self.gt_labels.dtype}')
        if (self.ignore_boxes is None) != (self.ignore_valid is None):
            raise ValueError('ignore_boxes and ignore_valid must be given together')
        if self.ignore_boxes is not None and self.ignore_valid is not None:
            _check_shape('ignore_boxes', self.ignore_boxes, (*self.ignore_valid.shape, 4))
            _check_shape('ignore_valid', self.ignore_valid, (images, self.ignore_boxes.shape[1]))
        if self.prior_valid is not None:
            _check_shape('prior_valid', self.prior_valid, (images, self.priors.shape[0]))
        if self.gt_centers is not None:
            _check_shape('gt_centers', self.gt_centers, (images, boxes, 2))
        if self.strides is not None:
            _check_shape('strides', self.strides, (self.priors.shape[0],))

    @classmethod
    def from_lists(
        cls,
        priors: Tensor,
        level_sizes: Sequence[int],
        gt_boxes: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        ignore_boxes: Sequence[Tensor] | None = None,
        strides: Tensor | None = None,
        prior_valid: Tensor | None = None,
        gt_centers: Sequence[Tensor] | None = None,
    ) -> BatchGeometry:
        """Pad the images' own tensors to one number of boxes.

        Args:
            priors: (P, 4).
            level_sizes: priors of each level.
            gt_boxes: B tensors (G_i, 4).
            gt_labels: B tensors (G_i,); of any shape where empty, as stock takes them.
            ignore_boxes: B tensors (I_i, 4), None for no regions to ignore.
            strides: (P,).
            prior_valid: (B, P) bool.
            gt_centers: B tensors (G_i, 2), None for the middles of the boxes.
        """
        padded_boxes, gt_valid = _pad(gt_boxes)
        padded_labels, _ = _pad([row if row.numel() else row.flatten() for row in gt_labels])
        ignored, ignore_valid = (None, None) if ignore_boxes is None else _pad(ignore_boxes)
        return cls(
            priors=priors,
            level_sizes=tuple(int(size) for size in level_sizes),
            gt_boxes=padded_boxes,
            gt_labels=padded_labels.long(),
            gt_valid=gt_valid,
            ignore_boxes=ignored,
            ignore_valid=ignore_valid,
            strides=strides,
            prior_valid=prior_valid,
            gt_centers=None if gt_centers is None else _pad(gt_centers)[0],
        )

    def check_ground_truth(self, num_classes: int | None = None) -> None:
        """Look at the boxes, padding apart, and at their labels, once for all.

        One such box would take part with no place or no class of its own: others of its picture
        could lose their priors, or it would train another class.

        Args:
            num_classes: for how many classes the head gives scores; None where labels do not
                count.

        Raises:
            ValueError: if a coordinate is NaN or infinite, or a label not in [0, num_classes).
        """
        bad = ~self.gt_boxes.isfinite().all(-1)
        if num_classes is not None:
            bad = bad | (self.gt_labels < 0) | (self.gt_labels >= num_classes)
        bad = bad & self.gt_valid
        if bool(bad.any()):  # the one wait for the device
            raise ValueError(self._ground_truth_problem(bad, num_classes))

    def _ground_truth_problem(self, bad: Tensor, num_classes: int | None) -> str:
        infinite = bad & ~self.gt_boxes.isfinite().all(-1)
        count = int(infinite.sum())
        image, box = (infinite if count else bad).nonzero()[0].tolist()
        place = f'box {box} of picture {image} of the batch'
        if count:
            return (
                f'gt_boxes (gt_instances.bboxes) must be finite, got {count} that are not; the '
                f'first is {place}: {self.gt_boxes[image, box].tolist()}. Mend or leave out such '
                'annotations, and look at the transforms of the pipeline'
            )
        return (
            f'gt_labels (gt_instances.labels) must be in [0, {num_classes}), as there are scores '
            f'of {num_classes} classes, got {int(self.gt_labels[image, box])} for {place}. Compare '
            "the head's num_classes with the classes of the data set"
        )

    @cached_property
    def prior_centers(self) -> Tensor:
        """(P, 2) centres of the priors taken as boxes, px."""
        return box_centers(self.priors)

    @cached_property
    def grids(self) -> tuple[Grid | None, ...]:
        """The axes of each level whose centres form a grid, None for one whose do not."""
        return tuple(find_grid(level) for level in self.prior_centers.split(self.level_sizes))


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the head predicts for each prior of each image, detached.

    Attributes:
        scores: (B, P, C) logits or probabilities, as the head's stock assigner gets them.
        boxes: (B, P, 4) decoded corners, px.
    """

    scores: Tensor | None = None
    boxes: Tensor | None = None


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f'{name} must have shape {shape}, got {tuple(tensor.shape)}')


def _pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack tensors (N_i, ...) to (B, max N_i, ...), and tell by a mask what is not padding."""
    if len(rows) == 1:
        return rows[0][None], rows[0].new_ones((1, rows[0].shape[0]), dtype=torch.bool)
    lengths = torch.tensor([row.shape[0] for row in rows], device=rows[0].device)
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
