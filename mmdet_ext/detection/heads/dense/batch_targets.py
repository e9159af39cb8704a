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
from typing import Any

import torch
from mmdet.models.task_modules.samplers import PseudoSampler
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.detection.heads.dense.fitting import (
    ChecksInput,
    check_fits,
    fitted,
    same_levels,
    used_part,
    valid_priors,
)
from mmdet_ext.detection.heads.dense.matched_batch import MatchedBatch
from mmdet_ext.detection.host import batch_geometry, have_tensors, mask_centers
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions, Priors

#: The targets of one image, as mmdet's ``_get_targets_single`` returns them.
ImageTargets = tuple[Any, ...]


class BatchTargets(ChecksInput):
    """Mixin in front of a head of mmdet that computes the targets of all images at once.

    A head implements `batch_targets`. The module's docstring explains how its result reaches
    mmdet's code. Images are assigned by mmdet's code, one by one, if:

    - the assigner is not one of ours,
    - the sampler draws from each image (it is not ``PseudoSampler``),
    - the images do not share their priors, or
    - boxes are neither tensors nor mmdet's horizontal boxes.

    Heads of ``AnchorTargets`` match the batch at once where a sampler draws, too; only the drawing
    is left to mmdet's code.

    A head takes any assigner of ours whose needs it can meet, and refuses others when it is built
    (see `check_fits`). An assigner that uses predictions gets the head's own, without gradient.

    Attributes:
        gives_levels: whether mmdet's head gives its assigner ``num_level_priors``. It matters only
            where mmdet's code assigns.
        gives_points: whether the priors are points (x, y, stride, stride), not anchors.
        uses_mask_centers: whether mmdet's assigner takes the centres of masks where there are any.
    """

    gives_levels: bool = False
    gives_points: bool = False
    uses_mask_centers: bool = False
    _ready: deque[ImageTargets] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ('initial_assigner', 'assigner', 'alignment_assigner'):
            check_fits(self, getattr(self, name, None))

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
            and type(getattr(self, 'sampler', None)) is PseudoSampler
        )

    def match(
        self, assigner: Any, geometry: BatchGeometry, predictions: Predictions | None, **own: Any
    ) -> MatchedBatch:
        """Match a batch by an assigner of ours, which gets what it uses in the form it takes.

        Args:
            assigner: an assigner of ours.
            geometry: priors as the head has them, and ground truth.
            predictions: of the head; None for those that `predicted` computes.
            **own: further arguments, of which the assigner gets those that it names.
        """
        used = assigner.predictions_used
        if predictions is None and used != ():
            predictions = self.predicted(geometry.priors, used)
        named = {name: value for name, value in own.items() if name in assigner.own_arguments}
        if used is None:  # an assigner that says nothing of itself gets all
            named = own
        found = assigner.match(
            fitted(assigner, geometry, self.prior_generator),
            used_part(predictions, used),
            **named,
        )
        return MatchedBatch(geometry, found)

    def predicted(self, priors: Priors, used: tuple[str, ...] | None) -> Predictions | None:
        """Compute what the head predicts, for assigners that use it.

        Args:
            priors: as the head has them.
            used: what is used, of 'scores' and 'boxes'; None for both.

        Returns:
            Predictions | None: None where the head has no predictions at hand.
        """
        return None

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
        drawn_from: bool = False,
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
            predictions: of the head; None for those that `predicted` computes.
            drawn_from: whether a sampler is to draw from the images that are matched.
            **own: further arguments that mmdet's head gives its assigner.

        Returns:
            MatchedBatch | None: the matched batch; None where mmdet's code is to assign.

        Raises:
            ValueError: if an image has no valid prior.
        """
        levels = anchor_list[0]
        if not (
            unmap_outputs
            and (drawn_from or self.takes_batches(assigner))
            and isinstance(assigner, BatchAssigner)
            and all(isinstance(level, Tensor) for level in levels)
            and all(same_levels(other, levels) for other in anchor_list[1:])
            and have_tensors(batch_gt_instances)
        ):
            return None
        flags = torch.stack([torch.cat(list(each)) for each in valid_flag_list])
        priors = self.batch_priors(levels)
        geometry = batch_geometry(
            priors,
            batch_gt_instances,
            batch_gt_instances_ignore,
            prior_valid=valid_priors(
                priors.rows, flags, batch_img_metas, self.train_cfg['allowed_border']
            ),
            gt_centers=mask_centers(batch_gt_instances) if self.uses_mask_centers else None,
        )
        return self.match(assigner, geometry, predictions, **own)


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


def flat_levels(maps: Sequence[Tensor], columns: int) -> Tensor:
    """Flatten and join levels (B, A * D, H, W), for A priors per cell, to (B, P, D).

    Args:
        maps: outputs per level.
        columns: D.
    """
    return torch.cat([each.permute(0, 2, 3, 1).reshape(len(each), -1, columns) for each in maps], 1)


def per_image(*parts: Tensor | Sequence[Any] | None) -> Iterator[ImageTargets]:
    """Turn targets of a batch into one tuple per image.

    Args:
        *parts: tensors or sequences with one row per image; None gives None for each image.
    """
    count = max(len(part) for part in parts if part is not None)
    return zip(*([None] * count if part is None else part for part in parts), strict=True)
