"""Base of the assigners: a batch form, and mmdet's form for one image at a time."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import replace
from typing import Any, Literal

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner, BboxOverlaps2D
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from torch import Tensor

from mmdet_ext.detection import host
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.dynamic_k import PairwiseMeasure
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions

#: A part of the predictions that a rule may use.
Prediction = Literal['scores', 'boxes']


def build_calculator(config: dict[str, Any] | None) -> Any:
    """Build the overlap measure of a config; return None for the plain IoU, computed here.

    Args:
        config: of an overlap measure with mmdet's call; None for the IoU.

    Raises:
        ValueError: if it is not a config.
    """
    if config is not None and not isinstance(config, dict):
        raise ValueError(
            "iou_calculator must be None or a config, such as dict(type='BboxOverlaps2D'), got "
            f'{config!r}'
        )
    if config is None or (set(config) == {'type'} and _is_plain_iou(config['type'])):
        return None
    return MMDET_TASK_UTILS.build(config)


def _is_plain_iou(kind: Any) -> bool:
    """Return whether a type, by name, full path or class, is mmdet's IoU."""
    return (MMDET_TASK_UTILS.get(kind) if isinstance(kind, str) else kind) is BboxOverlaps2D


def aligned_overlap(
    calculator: Any, boxes: Tensor, others: Tensor, repeated: Literal[0, 1]
) -> Tensor:
    """Compute the overlaps (N,) of pairs of boxes by any calculator with mmdet's call.

    mmdet's ``BboxOverlaps2D_GLIP`` gives all pairs, whatever the arguments. Such a calculator is
    called once for each run of pairs with the same ground truth.

    Args:
        calculator: called with ``boxes`` and ``others``, in this order.
        boxes: (N, 4) corners, px.
        others: (N, 4) corners, px.
        repeated: which of the two is ground truth, where each box stands many times in a row.
    """
    overlap: Tensor
    if _measures_aligned(calculator, boxes[:1], others[:1]):
        overlap = calculator(boxes, others, is_aligned=True)
        return overlap
    truth = (boxes, others)[repeated]
    ends = (truth[1:] != truth[:-1]).any(1).nonzero()[:, 0] + 1
    runs = zip(*(part.tensor_split(ends.tolist()) for part in (boxes, others)), strict=True)
    parts = [
        calculator(one[:1], other) if repeated == 0 else calculator(one, other[:1])
        for one, other in runs
    ]
    return torch.cat([part.flatten() for part in parts])


def _measures_aligned(calculator: Any, box: Tensor, other: Tensor) -> bool:
    """Return whether a calculator supports ``is_aligned``, judging by its result for one pair."""
    try:
        overlap: Tensor = calculator(box, other, is_aligned=True)
    except TypeError:
        return False
    return overlap.dim() == 1


def pairwise_measure(calculator: Any) -> PairwiseMeasure | None:
    """Return a calculator with mmdet's call as a measure of all pairs; None for the plain IoU."""
    if calculator is None:
        return None

    def measure(boxes: Tensor, predicted: Tensor) -> Tensor:
        # Predictions first, as mmdet's assigners call it.
        overlap: Tensor = calculator(predicted, boxes)
        return overlap.mT

    return measure


def needed_predictions(assigner: object, predictions: Predictions | None) -> Predictions:
    """Return the predictions, which must have scores and boxes.

    Raises:
        ValueError: naming which of the two is missing.
    """
    given = predictions or Predictions()
    lacks = [name for name in ('scores', 'boxes') if getattr(given, name) is None]
    if lacks:
        raise ValueError(
            f'{type(assigner).__name__} goes by what the head predicts, but got no '
            f'{" and ".join(lacks)}. Use it in a dense head of mmdet_ext with PseudoSampler '
            '(mmdet_ext.GFLHead, ...), or in a head of mmdet that gives both (YOLOXHead, '
            'RTMDetHead, TOODHead)'
        )
    return given


def with_area(geometry: BatchGeometry, num_classes: int | None = None) -> BatchGeometry:
    """Check the ground truth, and mark boxes without area as padding, so that they get no prior.

    No prior overlaps such a box, so that a rule can only give it arbitrary ones: by mmdet's
    max-IoU a box of width 0 takes all priors of its image. Its encoded width is minus infinity.
    The indices of the other boxes stay as they are.

    Args:
        geometry: the batch.
        num_classes: as for `BatchGeometry.check_ground_truth`.

    Returns:
        BatchGeometry: the batch, with ``gt_valid`` False for boxes whose width or height is not
        above 0.

    Raises:
        ValueError: as `BatchGeometry.check_ground_truth`.
    """
    boxes, labels, valid = geometry.gt_boxes, geometry.gt_labels, geometry.gt_valid
    kept = valid & host.area_mask(boxes)
    # Corners that are not finite give sides that are not. One wait for the device suffices for
    # sound boxes.
    sound = kept & ((boxes[..., 2:] - boxes[..., :2]) < torch.inf).all(-1)
    if num_classes is not None:
        sound = sound & (labels >= 0) & (labels < num_classes)
    if torch.equal(sound, valid):
        return geometry
    geometry.check_ground_truth(num_classes)
    if not torch.equal(kept, valid):
        # One text for all, which Python shows once.
        warnings.warn(
            'a ground-truth box without area (gt_instances.bboxes with x2 <= x1 or y2 <= y1) gets '
            'no prior. Leave such boxes out: by FilterAnnotations(min_gt_bbox_wh=(1, 1)) in the '
            'pipeline, or by min_pseudo_bbox_wh for pseudo labels',
            stacklevel=3,
        )
    return replace(geometry, gt_valid=kept)


class BatchAssigner(BaseAssigner):  # type: ignore[misc]
    """Assigner that matches a whole batch at once; a subclass implements `match`.

    Attributes:
        needs_levels: whether the rule uses pyramid levels, so that mmdet's call must give
            ``num_level_priors``.
        prior_form: meaning of the rows of priors in mmdet's call, and what a head of ours gives.
        uses_centers: whether the rule uses no more of the priors than their centres and levels, so
            that it takes anchors and points alike.
        one_level: whether the priors must be those of a single level.
        uses_mask_centers: whether the rule uses the centres of masks where there are any.
        predictions_used: what the rule uses of the predictions, of 'scores' and 'boxes'. Heads of
            ours compute no more than this. None for what the head has.
        score_form: meaning of the class scores in mmdet's call.
        unassigned_overlap: overlap that mmdet's assigner writes for a prior without a box.
        nothing_overlap: the same for an image in which no prior has a box; None for no difference.
        own_arguments: names of further arguments of mmdet's call, which `match` gets.
    """

    needs_levels: bool = False
    prior_form: host.PriorForm = 'corners'
    uses_centers: bool = False
    one_level: bool = False
    uses_mask_centers: bool = False
    predictions_used: tuple[Prediction, ...] | None = None
    score_form: host.ScoreForm = 'probabilities'
    unassigned_overlap: float = 0.0
    nothing_overlap: float | None = None
    own_arguments: tuple[str, ...] = ()

    @abstractmethod
    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images of the batch."""

    @torch.no_grad()
    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """Assign the priors of one image: mmdet's form of `match`.

        Args:
            *args: ``pred_instances, gt_instances[, gt_instances_ignore]``, or, as heads that
                know their levels call it, ``pred_instances, num_level_priors, gt_instances[,
                gt_instances_ignore]``; by position or by name.
            **kwargs: the same by name.

        Returns:
            AssignResult: indices of boxes from 1, 0 for background, -1 for ignored priors.

        Raises:
            TypeError: if an argument is missing or unknown, or the rule needs
                ``num_level_priors`` and the head gives none.
            ValueError: if ``num_level_priors`` do not sum to the number of priors.
        """
        name = type(self).__name__
        call = host.parse_assign_call(name, self.own_arguments, *args, **kwargs)
        if self.needs_levels and call.num_level_priors is None:
            raise TypeError(
                f'{name} goes by pyramid level, but this head calls it without num_level_priors. '
                'Use it in a head that gives them (ATSSHead, GFLHead, VFNetHead, DDODHead, ...)'
            )
        geometry = host.geometry_of_one(call, self.prior_form, self.uses_mask_centers)
        predictions = host.predictions_of_one(call, self.score_form)
        assignment = self.match(geometry, predictions, **call.own)
        return self.result(assignment, geometry.gt_boxes, geometry.gt_labels)

    def result(self, assignment: Assignment, gt_boxes: Tensor, gt_labels: Tensor) -> AssignResult:
        """Return the assignment of one image as mmdet's assigner writes it.

        Args:
            assignment: a batch of one.
            gt_boxes: (1, G, 4), px.
            gt_labels: (1, G).
        """
        overlap = self.unassigned_overlap
        if self.nothing_overlap is not None and not assignment.positive_mask.any():
            overlap = self.nothing_overlap
        flat = ~host.area_mask(gt_boxes[0])
        return host.to_assign_result(assignment, gt_labels, overlap, flat)
