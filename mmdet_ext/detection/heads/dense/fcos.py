"""Head of FCOS that computes the targets of a batch at once, with the quality as an option."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from mmdet.models.dense_heads import FCOSHead as MMDetFCOSHead
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.registry import TASK_UTILS
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.detection.assigners.fcos import FCOSAssigner
from mmdet_ext.detection.heads.dense.anchor_targets import KeepsOutputs
from mmdet_ext.detection.heads.dense.batch_targets import ImageTargets, flat_levels, per_image
from mmdet_ext.detection.heads.dense.fitting import check_fits
from mmdet_ext.detection.host import batch_geometry, have_tensors
from mmdet_ext.functional.assignment.fcos import centerness
from mmdet_ext.functional.assignment.geometry import Priors
from mmdet_ext.functional.boxes.overlap import box_iou
from mmdet_ext.functional.numerics.checks import check_one_of
from mmdet_ext.registry import MODELS


class FCOSLosses(MMDetFCOSHead):  # type: ignore[misc]
    """mmdet's ``FCOSHead`` with the quality of a box, and its use as a weight, as options.

    `FCOSHead`, which documents the options, adds the targets of a batch at once.
    """

    def __init__(
        self,
        *args: Any,
        quality: Literal['centerness', 'iou'] = 'centerness',
        box_weight: Literal['quality'] | None = 'quality',
        **kwargs: Any,
    ) -> None:
        check_one_of('quality', quality, ('centerness', 'iou'))
        check_one_of('box_weight', box_weight, ('quality', None))
        super().__init__(*args, **kwargs)
        self.quality = quality
        self.box_weight = box_weight
        if len(self.regress_ranges) != len(self.strides):
            raise ValueError(
                f'regress_ranges has {len(self.regress_ranges)} levels, but strides '
                f'{list(self.strides)} has {len(self.strides)}. Give one range (from, to), in px, '
                'per level'
            )

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        centernesses: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            cls_scores: logits (B, C, H, W) per level.
            bbox_preds: predicted distances (B, 4, H, W) per level, px, or in strides for
                ``norm_on_bbox``.
            centernesses: logits of the quality (B, 1, H, W) per level.
            batch_gt_instances: boxes and labels per image.
            batch_img_metas: meta information per image, which is not used.
            batch_gt_instances_ignore: ignore regions per image, which do not count.

        Returns:
            dict: ``loss_cls``, ``loss_bbox`` and ``loss_centerness``, the loss of the quality.
        """
        sizes = [each.shape[-2:] for each in cls_scores]
        levels = self.prior_generator.grid_priors(
            sizes, dtype=bbox_preds[0].dtype, device=bbox_preds[0].device
        )
        labels, sides = (torch.cat(part) for part in self.get_targets(levels, batch_gt_instances))
        scores = _by_level(cls_scores, self.cls_out_channels)
        positive = ((labels >= 0) & (labels < self.num_classes)).nonzero().squeeze(1)
        count = reduce_mean(torch.tensor(float(len(positive)), device=scores.device)).clamp(min=1)
        losses = dict(loss_cls=self.loss_cls(scores, labels, avg_factor=count))
        if getattr(self.loss_cls, 'custom_accuracy', False):
            losses.update(self.loss_cls.get_accuracy(scores, labels))
        points = torch.cat([level.repeat(len(cls_scores[0]), 1) for level in levels])
        losses['loss_bbox'], losses['loss_centerness'] = self._box_losses(
            points[positive],
            _by_level(bbox_preds, 4)[positive],
            _by_level(centernesses, 1).squeeze(1)[positive],
            sides[positive],
            count,
        )
        return losses

    def _box_losses(
        self, points: Tensor, distances: Tensor, logits: Tensor, sides: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the losses of the boxes and of their quality.

        Args:
            points: positives (N, 2), px.
            distances: predicted distances to the sides (N, 4).
            logits: predicted quality (N,).
            sides: true distances to the sides (N, 4).
            count: number of positives, the mean over the ranks.
        """
        boxes, targets = (self.bbox_coder.decode(points, each) for each in (distances, sides))
        if self.quality == 'iou':
            quality = box_iou(boxes.detach(), targets)
        else:
            quality = self.centerness_target(sides)
        weight, divisor = None, count
        if self.box_weight == 'quality':  # before the return, as all ranks take part in the mean
            weight, divisor = quality, reduce_mean(quality.sum()).clamp(min=1e-6)
        if len(points) == 0:
            return distances.sum(), logits.sum()
        return (
            self.loss_bbox(boxes, targets, weight=weight, avg_factor=divisor),
            self.loss_centerness(logits, quality, avg_factor=count),
        )


@MODELS.register_module()
class FCOSHead(KeepsOutputs, FCOSLosses):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``FCOSHead``, with the steps of its authors as options.

    By default weights and losses are mmdet's. The head builds our `FCOSAssigner` from its own
    options, unless ``train_cfg.assigner`` is another assigner of ours for points. Like mmdet's
    head, it does not use an assigner of mmdet. Its targets have no weights: a point that an
    assigner ignores is background, and ignore regions do not count, as in mmdet.

    A point also learns a quality of its box, by which its score is multiplied in a test. The
    centerness of a point is that of its place in the ground truth, 0 outside of it; the IoU is
    that of the box predicted at the point, without gradient. A point with a small centerness may
    predict a good box, which then has a small score. The branch that predicts it is mmdet's option
    ``centerness_on_reg``; its weights and its loss are called centerness for either quality.

    Args:
        *args: arguments of mmdet's ``FCOSHead``.
        quality: 'centerness', or 'iou' for the IoU of the predicted box with the ground truth.
        box_weight: 'quality' weighs the box loss of each positive by its quality, and divides by
            their sum, as mmdet's head; None weighs all alike, and divides by their number.
        **kwargs: keyword arguments of mmdet's ``FCOSHead``, of which ``center_sampling``,
            ``norm_on_bbox`` and ``centerness_on_reg`` are steps of the authors too.

    Raises:
        ValueError: if an option is none of its values, or ``regress_ranges`` and ``strides`` have
            different levels.

    References:
        Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, 2019, section 3.3, and
        the improvements of table 3.
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


def _by_level(maps: Sequence[Tensor], columns: int) -> Tensor:
    """Flatten levels (B, D, H, W) to rows (N, D): level by level, and in it image by image.

    Args:
        maps: outputs per level.
        columns: D.
    """
    return torch.cat([flat_levels([each], columns).flatten(0, 1) for each in maps])
