"""Mixins that compute the targets of a whole batch at once, for mmdet's dense heads.

A dense head of mmdet assigns inside its own code, one image after the other: ``get_targets`` (or
``loss_by_feat``) calls ``_get_targets_single`` for each image. Our assigners match a whole batch
in one call, which is faster. `BatchTargets` joins the two without a change to mmdet's code:

1. The head's entry point, ``get_targets`` or ``loss_by_feat``, is called with the whole batch.
2. `BatchTargets.targets_ready` first computes the targets of all images, by one ``match`` of the
   assigner, and keeps them in a queue, in the order of the images.
3. Then mmdet's own entry point runs. It calls ``_get_targets_single`` once per image.
4. Each of these calls takes the next image's targets from the queue instead of computing them.
5. When the entry point ends, by an error too, the queue is dropped.

Where a batch cannot be matched at once (see `BatchTargets`), there is no queue, and mmdet's own
``_get_targets_single`` answers. The forward pass, the losses and all else are mmdet's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.models.task_modules.samplers import PseudoSampler
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.detection.host import batch_geometry, have_tensors, mask_centers
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.claims import IGNORE
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions, Priors

#: The targets of one image, as mmdet's ``_get_targets_single`` returns them.
ImageTargets = tuple[Any, ...]


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

    def sampled(self) -> list[Sampled]:
        """Return the count of positives per image, as mmdet's ``PseudoSampler`` reports it."""
        return [Sampled(max(count, 1)) for count in self.counts]


class BatchTargets(BaseDenseHead):  # type: ignore[misc]
    """Mixin in front of a head of mmdet that computes the targets of all images at once.

    A head implements `batch_targets`. The module's docstring explains how its result reaches
    mmdet's code. Images are assigned by mmdet's code, one by one, if:

    - the assigner is not one of ours,
    - the sampler is not ``PseudoSampler``, as such a sampler draws from each image,
    - the images do not share their priors, or
    - boxes are not plain tensors.

    Attributes:
        gives_levels: whether mmdet's head gives its assigner ``num_level_priors``.
        gives_points: whether the priors are points (x, y, stride, stride), not anchors.
        uses_mask_centers: whether mmdet's assigner takes the centres of masks where there are any.
    """

    gives_levels: bool = False
    gives_points: bool = False
    uses_mask_centers: bool = False
    _ready: deque[ImageTargets] | None = None

    def batch_targets(self, *args: Any, **kwargs: Any) -> Iterable[ImageTargets] | None:
        """Compute the targets of each image, as mmdet's ``_get_targets_single`` returns them.

        Args:
            *args: arguments of the entry point, which is ``get_targets`` unless the head says
                otherwise.
            **kwargs: keyword arguments of the entry point.

        Returns:
            Iterable | None: one tuple per image; None to let mmdet's code assign.
        """
        raise NotImplementedError

    @contextmanager
    def targets_ready(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Compute the targets of the batch, and hold them for mmdet's calls within the context.

        Args:
            *args: arguments of `batch_targets`.
            **kwargs: keyword arguments of `batch_targets`.
        """
        with torch.no_grad():
            targets = self.batch_targets(*args, **kwargs)
        # A deque raises IndexError when it is empty. An iterator's StopIteration would silently
        # end mmdet's map over the images.
        self._ready = None if targets is None else deque(targets)
        try:
            yield
        finally:
            self._ready = None

    def next_targets(
        self, compute: Callable[..., ImageTargets], *args: Any, **kwargs: Any
    ) -> ImageTargets:
        """Return the next image's targets.

        Args:
            compute: mmdet's computation, which is called where none are ready.
            *args: arguments of ``compute``.
            **kwargs: keyword arguments of ``compute``.
        """
        return compute(*args, **kwargs) if self._ready is None else self._ready.popleft()

    def get_targets(self, *args: Any, **kwargs: Any) -> Any:
        """Run mmdet's ``get_targets`` on targets that were computed at once."""
        with self.targets_ready(*args, **kwargs):
            return super().get_targets(*args, **kwargs)

    def _get_targets_single(self, *args: Any, **kwargs: Any) -> ImageTargets:
        return self.next_targets(super()._get_targets_single, *args, **kwargs)

    def takes_batches(self, assigner: Any) -> bool:
        """Return whether ``assigner`` can match a batch in place of this head's calls per image."""
        return (
            isinstance(assigner, BatchAssigner)
            # An assigner that needs levels is left to mmdet's call, which then reports that this
            # head does not give them.
            and (self.gives_levels or not assigner.needs_levels)
            and type(getattr(self, 'sampler', None)) is PseudoSampler
        )

    def batch_priors(self, levels: Sequence[Tensor]) -> Priors:
        """Return the priors of an image, with the meaning of their numbers.

        Args:
            levels: priors (P_l, 4) per level, as the head's prior generator gives them.
        """
        rows, sizes = torch.cat(list(levels)), tuple(len(level) for level in levels)
        if self.gives_points:
            return Priors(points=rows[:, :2], strides=rows[:, 2:], level_sizes=sizes)
        anchors = tuple(self.prior_generator.num_base_priors)
        return Priors(corners=rows, level_sizes=sizes, anchors_per_cell=anchors)

    def match_anchors(
        self,
        assigner: Any,
        anchor_list: Sequence[Sequence[Tensor]],
        valid_flag_list: Sequence[Sequence[Tensor]],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
        unmap_outputs: bool = True,
        *,
        predictions: Predictions | None = None,
        **own: Any,
    ) -> MatchedBatch | None:
        """Match a batch, given the arguments of mmdet's ``get_targets``.

        Args:
            assigner: an assigner of ours or of mmdet.
            anchor_list: anchors (P_l, 4) per level, per image, px.
            valid_flag_list: flags (P_l,) bool per level, per image; False on padding.
            batch_gt_instances: boxes and labels per image.
            batch_img_metas: meta information per image.
            batch_gt_instances_ignore: ignore regions per image.
            unmap_outputs: False leaves the batch to mmdet's code.
            predictions: predictions, for assigners that use them.
            **own: further arguments that mmdet's head gives its assigner.

        Returns:
            MatchedBatch | None: the matched batch; None where mmdet's code is to assign.

        Raises:
            ValueError: if an image has no valid prior.
        """
        levels = anchor_list[0]
        if not (
            unmap_outputs
            and self.takes_batches(assigner)
            and all(isinstance(level, Tensor) for level in levels)
            and all(_same(other, levels) for other in anchor_list[1:])
            and have_tensors(batch_gt_instances)
        ):
            return None
        flags = torch.stack([torch.cat(list(each)) for each in valid_flag_list])
        priors = self.batch_priors(levels)
        geometry = batch_geometry(
            priors,
            batch_gt_instances,
            batch_gt_instances_ignore,
            prior_valid=_prior_valid(
                priors.rows, flags, batch_img_metas, self.train_cfg['allowed_border']
            ),
            gt_centers=mask_centers(batch_gt_instances) if self.uses_mask_centers else None,
        )
        return MatchedBatch(geometry, assigner.match(geometry, predictions, **own))


class TargetsInLoss(BatchTargets):
    """Mixin for heads of mmdet whose entry point is ``loss_by_feat``: YOLOv3 and YOLOX."""

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Run mmdet's ``loss_by_feat`` on targets that were computed at once."""
        losses: dict[str, Tensor]
        with self.targets_ready(*args, **kwargs):
            losses = super().loss_by_feat(*args, **kwargs)
        return losses

    def get_targets(self, *args: Any, **kwargs: Any) -> Any:
        """Run mmdet's ``get_targets``; `loss_by_feat` has computed what it asks for."""
        return super(BatchTargets, self).get_targets(*args, **kwargs)


class AnchorTargets(BatchTargets):
    """Mixin for heads that learn boxes at anchors and assign without predictions.

    Attributes:
        returns_anchors: whether the targets of an image begin with its anchors.
    """

    returns_anchors: bool = True

    def batch_targets(self, *args: Any, **kwargs: Any) -> Iterable[ImageTargets] | None:
        """Compute ``[anchors,] labels, their weights, boxes, their weights, None, None, Sampled``.

        mmdet has the indices of positives and negatives in place of None, and reads neither.

        Args:
            *args: arguments of mmdet's ``get_targets``.
            **kwargs: keyword arguments of mmdet's ``get_targets``.
        """
        matched = self.match_anchors(self.assigner, *args, **kwargs)
        if matched is None:
            return None
        boxes = self.box_targets(matched)
        return per_image(
            *([matched.priors_per_image()] if self.returns_anchors else []),
            *matched.label_targets(self.num_classes, self.train_cfg['pos_weight']),
            matched.spread(boxes),
            matched.spread(torch.ones_like(boxes)),
            None,
            None,
            matched.sampled(),
        )

    def box_targets(self, matched: MatchedBatch) -> Tensor:
        """Return the regression targets (N, 4) of the positives, encoded or in px."""
        if self.reg_decoded_bbox:
            return matched.boxes
        encoded: Tensor = self.bbox_coder.encode(matched.priors, matched.boxes)
        return encoded


def per_image(*parts: Tensor | Sequence[Any] | None) -> Iterator[ImageTargets]:
    """Turn targets of a batch into one tuple per image.

    Args:
        *parts: tensors or sequences with one row per image; None gives None for each image.
    """
    count = max(len(part) for part in parts if part is not None)
    return zip(*([None] * count if part is None else part for part in parts), strict=True)


def _prior_valid(
    priors: Tensor, flags: Tensor, img_metas: Sequence[dict[str, Any]], allowed_border: int
) -> Tensor | None:
    """Compute which priors each image has, (B, P) bool; None where each image has all."""
    shapes = [meta['img_shape'][:2] for meta in img_metas]
    height, width = priors.new_tensor(shapes).T[..., None]  # (B, 1) each
    valid = anchor_inside_flags(priors, flags, (height, width), allowed_border)
    if valid.all():
        return None
    if not valid.any(1).all():
        raise ValueError(
            'There is no valid anchor inside the image boundary, for images of img_shape '
            f'{[shape for shape, some in zip(shapes, valid.any(1), strict=True) if not some]}. '
            'Check the image size and anchor sizes, or set ``allowed_border`` to -1 to skip the '
            'condition'
        )
    return valid


def _same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Return whether two images have the same priors; mmdet mostly gives them the same object."""
    return one is other or (
        len(one) == len(other)
        and all(a is b or torch.equal(a, b) for a, b in zip(one, other, strict=True))
    )
