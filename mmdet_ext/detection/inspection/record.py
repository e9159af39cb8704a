"""Record of the assignments that a detector makes while it computes a loss.

1. `recorded_assignments` finds the assigners and prior generators that a model holds.
2. Within its context, ``match`` of our assigners, ``assign`` of mmdet's and ``grid_priors`` of the
   generators are wrapped.
3. Each wrapped call runs as before. Then it adds an `AssignmentRecord` per image to a list.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from unittest.mock import patch

import torch
from mmdet.models.task_modules.assigners import BaseAssigner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.detection.host import as_tensor
from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.boxes.overlap import box_centers


class NoPlaceError(TypeError):
    """Error for an assigner of things that have no place in an image; the message names them."""


@dataclass(frozen=True)
class AssignmentRecord:
    """Result of one call of an assigner for one image.

    Priors that the image does not have, such as those beyond ``allowed_border``, are left out.

    Attributes:
        assigner: class name; names of mmdet's classes begin with ``mmdet.``.
        head: path of the module that holds the assigner, such as 'bbox_head' or 'rpn_head'.
        centers: (P, 2) centres of the priors, px.
        level: (P,) int64, pyramid level of each prior, from 0.
        gt_boxes: (G, 4) ground truth, corners, px of the image as the network sees it.
        gt_index: (P,) int64: index of the ground truth, -1 for background, -2 for ignored.
        places: 'priors', or 'predicted boxes' where these are assigned, as in DETR.
    """

    assigner: str
    head: str
    centers: Tensor
    level: Tensor
    gt_boxes: Tensor
    gt_index: Tensor
    places: Literal['priors', 'predicted boxes'] = 'priors'


@dataclass
class _Grids:
    """Priors per level, as the generator that was called last made them."""

    levels: list[Tensor] = field(default_factory=list)

    def level_of(self, priors: Tensor, sizes: tuple[int, ...] | None) -> Tensor:
        """Find the pyramid level of each prior.

        Args:
            priors: (P, 4), or (P, 2) points.
            sizes: number of priors per level; None where the head does not give them.

        Returns:
            Tensor: (P,) int64. Without sizes it is the rank of a point's stride, or the level on
            which a generator made the same anchor, or 0.
        """
        if sizes is not None and len(sizes) > 1:
            index = torch.arange(len(sizes))
            return index.repeat_interleave(torch.tensor(sizes))
        if priors.shape[1] > 2 and _are_points(priors):
            return priors[:, 2].unique(return_inverse=True)[1]
        place = {
            tuple(row): number
            for number, level in enumerate(self.levels)
            for row in level[:, :4].tolist()
        }
        return torch.tensor([place.get(tuple(row), 0) for row in priors.tolist()])


#: Attributes in which torch keeps tensors and children; children are searched by their names.
_TORCHS_OWN = ('_parameters', '_buffers', '_modules')


@contextmanager
def recorded_assignments(model: nn.Module) -> Iterator[list[AssignmentRecord]]:
    """Record every assignment that the model makes within the context.

    Assigners are found wherever the model holds them: in a head, or in a list or dict of a head,
    as in Cascade R-CNN with its stages.

    Args:
        model: a detector of mmdet. Compute a loss with it within the context.

    Yields:
        list: one record per call and image, in the order of the calls; it grows.

    Raises:
        NoPlaceError: when the loss is computed, by an assigner that assigns neither priors nor
            boxes but, for example, masks.
    """
    records: list[AssignmentRecord] = []
    grids = _Grids()
    with ExitStack() as stack:
        for path, value in _held(model, '', {}):
            if isinstance(value, BatchAssigner):
                name, call = 'match', _recording_match(value, path, grids, records)
            elif isinstance(value, BaseAssigner):
                name, call = 'assign', _recording_assign(value, path, grids, records)
            else:
                name, call = 'grid_priors', _recording_grid_priors(value, grids)
            stack.enter_context(patch.object(value, name, call))
        yield records


def _held(node: Any, path: str, seen: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    """Yield assigners and prior generators of a module, list or dict, and their module's path.

    Args:
        node: object to search.
        path: path of the module that holds it.
        seen: objects that were searched before, by id. They are kept, so that no id is used again.
    """
    if id(node) in seen:
        return
    seen[id(node)] = node
    if isinstance(node, BaseAssigner):
        yield path, node
    elif isinstance(node, nn.Module):
        for name, child in node.named_children():
            yield from _held(child, f'{path}.{name}' if path else name, seen)
        attributes = vars(node).items()
        for value in [value for name, value in attributes if name not in _TORCHS_OWN]:
            yield from _held(value, path, seen)
    elif isinstance(node, (dict, list, tuple)):
        for value in list(node.values() if isinstance(node, dict) else node):
            yield from _held(value, path, seen)
    elif hasattr(node, 'grid_priors'):
        yield path, node


def _recording_grid_priors(generator: Any, grids: _Grids) -> Callable[..., Any]:
    """Wrap ``grid_priors`` of a generator, to know the level of an anchor."""
    plain = generator.grid_priors

    def grid_priors(*args: Any, **kwargs: Any) -> Any:
        levels = plain(*args, **kwargs)
        grids.levels = [as_tensor(level).detach().cpu() for level in levels]
        return levels

    return grid_priors


def _recording_match(
    assigner: BatchAssigner, path: str, grids: _Grids, records: list[AssignmentRecord]
) -> Callable[..., Any]:
    """Wrap ``match`` of an assigner of ours."""
    plain = assigner.match

    def match(geometry: Any, *args: Any, **kwargs: Any) -> Any:
        assignment = plain(geometry, *args, **kwargs)
        priors = geometry.priors
        level = grids.level_of(priors.rows.detach().cpu(), priors.level_sizes)
        centers = priors.centers.detach().cpu()
        for image, index in enumerate(assignment.gt_index.cpu()):
            has = torch.ones(len(priors), dtype=torch.bool)
            if geometry.prior_valid is not None:
                has = geometry.prior_valid[image].cpu()
            boxes = geometry.gt_boxes[image][geometry.gt_valid[image]].detach().cpu()
            records.append(
                AssignmentRecord(
                    type(assigner).__name__, path, centers[has], level[has], boxes, index[has]
                )
            )
        return assignment

    return match


def _recording_assign(
    assigner: Any, path: str, grids: _Grids, records: list[AssignmentRecord]
) -> Callable[..., Any]:
    """Wrap ``assign`` of an assigner of mmdet."""
    plain, name = assigner.assign, type(assigner).__name__
    if type(assigner).__module__.startswith('mmdet.'):
        name = f'mmdet.{name}'

    def assign(*args: Any, **kwargs: Any) -> Any:
        result = plain(*args, **kwargs)
        given = _arguments(plain, args, kwargs)
        pred, gt = given.get('pred_instances', ()), given.get('gt_instances', ())
        if 'bboxes' not in gt or not ('priors' in pred or 'bboxes' in pred):
            raise NoPlaceError(
                f'{name} of {path or "the head"} is not given pred_instances with priors or bboxes '
                f'and gt_instances with bboxes, but {_describe(given)}: what it assigns, such as '
                'masks, has no place in the image'
            )
        index = result.gt_inds.cpu() - 1
        index = index.where(index >= IGNORE, BACKGROUND)
        gt_boxes = as_tensor(gt.bboxes).detach().cpu()
        if 'priors' in pred:
            priors = as_tensor(pred.priors)[:, :4].detach().cpu()
            sizes = given.get('num_level_priors')
            level = grids.level_of(priors, None if sizes is None else tuple(sizes))
            record = AssignmentRecord(name, path, _centers(priors), level, gt_boxes, index)
        else:
            centers = box_centers(as_tensor(pred.bboxes).detach().cpu())
            level = torch.zeros(len(centers), dtype=torch.int64)
            record = AssignmentRecord(
                name, path, centers, level, gt_boxes, index, 'predicted boxes'
            )
        records.append(record)
        return result

    return assign


def _arguments(call: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call by their names."""
    given = dict(inspect.signature(call).bind(*args, **kwargs).arguments)
    return {**given.pop('kwargs', {}), **given}


def _describe(given: dict[str, Any]) -> str:
    """List the names of arguments, and for instances the names of their fields."""
    return ', '.join(
        f'{name} with {" and ".join(value.keys())}' if isinstance(value, InstanceData) else name
        for name, value in given.items()
    )


def _are_points(priors: Tensor) -> bool:
    """Return whether rows are (x, y), (x, y, stride) or (x, y, stride, stride), not corners."""
    if priors.shape[1] < 4:
        return True
    return len(priors) > 0 and bool((priors[:, 2] == priors[:, 3]).all())


def _centers(priors: Tensor) -> Tensor:
    return priors[:, :2] if _are_points(priors) else box_centers(priors)
