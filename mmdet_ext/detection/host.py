"""Stock's call of an assigner, read into our structures and answered in stock's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners.dynamic_soft_label_assigner import center_of_mass
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions


class AssignCall(NamedTuple):
    """The arguments of a stock ``assign``, in either of its forms."""

    pred_instances: InstanceData
    num_level_priors: tuple[int, ...] | None
    gt_instances: InstanceData
    gt_instances_ignore: InstanceData | None
    own: dict[str, Any]


def parse_assign_call(
    assigner: str, own_names: Sequence[str], *args: Any, **kwargs: Any
) -> AssignCall:
    """Read ``assign(pred, gt, ignore)`` and ``assign(pred, num_level_priors, gt, ignore)``.

    Args:
        assigner: the class's name, for messages.
        own_names: what this assigner's heads pass after the others, such as alpha and beta.
        *args: as stock heads pass them, after ``self``.
        **kwargs: likewise; ``img_meta``, which some heads pass to every assigner, is accepted.

    Raises:
        TypeError: naming what lacks or is not known.
    """
    kwargs.pop('img_meta', None)
    names = ['pred_instances', 'gt_instances', 'gt_instances_ignore', *own_names]
    # Stock heads give a list of sizes here; anything but instances is taken for one.
    if len(args) > 1 and not isinstance(args[1], InstanceData):
        names.insert(1, 'num_level_priors')
    if len(args) > len(names):
        raise TypeError(f'{assigner}.assign takes {", ".join(names)}; got {len(args)} values')
    values = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in (*names, 'num_level_priors') or name in values:
            raise TypeError(f'{assigner}.assign got an unknown or repeated argument {name!r}')
        values[name] = value
    for name in ('pred_instances', 'gt_instances'):
        if name not in values:
            raise TypeError(f'{assigner}.assign lacks its argument {name!r}')
    sizes = values.get('num_level_priors')
    return AssignCall(
        values['pred_instances'],
        None if sizes is None else tuple(int(size) for size in sizes),
        values['gt_instances'],
        values.get('gt_instances_ignore'),
        {name: values[name] for name in own_names if name in values},
    )


def geometry_of_one(call: AssignCall) -> BatchGeometry:
    """One image's call as a batch of one; without level sizes, all priors are one level."""
    priors = as_tensor(call.pred_instances.priors)[:, :4]
    gt_boxes = as_tensor(call.gt_instances.bboxes)
    ignore = call.gt_instances_ignore
    sizes = call.num_level_priors
    if sizes is not None and sum(sizes) != priors.shape[0]:
        raise ValueError(
            f'num_level_priors {list(sizes)} sum to {sum(sizes)}, but pred_instances.priors has '
            f'{priors.shape[0]} rows'
        )
    return BatchGeometry.from_lists(
        priors=priors,
        level_sizes=(priors.shape[0],) if sizes is None else sizes,
        gt_boxes=[gt_boxes],
        gt_labels=[call.gt_instances.labels],
        ignore_boxes=None if ignore is None else [as_tensor(ignore.bboxes)],
        gt_centers=mask_centers([call.gt_instances]),
    )


def mask_centers(gt_instances: Sequence[InstanceData]) -> list[Tensor] | None:
    """Centres of mass (G, 2), px, of each image's boxes; None where they have no masks."""
    if not all('masks' in instances for instances in gt_instances):
        return None
    centers = [center_of_mass(each.masks, eps=1e-7) for each in gt_instances]
    return [c.to(as_tensor(e.bboxes)) for c, e in zip(centers, gt_instances, strict=True)]


def predictions_of_one(call: AssignCall) -> Predictions:
    """One image's scores and boxes as a batch of one, each None where the head gave none."""
    pred = call.pred_instances
    return Predictions(
        scores=pred.scores[None] if 'scores' in pred else None,
        boxes=as_tensor(pred.bboxes)[None] if 'bboxes' in pred else None,
    )


def to_assign_result(
    assignment: Assignment, gt_labels: Tensor, unassigned_overlap: float
) -> AssignResult:
    """A batch of one in stock's terms: 1-based boxes, 0 background, -1 ignore.

    Args:
        assignment: of one image.
        gt_labels: (1, G).
        unassigned_overlap: what stock's twin writes into ``max_overlaps`` where no box is.
    """
    index = assignment.gt_index[0]
    num_gts = gt_labels.shape[1]
    overlap = assignment.overlap[0]
    if num_gts > 0 and unassigned_overlap != 0:
        overlap = overlap.masked_fill(index < 0, unassigned_overlap)
    result = AssignResult(
        num_gts,
        index + 1,  # -2, -1, 0, ... become stock's -1, 0, 1, ...
        overlap,
        labels=assignment.labels(gt_labels)[0],
    )
    if assignment.metric is not None:
        result.assign_metrics = assignment.metric[0]
    return result


def as_tensor(boxes: Any) -> Tensor:
    """The tensor of mmdet's box types, or the tensor given."""
    return boxes if isinstance(boxes, Tensor) else boxes.tensor
