"""Head of NanoDet-Plus: one light branch per level for class and box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmcv.cnn import DepthwiseSeparableConvModule
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.models.utils import unpack_gt_instances
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_ext.detection.backbones.layers import BATCH_NORM, LEAKY_RELU
from mmdet_ext.detection.heads.dense.batch_targets import flat_levels
from mmdet_ext.detection.heads.dense.fitting import (
    as_points,
    check_labels,
    check_level_count,
    check_strides,
)
from mmdet_ext.detection.heads.dense.gfl import GFLHead
from mmdet_ext.functional.boxes.overlap import box_iou
from mmdet_ext.functional.numerics.checks import check_count, check_that
from mmdet_ext.registry import MODELS

#: Class scores (B, C, H, W) and logits of distances (B, 4 (n + 1), H, W), per level.
Outputs = tuple[Sequence[Tensor], Sequence[Tensor]]

#: Side of an anchor in strides. Only assigners for anchors use it, as NanoDet's ATSS did.
ANCHOR_SIDE = 5


class Targets(NamedTuple):
    """Targets of all priors of a batch, in a row: image by image, in it level by level.

    P is the number of priors of an image, N that of the positives of the batch.

    Attributes:
        labels: (B * P,), ``num_classes`` for the background.
        weights: (B * P,) in the loss of the scores, 0 for ignored priors.
        scores: (B * P,) IoU of the predicted box with its ground truth, 0 for the background.
        positive: (N,) indices of the positives.
        points: (N, 2) their centres, px.
        strides: (N, 1), px.
        boxes: (N, 4) their ground truth, px.
        divisor: number by which the loss of the scores is divided, the mean over the ranks.
    """

    labels: Tensor
    weights: Tensor
    scores: Tensor
    positive: Tensor
    points: Tensor
    strides: Tensor
    boxes: Tensor
    divisor: Tensor


@MODELS.register_module()
class NanoDetPlusHead(GFLHead):
    r"""Head of NanoDet-Plus: GFL on a light branch of its own for each level.

    Each level has ``stacked_convs`` depthwise separable convolutions, from which one 1x1
    convolution computes the scores of the classes and the distributions of the four distances
    together. The priors are the upper left corners of the cells, :math:`(s x, s y)` for cell
    :math:`(x, y)` of stride s, without the half cell that mmdet's heads add.

    The losses are those of generalised focal loss, with targets from one assignment:

    .. math::
        L_{cls} &= \frac{1}{N} \sum QFL(\sigma_i, u_i) \\
        L_{bbox} &= \frac{2}{W} \sum_{i \in pos} w_i \, GIoU(b_i, g_i) \\
        L_{dfl} &= \frac{0.25}{4 W} \sum_{i \in pos} w_i \sum_{k=1}^{4} DFL(p_{ik}, d_{ik})

    with N the number of positives, :math:`w_i = \max_c \sigma_{ic}` without gradient, :math:`W =
    \sum w_i`, :math:`g_i` the ground truth of prior i, :math:`d_{ik}` its distances in strides, at
    most ``reg_max`` - 0.1, and :math:`u_i` the IoU with :math:`g_i` of the box by which the prior
    was assigned. N and W are means over the ranks, at least 1.

    With a guide (`guided_loss`) the outputs of another head decide the assignment and :math:`u_i`,
    and the guide gets losses with the same targets. `NanoDetPlus` has such a guide.

    Any assigner of ours will do. Those for anchors get squares of 5 strides.

    Args:
        num_classes: number of classes.
        in_channels: channels of the maps of the neck.
        feat_channels: channels of the branches.
        stacked_convs: convolutions of a branch.
        kernel_size: side of their depthwise kernels, odd.
        strides: strides of the levels, px.
        reg_max: largest distance, in strides.
        norm_cfg: norm behind each convolution.
        act_cfg: activation.
        loss_cls: loss of scores; quality focal loss by default.
        loss_bbox: loss of boxes, px; GIoU by default.
        loss_dfl: loss of distributions; distribution focal loss by default.
        init_cfg: by default deviations of 0.01, and scores of 0.01.
        **kwargs: further arguments of mmdet's ``GFLHead``: ``train_cfg``, ``test_cfg``,
            ``anchor_generator``.

    Raises:
        ValueError: if an option is out of its range, or the assigner does not fit.

    References:
        RangiLyu, NanoDet-Plus, 2021, https://github.com/RangiLyu/nanodet; Li et al., Generalized
        Focal Loss, 2020, section 3.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 96,
        feat_channels: int = 96,
        stacked_convs: int = 2,
        kernel_size: int = 5,
        strides: Sequence[int] = (8, 16, 32, 64),
        reg_max: int = 7,
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = LEAKY_RELU,
        loss_cls: Any = None,
        loss_bbox: Any = None,
        loss_dfl: Any = None,
        init_cfg: Any = None,
        **kwargs: Any,
    ) -> None:
        for name, value in (('stacked_convs', stacked_convs), ('kernel_size', kernel_size)):
            check_count(name, value)
        check_that(kernel_size % 2 == 1, 'kernel_size', kernel_size, 'odd')
        check_count('reg_max', reg_max)
        self.kernel_size = kernel_size
        kwargs.setdefault('anchor_generator', corner_anchors(strides))
        if loss_cls is not None and not loss_cls.get('use_sigmoid', False):
            raise ValueError(
                f'loss_cls={loss_cls["type"]} of NanoDetPlusHead needs use_sigmoid=True in its '
                'config: the head has a score per class, and none for the background'
            )
        super().__init__(
            num_classes,
            in_channels,
            feat_channels=feat_channels,
            stacked_convs=stacked_convs,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            reg_max=reg_max,
            loss_cls=loss_cls or dict(type='mmdet_ext.QualityFocalLoss', use_sigmoid=True),
            loss_bbox=loss_bbox or dict(type='mmdet_ext.GIoULoss', loss_weight=2.0),
            loss_dfl=loss_dfl or dict(type='mmdet_ext.DistributionFocalLoss', loss_weight=0.25),
            init_cfg=init_cfg
            or dict(
                type='Normal',
                layer='Conv2d',
                std=0.01,
                override=dict(type='Normal', name='gfl_cls', std=0.01, bias_prob=0.01),
            ),
            **kwargs,
        )

    def _init_layers(self) -> None:
        cfg = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)

        def branch() -> nn.Sequential:
            widths = [self.in_channels] + [self.feat_channels] * (self.stacked_convs - 1)
            return nn.Sequential(
                *(
                    DepthwiseSeparableConvModule(
                        width,
                        self.feat_channels,
                        self.kernel_size,
                        padding=self.kernel_size // 2,
                        **cfg,
                    )
                    for width in widths
                )
            )

        levels = range(self.prior_generator.num_levels)
        columns = self.cls_out_channels + 4 * (self.reg_max + 1)
        self.cls_convs = nn.ModuleList(branch() for _ in levels)
        self.gfl_cls = nn.ModuleList(nn.Conv2d(self.feat_channels, columns, 1) for _ in levels)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the outputs of each level.

        Args:
            x: maps (B, in_channels, H, W), one per level.

        Returns:
            tuple: logits of the classes (B, C, H, W) per level, and of the distances
            (B, 4 * (``reg_max`` + 1), H, W).
        """
        check_level_count(self, x)
        scores, distances = [], []
        for each, branch, last in zip(x, self.cls_convs, self.gfl_cls, strict=True):
            both = last(branch(each))
            scores.append(both[:, : self.cls_out_channels])
            distances.append(both[:, self.cls_out_channels :])
        return scores, distances

    def guided_loss(
        self, x: Sequence[Tensor], batch_data_samples: Sequence[Any], guide: Outputs
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch whose assignment a guide decides.

        Args:
            x: maps, one per level.
            batch_data_samples: mmdet's data samples, with ground truth.
            guide: outputs of the guide, in the form of `forward`.
        """
        check_strides(self, x, batch_data_samples)
        check_labels(self, batch_data_samples)
        boxes, ignored, metas = unpack_gt_instances(batch_data_samples)
        scores, distances = self(x)
        return self.loss_by_feat(scores, distances, boxes, metas, ignored, guide)

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
        guide: Outputs | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            cls_scores: logits (B, C, H, W) per level.
            bbox_preds: logits of the distances (B, 4 * (``reg_max`` + 1), H, W) per level.
            batch_gt_instances: boxes and labels per image.
            batch_img_metas: meta information per image.
            batch_gt_instances_ignore: ignore regions per image.
            guide: outputs that decide the assignment; None for those of the head itself.

        Returns:
            dict: ``loss_cls``, ``loss_bbox`` and ``loss_dfl``, and, with a guide, its own as
            ``aux_loss_cls``, ``aux_loss_bbox`` and ``aux_loss_dfl``.
        """
        own = (cls_scores, bbox_preds)
        targets = self._targets(
            own if guide is None else guide,
            batch_gt_instances,
            batch_img_metas,
            batch_gt_instances_ignore,
        )
        losses = self._losses(own, targets)
        if guide is not None:
            losses |= {f'aux_{name}': loss for name, loss in self._losses(guide, targets).items()}
        return losses

    @torch.no_grad()
    def _targets(
        self,
        deciding: Outputs,
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None,
    ) -> Targets:
        """Assign the batch by some outputs, and compute all targets."""
        scores, distances = deciding
        sizes = [each.shape[-2:] for each in scores]
        anchors, flags = self.get_anchors(sizes, batch_img_metas, device=scores[0].device)
        # Before get_targets, which joins the levels of the anchors in place.
        priors = as_points(self.batch_priors(anchors[0]), self.prior_generator)
        with self.outputs_kept(*deciding):
            _, labels, weights, boxes, _, count = self.get_targets(
                anchors,
                flags,
                batch_gt_instances,
                batch_img_metas,
                batch_gt_instances_ignore=batch_gt_instances_ignore,
            )
        labels, weights = (torch.cat(list(part), 1).flatten() for part in (labels, weights))
        positive = ((labels >= 0) & (labels < self.num_classes)).nonzero()[:, 0]
        boxes = torch.cat(list(boxes), 1).flatten(0, 1)[positive]
        place = positive % len(priors)
        points, strides = (part[place] for part in priors.as_points())
        logits = flat_levels(distances, 4 * (self.reg_max + 1)).flatten(0, 1)[positive].float()
        quality = labels.new_zeros(labels.shape, dtype=boxes.dtype)
        quality[positive] = box_iou(self.boxes_of(points, strides[:, :1], logits), boxes)
        if type(self.sampler) is PseudoSampler:  # mmdet counts at least 1 per image
            count = len(positive)
        total = reduce_mean(labels.new_tensor(count, dtype=torch.float)).clamp(min=1)
        return Targets(labels, weights, quality, positive, points, strides[:, :1], boxes, total)

    def _losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Compute the losses of some outputs by the targets of the batch."""
        scores = flat_levels(outputs[0], self.cls_out_channels).flatten(0, 1).float()
        logits = flat_levels(outputs[1], 4 * (self.reg_max + 1)).flatten(0, 1)
        logits = logits[targets.positive].float()
        weight = scores.detach()[targets.positive].sigmoid().amax(1)
        total = reduce_mean(weight.sum()).clamp(min=1)
        units = targets.strides
        sides = self.bbox_coder.encode(
            targets.points / units, targets.boxes / units, max_dis=self.reg_max
        )
        return dict(
            loss_cls=self.loss_cls(
                scores,
                (targets.labels, targets.scores),
                weight=targets.weights,
                avg_factor=targets.divisor,
            ),
            loss_bbox=self.loss_bbox(
                self.boxes_of(targets.points, units, logits),
                targets.boxes,
                weight=weight,
                avg_factor=total,
            ),
            loss_dfl=self.loss_dfl(
                logits.reshape(-1, self.reg_max + 1),
                sides.reshape(-1),
                weight=weight[:, None].expand(-1, 4).reshape(-1),
                avg_factor=4.0 * total,
            ),
        )


def corner_anchors(strides: Sequence[int]) -> dict[str, Any]:
    """Return the config of a generator of squares around the upper left corners of all cells.

    Args:
        strides: of the levels, px.
    """
    return dict(
        type='AnchorGenerator',
        ratios=[1.0],
        octave_base_scale=ANCHOR_SIDE,
        scales_per_octave=1,
        strides=list(strides),
        center_offset=0.0,
    )
