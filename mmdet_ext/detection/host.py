"""mmdet's call of an assigner, read into our structures and answered in mmdet's terms.

Only here is the meaning of a raw tensor inferred: elsewhere it has a field of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners.dynamic_soft_label_assigner import center_of_mass
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.cells import CELL_TOLERANCE, count_leading, leading_grid
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions, Priors

#: Meaning of mmdet's rows of four numbers per prior: corners of anchors, or of anchors that form
#: cells, or points as x, y and the strides along both axes.
PriorForm = Literal['corners', 'cells', 'points']

#: Meaning of the class scores that mmdet's heads give to an assigner.
ScoreForm = Literal['logits', 'probabilities']


class AssignCall(NamedTuple):
    """Arguments of mmdet's ``assign``, in either of its forms.

    Attributes:
        pred_instances: priors, and what the head predicts.
        num_level_priors: number of priors of each level; None where the head gives none.
        gt_instances: ground truth.
        gt_instances_ignore: ignore regions; None for none.
        own: further arguments of this assigner.
    """

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
        assigner: name of the class, for messages.
        own_names: further arguments that this assigner's heads pass last, such as alpha and beta.
        *args: as mmdet's heads pass them, after ``self``.
        **kwargs: the same by name; ``img_meta``, which some heads pass to every assigner, is
            accepted and not used.

    Raises:
        TypeError: naming the argument that is missing or unknown.
    """
    kwargs.pop('img_meta', None)
    names = ['pred_instances', 'gt_instances', 'gt_instances_ignore', *own_names]
    # Heads with levels pass a list of sizes here; anything but instances is taken for one.
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


def geometry_of_one(
    call: AssignCall, form: PriorForm, with_mask_centers: bool = False
) -> BatchGeometry:
    """Read the call for one image as a batch of one.

    Args:
        call: the arguments.
        form: meaning of the rows of ``pred_instances.priors``.
        with_mask_centers: whether to take the centres of masks where there are any.

    Raises:
        ValueError: if ``num_level_priors`` do not sum to the number of priors.
    """
    rows = as_tensor(call.pred_instances.priors)[:, :4]
    ignore, sizes = call.gt_instances_ignore, call.num_level_priors
    if sizes is not None and sum(sizes) != rows.shape[0]:
        raise ValueError(
            f'num_level_priors {list(sizes)} sum to {sum(sizes)}, but pred_instances.priors has '
            f'{rows.shape[0]} rows'
        )
    return BatchGeometry.from_lists(
        priors=read_priors(rows, form, sizes or ()),
        gt_boxes=[as_tensor(call.gt_instances.bboxes)],
        gt_labels=[call.gt_instances.labels],
        ignore_boxes=None if ignore is None else [as_tensor(ignore.bboxes)],
        gt_centers=mask_centers([call.gt_instances]) if with_mask_centers else None,
    )


def read_priors(rows: Tensor, form: PriorForm, level_sizes: Sequence[int]) -> Priors:
    """Read mmdet's rows of priors.

    Args:
        rows: (P, 4).
        form: their meaning.
        level_sizes: number of priors of each level. () and a single size leave the levels unknown.

    Raises:
        ValueError: if the rows have another shape.
    """
    if rows.dim() != 2 or rows.shape[1] != 4:
        raise ValueError(f'priors must have shape ({len(rows)}, 4), got {tuple(rows.shape)}')
    sizes = tuple(level_sizes) if len(level_sizes) > 1 else ()
    if form == 'points':
        return Priors(points=rows[:, :2], strides=rows[:, 2:], level_sizes=sizes)
    if form == 'corners':
        return Priors(corners=rows, level_sizes=sizes)
    sizes, anchors = infer_cells(Priors(corners=rows).centers, sizes)
    return Priors(corners=rows, level_sizes=sizes, anchors_per_cell=anchors)


def infer_cells(
    centers: Tensor, level_sizes: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Infer the levels and their anchors per cell from the centres of anchors.

    Consecutive anchors of one centre belong to a level's first cell. Where the sizes are unknown,
    a level goes on as long as the centres are those of the next cell, so that sizes are needed
    only where a level of a single cell stands in the place of the next level's first cell.

    Args:
        centers: (P, 2) px.
        level_sizes: number of priors of each level; () where unknown.

    Returns:
        tuple: level sizes, and anchors per cell of each level.
    """
    sizes: list[int] = []
    anchors: list[int] = []
    start = 0
    while start < len(centers) or len(sizes) < len(level_sizes):
        rest = centers[start:]
        if level_sizes:
            rest = rest[: level_sizes[len(sizes)]]
        count = count_leading(((rest - rest[:1]).abs() < CELL_TOLERANCE).all(1))
        size = len(rest)
        if not level_sizes:
            grid = leading_grid(rest[::count])
            size = min(size, grid.columns * grid.rows * count)
        sizes.append(size)
        anchors.append(count)
        start += size
    return tuple(sizes), tuple(anchors)


def have_tensors(gt_instances: Sequence[InstanceData]) -> bool:
    """Return whether all images' boxes are corners: tensors, or mmdet's horizontal boxes."""
    return all(isinstance(each.bboxes, (Tensor, HorizontalBoxes)) for each in gt_instances)


def batch_geometry(
    priors: Priors,
    gt_instances: Sequence[InstanceData],
    gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    **more: Any,
) -> BatchGeometry:
    """Build the geometry of a batch from what mmdet's heads have.

    Args:
        priors: shared by the images.
        gt_instances: boxes and labels per image.
        gt_instances_ignore: ignore regions per image; None for none.
        **more: further arguments of `BatchGeometry.from_lists`.
    """
    none = priors.rows.new_zeros((0, 4))
    regions = [none if one is None else as_tensor(one.bboxes) for one in gt_instances_ignore or ()]
    return BatchGeometry.from_lists(
        priors,
        [as_tensor(instances.bboxes) for instances in gt_instances],
        [instances.labels for instances in gt_instances],
        ignore_boxes=regions if any(len(each) for each in regions) else None,
        **more,
    )


def mask_centers(gt_instances: Sequence[InstanceData]) -> list[Tensor] | None:
    """Return the centres of mass (G, 2) of each image's masks, px; None where masks are missing.

    Masks are tensors (G, H, W), as heads of instance segmentation give them, or mmdet's containers
    of bitmaps or polygons, as data sets give them.
    """
    if not all('masks' in instances for instances in gt_instances):
        return None
    centers = []
    for instances in gt_instances:
        boxes, masks = as_tensor(instances.bboxes), instances.masks
        if not isinstance(masks, Tensor):
            masks = masks.to_tensor(torch.uint8, boxes.device)
        centers.append(center_of_mass(masks, eps=1e-7).to(boxes))
    return centers


def predictions_of_one(call: AssignCall, form: ScoreForm) -> Predictions:
    """Read the scores and boxes of one image as a batch of one, None where the head gave none.

    Args:
        call: the arguments.
        form: meaning of ``pred_instances.scores``.
    """
    pred = call.pred_instances
    scores = pred.scores[None] if 'scores' in pred else None
    return Predictions(
        boxes=as_tensor(pred.bboxes)[None] if 'bboxes' in pred else None,
        logits=scores if form == 'logits' else None,
        probabilities=scores if form == 'probabilities' else None,
    )


class BoxAssignResult(AssignResult):  # type: ignore[misc]
    """Result of mmdet's form, in which boxes without area never become samples.

    A sampler of a RoI head adds the ground-truth boxes to the proposals, each assigned to itself
    (``add_gt_as_proposals``). One without area is ignored instead: its offsets would be the
    logarithm of 0 / 0.

    Args:
        *args: as ``AssignResult`` takes them.
        flat: (G,) bool, True for boxes without area; None where all have one.
    """

    def __init__(self, *args: Any, flat: Tensor | None = None) -> None:
        super().__init__(*args)
        self.gt_inds: Tensor
        self.flat = flat

    def add_gt_(self, gt_labels: Tensor) -> None:
        """Put the ground-truth boxes before the priors.

        Args:
            gt_labels: (G,).
        """
        super().add_gt_(gt_labels)
        if self.flat is not None:
            added = self.gt_inds[: len(self.flat)].masked_fill(self.flat, -1)
            self.gt_inds = torch.cat([added, self.gt_inds[len(self.flat) :]])


def area_mask(boxes: Tensor) -> Tensor:
    """Return which boxes (..., 4) have a width and a height above 0, (...) bool."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def to_assign_result(
    assignment: Assignment,
    gt_labels: Tensor,
    unassigned_overlap: float,
    flat: Tensor | None = None,
) -> AssignResult:
    """Return the assignment of one image in mmdet's terms: boxes from 1, 0 background, -1 ignored.

    Args:
        assignment: a batch of one.
        gt_labels: (1, G).
        unassigned_overlap: value that mmdet's assigner writes into ``max_overlaps`` for a prior
            without a box.
        flat: (G,) bool, True for boxes without area; None where all have one.
    """
    index = assignment.gt_index[0]
    num_gts = gt_labels.shape[1]
    overlap = assignment.overlap[0]
    if num_gts > 0 and unassigned_overlap != 0:
        overlap = overlap.masked_fill(index < 0, unassigned_overlap)
    result = BoxAssignResult(
        num_gts,
        index + 1,  # -2, -1, 0, ... become -1, 0, 1, ...
        overlap,
        assignment.labels(gt_labels)[0],
        flat=flat,
    )
    if assignment.metric is not None:
        result.assign_metrics = assignment.metric[0]
    return result


def as_tensor(boxes: Any) -> Tensor:
    """Return the tensor of one of mmdet's box types, or the tensor itself."""
    return boxes if isinstance(boxes, Tensor) else boxes.tensor
