"""Looking on while a detector assigns labels: which priors went to which box, on which level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from mmdet.models.task_modules.assigners import BaseAssigner
from torch import Tensor, nn

from mmdet_ext.detection.assigners import BatchAssigner
from mmdet_ext.detection.compat import as_tensor, parse_assign_call
from mmdet_ext.functional.boxes import box_centers
from mmdet_ext.functional.matching import BACKGROUND, IGNORE


@dataclass(frozen=True)
class AssignmentRecord:
    """What one assigner did with one picture.

    Attributes:
        assigner: class name, stock's with ``mmdet.`` before it.
        head: path of the module that holds it, such as 'bbox_head' or 'rpn_head'.
        centers: (P, 2) places of the priors, px.
        level: (P,) int64, pyramid level of each, from 0.
        gt_boxes: (G, 4) corners, px, of the picture as the network sees it.
        gt_index: (P,) int64: box, -1 background, -2 ignored.
    """

    assigner: str
    head: str
    centers: Tensor
    level: Tensor
    gt_boxes: Tensor
    gt_index: Tensor


@dataclass
class _Grids:
    """The priors of each level, as the heads' generators made them."""

    levels: list[Tensor] = field(default_factory=list)

    def level_of(self, priors: Tensor, sizes: tuple[int, ...] | None) -> Tensor:
        """The level of each prior: by sizes where they are known, else by looking it up."""
        if sizes is not None and len(sizes) > 1:
            index = torch.arange(len(sizes))
            return index.repeat_interleave(torch.tensor(sizes))
        if _are_points(priors):
            return priors[:, 2].unique(return_inverse=True)[1]
        place = {
            tuple(row): number
            for number, level in enumerate(self.levels)
            for row in level[:, :4].tolist()
        }
        return torch.tensor([place.get(tuple(row), 0) for row in priors.tolist()])


@contextmanager
def recorded_assignments(model: nn.Module) -> Iterator[list[AssignmentRecord]]:
    """While open, every assignment of the model is kept, picture by picture.

    Stock's assigners are looked on at ``assign``, ours at ``match``.

    Args:
        model: a detector of mmdet. Compute a loss with it meanwhile.

    Yields:
        list: what was assigned, in the order of the calls; it grows.
    """
    records: list[AssignmentRecord] = []
    grids = _Grids()
    with ExitStack() as stack:
        seen: set[int] = set()
        for path, module in model.named_modules():
            for value in list(vars(module).values()):
                if id(value) in seen:
                    continue
                seen.add(id(value))
                if isinstance(value, BatchAssigner):
                    call = _batch_call(value, path, grids, records)
                    stack.enter_context(patch.object(value, 'match', call))
                elif isinstance(value, BaseAssigner):
                    call = _stock_call(value, path, grids, records)
                    stack.enter_context(patch.object(value, 'assign', call))
                elif hasattr(value, 'grid_priors'):
                    call = _generator_call(value, grids)
                    stack.enter_context(patch.object(value, 'grid_priors', call))
        yield records


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
        level = grids.level_of(priors, geometry.level_sizes)
        for boxes, valid, index in zip(
            geometry.gt_boxes, geometry.gt_valid, assignment.gt_index, strict=True
        ):
            records.append(
                AssignmentRecord(
                    type(assigner).__name__, path, _centers(priors), level,
                    boxes[valid].detach().cpu(), index.cpu(),
                )  # fmt: skip
            )
        return assignment

    return match


def _stock_call(
    assigner: Any, path: str, grids: _Grids, records: list[AssignmentRecord]
) -> Callable[..., Any]:
    plain, name = assigner.assign, type(assigner).__name__

    def assign(*args: Any, **kwargs: Any) -> Any:
        result = plain(*args, **kwargs)
        call = parse_assign_call(name, ('alpha', 'beta'), *args, **kwargs)
        priors = as_tensor(call.pred_instances.priors)[:, :4].detach().cpu()
        index = result.gt_inds.cpu() - 1
        records.append(
            AssignmentRecord(
                f'mmdet.{name}', path, _centers(priors),
                grids.level_of(priors, call.num_level_priors),
                as_tensor(call.gt_instances.bboxes).detach().cpu(),
                index.where(index >= IGNORE, BACKGROUND),
            )  # fmt: skip
        )
        return result

    return assign


def _are_points(priors: Tensor) -> bool:
    """Whether rows are (x, y, stride, stride), not corners."""
    return len(priors) > 0 and bool((priors[:, 2] == priors[:, 3]).all())


def _centers(priors: Tensor) -> Tensor:
    return priors[:, :2] if _are_points(priors) else box_centers(priors)
