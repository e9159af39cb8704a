"""Head of FCOS that computes the targets of a batch at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead as MMDetFCOSHead
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.detection.assigners.fcos import FCOSAssigner
from mmdet_ext.detection.heads.dense.batch_targets import (
    ImageTargets,
    KeepsOutputs,
    flat_levels,
    per_image,
)
from mmdet_ext.detection.heads.dense.fitting import check_fits
from mmdet_ext.detection.host import batch_geometry, have_tensors
from mmdet_ext.functional.assignment.fcos import centerness
from mmdet_ext.functional.assignment.geometry import Priors
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class FCOSHead(KeepsOutputs, MMDetFCOSHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``FCOSHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. The head builds our `FCOSAssigner` from its own
    options, unless ``train_cfg.assigner`` is another assigner of ours for points. Like mmdet's
    head, it does not use an assigner of mmdet.

    Its targets have no weights: a point that an assigner ignores is background, and ignore regions
    do not count, as in mmdet. A point outside of its box learns its class alone: its centerness
    is 0.
    """

    gives_points = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sampler = PseudoSampler()
        given = self._given_assigner()
        self._own_rule = given is None
        self.assigner: BatchAssigner = given or FCOSAssigner(
            self.regress_ranges, self.center_sampling, self.center_sample_radius
        )
        check_fits(self, self.assigner)

    def _given_assigner(self) -> BatchAssigner | None:
        """Build the assigner of ``train_cfg``; return None without one, and for one of mmdet."""
        config = (self.train_cfg or {}).get('assigner')
        if config is None:
            return None
        kind = config['type']
        kind = kind if isinstance(kind, type) else TASK_UTILS.get(kind)
        ours = isinstance(kind, type) and issubclass(kind, BatchAssigner)
        return TASK_UTILS.build(config) if ours else None

    def centerness_target(self, pos_bbox_targets: Tensor) -> Tensor:
        """Compute the centerness of points from the distances to the sides of their boxes.

        Args:
            pos_bbox_targets: (N, 4) distances to the left, upper, right and lower side.

        Returns:
            Tensor: (N,) in [0, 1], 0 for points outside of the box.
        """
        low, high = pos_bbox_targets[:, :2], pos_bbox_targets[:, 2:]
        return centerness(torch.zeros_like(low), torch.cat([-low, high], 1))

    def decoded(self, priors: Priors, bbox_preds: Sequence[Tensor]) -> Tensor:
        """Decode the predicted boxes (B, P, 4), px."""
        points, strides = priors.as_points()
        flat = flat_levels(bbox_preds, 4).float()
        if self.norm_on_bbox and self.training:  # distances are in strides
            flat = flat * strides[:, :1]
        boxes: Tensor = self.bbox_coder.decode(points.expand(len(flat), -1, -1), flat)
        return boxes

    def batch_targets(
        self, points: Sequence[Tensor], batch_gt_instances: Sequence[InstanceData]
    ) -> Iterable[ImageTargets] | None:
        """Compute ``labels, distances to the sides`` of each image.

        Args:
            points: points (P_l, 2) per level, px.
            batch_gt_instances: boxes and labels per image.
        """
        if not have_tensors(batch_gt_instances):
            return None
        levels = [
            torch.cat([level, level.new_tensor(stride).expand_as(level)], dim=1)
            for level, stride in zip(points, self.prior_generator.strides, strict=True)
        ]
        # As in mmdet, options that were set after construction count.
        names = ('regress_ranges', 'center_sampling', 'center_sample_radius')
        for name in names if self._own_rule else ():
            setattr(self.assigner, name, getattr(self, name))
        geometry = batch_geometry(self.batch_priors(levels), batch_gt_instances)
        matched = self.match(self.assigner, geometry, None)
        center, box = matched.priors[:, :2], geometry.gt_boxes[matched.place[0], matched.box_index]
        sides = torch.cat([center - box[:, :2], box[:, 2:] - center], dim=1)
        return per_image(matched.spread(matched.labels, self.num_classes), matched.spread(sides))
