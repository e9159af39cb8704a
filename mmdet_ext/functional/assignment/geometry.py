"""Input of every assigner: priors, ground truth and predictions of a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import ignored_priors_mask
from mmdet_ext.functional.assignment.grids import Grid, find_grid
from mmdet_ext.functional.boxes.overlap import box_centers
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['BatchGeometry', 'Predictions', 'Priors']

#: Least distance of a probability from 0 and 1 where it is turned into a logit.
LEAST_PROBABILITY = 2.0**-24


@dataclass(frozen=True, eq=False)
class Priors:
    """Places on the image that may learn a box, shared by all images of a batch.

    They are either anchors, given by ``corners``, or ``points`` with their ``strides``.

    Attributes:
        corners: (P, 4) corners of anchors, px; None for points.
        points: (P, 2) x and y, px; None for anchors.
        strides: (P, 2) distance between neighbouring points of the level, along x and along y, px;
            given together with ``points``.
        level_sizes: number of priors of each pyramid level, summing to P; () where the levels are
            unknown.
        anchors_per_cell: number of anchors per cell, for each level; None where the priors do not
            form cells, or it is unknown.

    Raises:
        ValueError: if not exactly one of ``corners`` and ``points`` is given, or a shape does not
            fit.
    """

    corners: Tensor | None = None
    points: Tensor | None = None
    strides: Tensor | None = None
    level_sizes: tuple[int, ...] = ()
    anchors_per_cell: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.corners is None) == (self.points is None):
            raise ValueError('priors must have either corners or points, not both and not neither')
        if (self.points is None) != (self.strides is None):
            raise ValueError('points and strides must be given together')
        total = sum(self.level_sizes) if self.level_sizes else len(self)
        for name, columns in (('corners', 4), ('points', 2), ('strides', 2)):
            table = getattr(self, name)
            if table is not None:
                _check_shape(name, table, (total, columns))

    def __len__(self) -> int:
        table = self.points if self.corners is None else self.corners
        assert table is not None
        return len(table)

    @cached_property
    def rows(self) -> Tensor:
        """(P, 4) corners, or x, y and both strides: the layout of mmdet's prior generators."""
        if self.corners is not None:
            return self.corners
        return torch.cat(self.as_points(), 1)

    @cached_property
    def centers(self) -> Tensor:
        """(P, 2) points, or the centres of the anchors, px, of at least float32."""
        return self.centers_of(slice(None))

    def centers_of(self, index: Tensor | slice) -> Tensor:
        """Return the centres (..., 2) of some priors, px, of at least float32.

        Args:
            index: (...) int64, or a slice.
        """
        if self.corners is None:
            return promote_half(self.as_points()[0][index])[0]
        return box_centers(promote_half(self.corners[index])[0])

    @cached_property
    def grids(self) -> tuple[Grid | None, ...]:
        """Axes of each level whose centres form a grid; None for a level whose centres do not."""
        return tuple(find_grid(level) for level in self.centers.split(self.sizes))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of priors of each level; a single level where the levels are unknown."""
        return self.level_sizes or (len(self),)

    def as_corners(self) -> Tensor:
        """Return the (P, 4) corners.

        Raises:
            ValueError: if the priors are points.
        """
        if self.corners is None:
            raise ValueError(
                'priors must be anchors (Priors.corners), got points with strides. Use this rule '
                'in a head with anchors (RetinaHead, ATSSHead, ...)'
            )
        return self.corners

    def as_points(self) -> tuple[Tensor, Tensor]:
        """Return the points (P, 2) and their strides (P, 2).

        Raises:
            ValueError: if the priors are anchors.
        """
        if self.points is None or self.strides is None:
            raise ValueError(
                'priors must be points with strides (Priors.points, Priors.strides), got corners '
                'of anchors. Use this rule in a head with points (FCOSHead, YOLOXHead, ...)'
            )
        return self.points, self.strides

    def level_index(self, count: int) -> Tensor:
        """Return the pyramid level of each prior.

        Where ``level_sizes`` is unknown, each distinct stride is a level, the smallest first.

        Args:
            count: number of levels that the rule expects.

        Returns:
            Tensor: (P,) int64, in [0, count).

        Raises:
            ValueError: if there are more or fewer levels than ``count``.

        >>> strides = torch.tensor([[8., 8.], [16., 16.]])
        >>> Priors(points=strides / 2, strides=strides).level_index(2)
        tensor([0, 1])
        """
        sizes = self.sizes if count == 1 else self.level_sizes
        if not sizes:
            return self._level_by_stride(count)
        if len(sizes) != count:
            raise ValueError(
                f'{count} levels are expected, but level_sizes has {len(sizes)}: '
                f'{list(sizes)}. Give one entry of the option for each level of the head'
            )
        device = self.centers.device
        lengths = torch.tensor(list(sizes), device=device)
        return torch.arange(count, device=device).repeat_interleave(lengths, output_size=len(self))

    def _level_by_stride(self, count: int) -> Tensor:
        level: Tensor
        strides, level = self.as_points()[1][:, 0].unique(return_inverse=True)
        if len(self) and len(strides) != count:
            raise ValueError(
                f'{count} levels are expected, but the points (x, y, stride, stride) have '
                f'{len(strides)} distinct strides: {strides.tolist()[:8]}. Give one entry of the '
                'option for each level of the head, or give num_level_priors'
            )
        return level


@dataclass(frozen=True, eq=False)
class BatchGeometry:
    """Priors of a batch, and the ground truth of its images, padded to one number of boxes.

    Only the masks distinguish padding: what the padded places hold never matters.
    `check_ground_truth`, which the assigners call, checks all other places.

    Attributes:
        priors: P priors, shared by the images.
        gt_boxes: (B, G, 4) corners, px.
        gt_labels: (B, G) int64.
        gt_valid: (B, G) bool, False on padding.
        ignore_boxes: (B, I, 4) corners of ignore regions, px; None for no regions.
        ignore_valid: (B, I) bool, False on padding; given together with ``ignore_boxes``.
        prior_valid: (B, P) bool, False for priors that an image does not have, such as those
            beyond its border in a batch of mixed sizes: they get no box and are ignored. None
            where each image has all priors.
        gt_centers: (B, G, 2) centres of the ground truth, px, where these are not the middles of
            the boxes but the centres of masks; None for the middles.

    Raises:
        ValueError: naming the attribute whose shape or type does not fit.
    """

    priors: Priors
    gt_boxes: Tensor
    gt_labels: Tensor
    gt_valid: Tensor
    ignore_boxes: Tensor | None = None
    ignore_valid: Tensor | None = None
    prior_valid: Tensor | None = None
    gt_centers: Tensor | None = None

    def __post_init__(self) -> None:
        images, boxes = self.gt_valid.shape
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
            _check_shape('prior_valid', self.prior_valid, (images, len(self.priors)))
        if self.gt_centers is not None:
            _check_shape('gt_centers', self.gt_centers, (images, boxes, 2))

    @classmethod
    def from_lists(
        cls,
        priors: Priors,
        gt_boxes: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        ignore_boxes: Sequence[Tensor] | None = None,
        prior_valid: Tensor | None = None,
        gt_centers: Sequence[Tensor] | None = None,
    ) -> BatchGeometry:
        """Pad the tensors of the images to one number of boxes.

        Args:
            priors: shared by the images.
            gt_boxes: B tensors (G_i, 4).
            gt_labels: B tensors (G_i,). An empty one may have any shape, as mmdet accepts it.
            ignore_boxes: B tensors (I_i, 4); None for no regions.
            prior_valid: (B, P) bool.
            gt_centers: B tensors (G_i, 2); None for the middles of the boxes.
        """
        padded_boxes, gt_valid = _pad(gt_boxes)
        padded_labels, _ = _pad([row if row.numel() else row.flatten() for row in gt_labels])
        ignored, ignore_valid = (None, None) if ignore_boxes is None else _pad(ignore_boxes)
        return cls(
            priors=priors,
            gt_boxes=padded_boxes,
            gt_labels=padded_labels.long(),
            gt_valid=gt_valid,
            ignore_boxes=ignored,
            ignore_valid=ignore_valid,
            prior_valid=prior_valid,
            gt_centers=None if gt_centers is None else _pad(gt_centers)[0],
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of images B, of ground-truth boxes per image G, and of priors P."""
        images, boxes = self.gt_valid.shape
        return images, boxes, len(self.priors)

    def ignored_priors(self, threshold: float, of_priors: bool = True) -> Tensor | None:
        """Find the anchors in ignore regions, as `ignored_priors_mask` does.

        Args:
            threshold: share above which an anchor is ignored; 0 and below ignores none.
            of_priors: True for the share of the anchor's area, False for that of the region.

        Returns:
            Tensor | None: (B, P) bool; None where nothing can be ignored.
        """
        boxes, valid = self.ignore_boxes, self.ignore_valid
        if threshold <= 0 or boxes is None or valid is None or boxes.numel() == 0:
            return None
        return ignored_priors_mask(self.priors.as_corners(), boxes, valid, threshold, of_priors)

    def unused_priors(self, ignore_mask: Tensor | None = None) -> Tensor | None:
        """Join the priors that an image does not have with those that are ignored.

        Args:
            ignore_mask: (B, P) bool; None for none.

        Returns:
            Tensor | None: (B, P) bool; None where there is no such prior.
        """
        if self.prior_valid is None:
            return ignore_mask
        return ~self.prior_valid if ignore_mask is None else ignore_mask | ~self.prior_valid

    def check_ground_truth(self, num_classes: int | None = None) -> None:
        """Check all boxes and labels except padding, at the cost of one wait for the device.

        A box with a coordinate that is not finite could take the priors of other boxes of its
        image. A label out of range would train another class.

        Args:
            num_classes: number of classes of the head's scores; None where the rule does not use
                labels.

        Raises:
            ValueError: if a coordinate is NaN or infinite, or a label not in [0, num_classes).
        """
        bad = ~self.gt_boxes.isfinite().all(-1)
        if num_classes is not None:
            bad = bad | (self.gt_labels < 0) | (self.gt_labels >= num_classes)
        bad = bad & self.gt_valid
        if bool(bad.any()):
            raise ValueError(self._ground_truth_problem(bad, num_classes))

    def _ground_truth_problem(self, bad: Tensor, num_classes: int | None) -> str:
        infinite = bad & ~self.gt_boxes.isfinite().all(-1)
        count = int(infinite.sum())
        image, box = (infinite if count else bad).nonzero()[0].tolist()
        place = f'box {box} of image {image} of the batch'
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


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """Detached predictions of the head for each prior of each image.

    Attributes:
        boxes: (B, P, 4) decoded corners, px; None where the rule needs no boxes.
        logits: (B, P, C) class scores before the sigmoid.
        probabilities: (B, P, C) class scores in [0, 1]; at most one of this and ``logits`` is
            given.

    Raises:
        ValueError: if both ``logits`` and ``probabilities`` are given.
    """

    boxes: Tensor | None = None
    logits: Tensor | None = None
    probabilities: Tensor | None = None

    def __post_init__(self) -> None:
        if self.logits is not None and self.probabilities is not None:
            raise ValueError('predictions must have logits or probabilities, got both')

    @property
    def scores(self) -> Tensor | None:
        """(B, P, C) logits or probabilities, whichever is given; None without scores."""
        return self.probabilities if self.logits is None else self.logits

    @property
    def num_classes(self) -> int | None:
        """Number C of classes of the scores; None without scores."""
        return None if self.scores is None else self.scores.shape[-1]

    def as_logits(self) -> Tensor:
        """Return the logits (B, P, C), from the probabilities where these are given."""
        if self.logits is not None:
            return self.logits
        (given,) = promote_half(_given('logits or probabilities', self.probabilities))
        # Finite for 0 and 1 too, to which a sigmoid rounds large logits: an infinite logit times
        # an overlap of 0 is NaN.
        return given.logit(eps=LEAST_PROBABILITY)

    def as_probabilities(self) -> Tensor:
        """Return the probabilities (B, P, C), from the logits where these are given."""
        if self.probabilities is not None:
            return self.probabilities
        return _given('logits or probabilities', self.logits).sigmoid()

    def as_boxes(self) -> Tensor:
        """Return the boxes (B, P, 4).

        Raises:
            ValueError: if there are none.
        """
        return _given('boxes', self.boxes)


def _given(name: str, tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError(f'predictions must have {name}, got none')
    return tensor


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f'{name} must have shape {shape}, got {tuple(tensor.shape)}')


def _pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack tensors (N_i, ...) to (B, max N_i, ...), with a mask that is False on padding."""
    if len(rows) == 1:
        return rows[0][None], rows[0].new_ones((1, rows[0].shape[0]), dtype=torch.bool)
    lengths = torch.tensor([row.shape[0] for row in rows], device=rows[0].device)
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
