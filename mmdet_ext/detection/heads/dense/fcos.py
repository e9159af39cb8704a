"""Head of FCOS that computes the targets of a batch at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead as MMDetFCOSHead
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.detection.assigners.fcos import FCOSAssigner
from mmdet_ext.detection.heads.dense.batch_targets import (
    BatchTargets,
    ImageTargets,
    MatchedBatch,
    per_image,
)
from mmdet_ext.detection.host import batch_geometry, have_tensors
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class FCOSHead(BatchTargets, MMDetFCOSHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``FCOSHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. The head builds our `FCOSAssigner` from its own
    options. Like mmdet's head, it does not use an assigner of ``train_cfg``.
    """

    gives_points = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.assigner = FCOSAssigner(
            self.regress_ranges, self.center_sampling, self.center_sample_radius
        )

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
        for name in ('regress_ranges', 'center_sampling', 'center_sample_radius'):
            setattr(self.assigner, name, getattr(self, name))
        geometry = batch_geometry(self.batch_priors(levels), batch_gt_instances)
        matched = MatchedBatch(geometry, self.assigner.match(geometry))
        center, box = matched.priors[:, :2], geometry.gt_boxes[matched.place[0], matched.box_index]
        sides = torch.cat([center - box[:, :2], box[:, 2:] - center], dim=1)
        return per_image(matched.spread(matched.labels, self.num_classes), matched.spread(sides))
