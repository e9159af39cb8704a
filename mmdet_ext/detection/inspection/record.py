"""Looking on while a detector assigns labels: which priors went to which box, on which level."""

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

from mmdet_ext.detection.assigners import BatchAssigner
from mmdet_ext.detection.host import as_tensor
from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.boxes.overlap import box_centers


class NoPlaceError(TypeError):
    """An assigner goes by what has no place in a picture; the message names it."""


@dataclass(frozen=True)
class AssignmentRecord:
    """What one call of an assigner did with one picture.

    Attributes:
        assigner: class name, stock's with ``mmdet.`` before it.
        head: path of the module that holds it, such as 'bbox_head' or 'rpn_head'.
        centers: (P, 2) places of the priors, px.
        level: (P,) int64, pyramid level of each, from 0.
        gt_boxes: (G, 4) corners, px, of the picture as the network sees it.
        gt_index: (P,) int64: box, -1 background, -2 ignored.
        places: what was assigned: priors, or, where there are none (DETR), the predicted boxes.
            Priors that the picture does not have, as those beyond ``allowed_border``, are left out.
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
    """The priors of each level, as the heads' generators made them."""

    levels: list[Tensor] = field(default_factory=list)

    def level_of(self, priors: Tensor, sizes: tuple[int, ...] | None) -> Tensor:
        """The level of each prior: by sizes where they are known, else by looking it up."""
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


#: Where torch keeps tensors and children, which are searched by their names.
_TORCHS_OWN = ('_parameters', '_buffers', '_modules')


@contextmanager
def recorded_assignments(model: nn.Module) -> Iterator[list[AssignmentRecord]]:
    """While open, every assignment of the model is kept, picture by picture.

    Stock's assigners are looked on at ``assign``, ours at ``match``, wherever the model holds
    them: in a head, or in a list or dict of one, as Cascade R-CNN's for its stages.

    Args:
        model: a detector of mmdet. Compute a loss with it meanwhile.

    Yields:
        list: what was assigned, in the order of the calls; it grows.

    Raises:
        NoPlaceError: in the computation of the loss, by an assigner that goes neither by priors
            nor by boxes, but, say, by masks.
    """
    records: list[AssignmentRecord] = []
    grids = _Grids()
    with ExitStack() as stack:
        for path, value in _held(model, '', {}):
            if isinstance(value, BatchAssigner):
                name, call = 'match', _batch_call(value, path, grids, records)
            elif isinstance(value, BaseAssigner):
                name, call = 'assign', _stock_call(value, path, grids, records)
            else:
                name, call = 'grid_priors', _generator_call(value, grids)
            stack.enter_context(patch.object(value, name, call))
        yield records


def _held(node: Any, path: str, seen: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    """Assigners and prior generators in a module, list or dict, with the path of their module.

    Args:
        node: to search.
        path: of the module that has it.
        seen: what was searched before, by id; kept, so that no id is given to another object.
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


def _generator_call(generator: Any, grids: _Grids) -> Callable[..., Any]:
    plain = generator.grid_priors

    def grid_priors(*args: Any, **kwargs: Any) -> Any:
        levels = plain(*args, **kwargs)
        grids.levels = [as_tensor(level).detach().cpu() for level in levels]
        return levels

    return grid_priors


def _batch_call(
    assigner: BatchAssigner, path: str, grids: _Grids, records: list[AssignmentRecord]
) -> Callable[..., Any]:
    plain = assigner.match

    def match(geometry: Any, *args: Any, **kwargs: Any) -> Any:
        assignment = plain(geometry, *args, **kwargs)
        priors = geometry.priors.detach().cpu()
        level, centers = grids.level_of(priors, geometry.level_sizes), _centers(priors)
        for picture, index in enumerate(assignment.gt_index.cpu()):
            has = torch.ones(len(priors), dtype=torch.bool)
            if geometry.prior_valid is not None:
                has = geometry.prior_valid[picture].cpu()
            boxes = geometry.gt_boxes[picture][geometry.gt_valid[picture]].detach().cpu()
            records.append(
                AssignmentRecord(
                    type(assigner).__name__, path, centers[has], level[has], boxes, index[has]
                )
            )
        return assignment

    return match


def _stock_call(
    assigner: Any, path: str, grids: _Grids, records: list[AssignmentRecord]
) -> Callable[..., Any]:
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
                f'and gt_instances with bboxes, but {_listed(given)}: what it assigns, such as '
                'masks, has no place in the picture'
            )
        index = result.gt_inds.cpu() - 1
        index = index.where(index >= IGNORE, BACKGROUND)
        gt_boxes = as_tensor(gt.bboxes).detach().cpu()
        if 'priors' in pred:
            priors = as_tensor(pred.priors)[:, :4].detach().cpu()
            sizes = given.get('num_level_priors', given.get('num_level_anchors'))
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
    """The arguments of a call by their names."""
    given = dict(inspect.signature(call).bind(*args, **kwargs).arguments)
    return {**given.pop('kwargs', {}), **given}


def _listed(given: dict[str, Any]) -> str:
    """Names of arguments, those of instances with what they have."""
    return ', '.join(
        f'{name} with {" and ".join(value.keys())}' if isinstance(value, InstanceData) else name
        for name, value in given.items()
    )


def _are_points(priors: Tensor) -> bool:
    """Whether rows are (x, y), (x, y, stride) or (x, y, stride, stride), not corners."""
    if priors.shape[1] < 4:
        return True
    return len(priors) > 0 and bool((priors[:, 2] == priors[:, 3]).all())


def _centers(priors: Tensor) -> Tensor:
    return priors[:, :2] if _are_points(priors) else box_centers(priors)
