"""Targets of a whole batch in one computation, handed to stock heads picture by picture.

Stock's dense heads compute targets in ``_get_targets_single``, which they call once a picture
from inside ``get_targets`` (or ``loss_by_feat``). `BatchTargets` makes the targets of all pictures
before that, by one `match` of the assigner, and then answers these calls with what is ready.
Forward, losses and all else are stock's.
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

from mmdet_ext.detection.assigners import BatchAssigner
from mmdet_ext.detection.host import mask_centers
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.claims import IGNORE
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions

#: What stock's ``_get_targets_single`` returns for a picture.
PictureTargets = tuple[Any, ...]


class Sampled(NamedTuple):
    """What stock's heads read of a sampling result.

    Attributes:
        avg_factor: positives of the picture, at least 1.
    """

    avg_factor: int


@dataclass(frozen=True, eq=False)
class MatchedBatch:
    """Priors and boxes that found each other, and targets by them. N priors have a box.

    Attributes:
        geometry: priors and boxes.
        assignment: which box each prior is to learn.
    """

    geometry: BatchGeometry
    assignment: Assignment

    @cached_property
    def place(self) -> tuple[Tensor, Tensor]:
        """Picture (N,) and prior (N,) of each positive, picture by picture, ascending."""
        picture, prior = self.assignment.positive_mask.nonzero(as_tuple=True)
        return picture, prior

    @cached_property
    def box_index(self) -> Tensor:
        """(N,) index of the box among its picture's."""
        return self.assignment.gt_index[self.place]

    @cached_property
    def counts(self) -> list[int]:
        """Positives of each picture."""
        return self.assignment.positive_mask.sum(1).tolist()

    @property
    def priors(self) -> Tensor:
        """(N, 4) the positives."""
        return self.geometry.priors[self.place[1]]

    @property
    def boxes(self) -> Tensor:
        """(N, 4) their boxes, in the type of the priors."""
        boxes = self.geometry.gt_boxes[self.place[0], self.box_index]
        return boxes.to(self.geometry.priors.dtype)

    @property
    def labels(self) -> Tensor:
        """(N,) the boxes' labels."""
        return self.geometry.gt_labels[self.place[0], self.box_index]

    def spread(self, values: Tensor, fill: float = 0) -> Tensor:
        """Values (N, ...) at their priors, ``fill`` at the others: (B, P, ...)."""
        table = values.new_full((*self.assignment.gt_index.shape, *values.shape[1:]), fill)
        table[self.place] = values
        return table

    def label_targets(self, num_classes: int, positive_weight: float) -> tuple[Tensor, Tensor]:
        """Labels (B, P) with ``num_classes`` for the background, and their weights (B, P).

        Args:
            num_classes: without the background.
            positive_weight: of priors that have a box; 0 and below is 1. Background weighs 1,
                "ignore" 0.
        """
        weights = (self.assignment.gt_index != IGNORE).float()
        if positive_weight > 0:
            weights[self.place] = positive_weight
        return self.spread(self.labels, num_classes), weights

    def priors_of_pictures(self) -> Tensor:
        """(B, P, 4); zeros where a picture does not have the prior, as in stock."""
        valid = self.geometry.prior_valid
        priors = self.geometry.priors.expand(len(self.counts), -1, -1)
        return priors if valid is None else priors.where(valid[..., None], 0)

    def sampled(self) -> list[Sampled]:
        """Each picture's count of positives, as stock's ``PseudoSampler`` gives it."""
        return [Sampled(max(count, 1)) for count in self.counts]


class BatchTargets(BaseDenseHead):  # type: ignore[misc]
    """Mixin before a stock head: targets of all pictures at once. A head writes `batch_targets`.

    With an assigner that is none of ours, or a sampler other than ``PseudoSampler``, the head goes
    stock's own way, one picture after the other. So it does where pictures do not share their
    priors, or boxes are not tensors.

    Attributes:
        gives_levels: whether stock's head gives its assigner ``num_level_priors``.
        by_mask_centers: whether stock's assigner takes the centres of masks where there are any.
    """

    gives_levels: bool = False
    by_mask_centers: bool = False
    _ready: deque[PictureTargets] | None = None

    def batch_targets(self, *args: Any, **kwargs: Any) -> Iterable[PictureTargets] | None:
        """The targets of each picture, as stock's ``_get_targets_single`` returns them.

        Args:
            *args: as the entry point's, which is ``get_targets`` unless the head says otherwise.
            **kwargs: likewise.

        Returns:
            Iterable | None: a tuple for each picture; None for stock's own way.
        """
        raise NotImplementedError

    @contextmanager
    def targets_ready(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """While open, stock's calls for a picture's targets are answered by `batch_targets`."""
        with torch.no_grad():
            targets = self.batch_targets(*args, **kwargs)
        # A deque, as StopIteration from an iterator would quietly end stock's map over pictures.
        self._ready = None if targets is None else deque(targets)
        try:
            yield
        finally:
            self._ready = None

    def next_targets(
        self, stock: Callable[..., PictureTargets], *args: Any, **kwargs: Any
    ) -> PictureTargets:
        """The next picture's targets, by ``stock`` where none are ready."""
        return stock(*args, **kwargs) if self._ready is None else self._ready.popleft()

    def get_targets(self, *args: Any, **kwargs: Any) -> Any:
        """Stock's, on targets that are made at once."""
        with self.targets_ready(*args, **kwargs):
            return super().get_targets(*args, **kwargs)

    def _get_targets_single(self, *args: Any, **kwargs: Any) -> PictureTargets:
        return self.next_targets(super()._get_targets_single, *args, **kwargs)

    def takes_batches(self, assigner: Any) -> bool:
        """Whether ``assigner`` matches a batch as this head would have it match a picture."""
        return (
            isinstance(assigner, BatchAssigner)
            # Stock's call then says that this head does not give levels.
            and (self.gives_levels or not assigner.needs_levels)
            and type(getattr(self, 'sampler', None)) is PseudoSampler
        )

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
        """Match what stock's ``get_targets`` gets; None where stock is to do it.

        Args:
            assigner: one of ours or of stock's.
            anchor_list: of each picture, each level, (P_l, 4).
            valid_flag_list: likewise, (P_l,) bool.
            batch_gt_instances: boxes and labels of each picture.
            batch_img_metas: of each picture.
            batch_gt_instances_ignore: regions to ignore of each picture.
            unmap_outputs: False is stock's own way.
            predictions: for assigners that go by them.
            **own: what stock's head passes beside instances.

        Raises:
            ValueError: if a picture has no valid prior.
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
        geometry = batch_geometry(
            levels,
            batch_gt_instances,
            batch_gt_instances_ignore,
            prior_valid=_prior_valid(
                torch.cat(list(levels)), flags, batch_img_metas, self.train_cfg['allowed_border']
            ),
            gt_centers=mask_centers(batch_gt_instances) if self.by_mask_centers else None,
        )
        return MatchedBatch(geometry, assigner.match(geometry, predictions, **own))


class AnchorTargets(BatchTargets):
    """Targets of heads that learn boxes at anchors, without the predictions' help.

    Attributes:
        returns_anchors: whether the tuple of a picture begins with its anchors.
    """

    returns_anchors: bool = True

    def batch_targets(self, *args: Any, **kwargs: Any) -> Iterable[PictureTargets] | None:
        """``[anchors,] labels, their weights, boxes, their weights, None, None, Sampled``.

        Stock has the indices of positives and negatives where None is, and reads neither.

        Args:
            *args: as of stock's ``get_targets``.
            **kwargs: likewise.
        """
        matched = self.match_anchors(self.assigner, *args, **kwargs)
        if matched is None:
            return None
        boxes = self.box_targets(matched)
        return pictures(
            *([matched.priors_of_pictures()] if self.returns_anchors else []),
            *matched.label_targets(self.num_classes, self.train_cfg['pos_weight']),
            matched.spread(boxes),
            matched.spread(torch.ones_like(boxes)),
            None,
            None,
            matched.sampled(),
        )

    def box_targets(self, matched: MatchedBatch) -> Tensor:
        """What the priors that have a box are to learn, (N, 4): encoded, or px."""
        if self.reg_decoded_bbox:
            return matched.boxes
        encoded: Tensor = self.bbox_coder.encode(matched.priors, matched.boxes)
        return encoded


def pictures(*parts: Tensor | Sequence[Any] | None) -> Iterator[PictureTargets]:
    """Each picture's tuple, from parts whose first dimension is pictures; None gives None each."""
    count = max(len(part) for part in parts if part is not None)
    return zip(*([None] * count if part is None else part for part in parts), strict=True)


def have_tensors(gt_instances: Sequence[InstanceData]) -> bool:
    """Whether all pictures' boxes are plain tensors, not of mmdet's box types."""
    return all(isinstance(instances.bboxes, Tensor) for instances in gt_instances)


def batch_geometry(
    levels: Sequence[Tensor],
    gt_instances: Sequence[InstanceData],
    gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    **more: Any,
) -> BatchGeometry:
    """A batch from what stock's heads have.

    Args:
        levels: priors (P_l, 4) of each level, shared by the pictures.
        gt_instances: boxes and labels of each picture.
        gt_instances_ignore: regions to ignore of each picture; None for none.
        **more: further arguments of `BatchGeometry.from_lists`.
    """
    none = levels[0].new_zeros((0, 4))
    regions = [none if one is None else one.bboxes for one in gt_instances_ignore or ()]
    return BatchGeometry.from_lists(
        torch.cat(list(levels)),
        [len(level) for level in levels],
        [instances.bboxes for instances in gt_instances],
        [instances.labels for instances in gt_instances],
        ignore_boxes=regions if any(len(each) for each in regions) else None,
        **more,
    )


def _prior_valid(
    priors: Tensor, flags: Tensor, img_metas: Sequence[dict[str, Any]], allowed_border: int
) -> Tensor | None:
    """(B, P) bool, which priors a picture has; None where each has all."""
    shapes = [meta['img_shape'][:2] for meta in img_metas]
    height, width = priors.new_tensor(shapes).T[..., None]  # (B, 1) each
    valid = anchor_inside_flags(priors, flags, (height, width), allowed_border)
    if valid.all():
        return None
    if not valid.any(1).all():
        raise ValueError(
            'There is no valid anchor inside the image boundary, for pictures of img_shape '
            f'{[shape for shape, some in zip(shapes, valid.any(1), strict=True) if not some]}. '
            'Check the image size and anchor sizes, or set ``allowed_border`` to -1 to skip the '
            'condition'
        )
    return valid


def _same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether two pictures have the same priors; stock gives them the same object."""
    return one is other or (
        len(one) == len(other)
        and all(a is b or torch.equal(a, b) for a, b in zip(one, other, strict=True))
    )
