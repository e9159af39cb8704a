"""Head of SSD whose losses are options, and that computes the targets of a batch at once."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import SSDHead as MMDetSSDHead
from torch import Tensor

from mmdet_ext.detection.heads.dense.anchor_targets import AnchorTargets
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class SSDHead(AnchorTargets, MMDetSSDHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``SSDHead`` whose losses are options.

    mmdet's ``SSDHead`` has cross entropy, hard-negative mining and smooth L1 in its code and takes
    no other loss. This head takes any, and computes the same losses as mmdet's by default. Use it
    with our `MaxIoUAssigner`, or any other of ours: the targets of a batch are then computed at
    once (see `BatchTargets`). Assigners that use predictions get the softmax without the
    background. All else is mmdet's.

    Args:
        *args: arguments of mmdet's ``SSDHead``.
        loss_cls: config of a softmax loss over ``num_classes + 1`` columns. It is called once per
            image. None is `OHEMLoss` around cross entropy, with ``train_cfg.neg_pos_ratio``
            negatives per positive (3 where that is absent). A loss without mining counts all
            priors.
        loss_bbox: config of a box loss. None is smooth L1 with ``train_cfg.smoothl1_beta`` (1
            where that is absent). Losses on boxes, such as IoU losses, need
            ``reg_decoded_bbox=True``.
        **kwargs: keyword arguments of mmdet's ``SSDHead``.

    Raises:
        ValueError: if ``loss_cls`` is a sigmoid loss.
    """

    returns_anchors = False

    def __init__(
        self,
        *args: Any,
        loss_cls: dict[str, Any] | None = None,
        loss_bbox: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        options = self.train_cfg or {}
        if loss_cls is None:
            loss_cls = dict(
                type='mmdet_ext.OHEMLoss',
                loss=dict(type='mmdet_ext.CrossEntropyLoss'),
                negatives_per_positive=options.get('neg_pos_ratio', 3),
            )
        if loss_bbox is None:
            loss_bbox = dict(type='mmdet_ext.SmoothL1Loss', beta=options.get('smoothl1_beta', 1.0))
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        if getattr(self.loss_cls, 'use_sigmoid', False):
            raise ValueError(
                f'loss_cls={loss_cls["type"]} is a sigmoid loss, but SSDHead gives '
                f'{self.cls_out_channels} softmax columns, the last one the background. Write '
                'use_sigmoid=False, or take a loss that has it'
            )

    def loss_by_feat_single(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        anchor: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        avg_factor: float,
    ) -> tuple[Tensor, Tensor]:
        """Compute the losses of one image.

        Args:
            cls_score: logits (P, num_classes + 1), the last column for the background.
            bbox_pred: encoded boxes (P, 4).
            anchor: anchors (P, 4), corners, px.
            labels: (P,), ``num_classes`` for the background.
            label_weights: (P,).
            bbox_targets: (P, 4), encoded, or in px for ``reg_decoded_bbox``.
            bbox_weights: (P, 4).
            avg_factor: number of positives of the whole batch.

        Returns:
            tuple: classification loss (1,), and box loss, a scalar.
        """
        loss_cls = self.loss_cls(cls_score, labels, label_weights, avg_factor=avg_factor)
        if self.reg_decoded_bbox:
            bbox_pred = self.bbox_coder.decode(anchor, bbox_pred)
        loss_bbox = self.loss_bbox(bbox_pred, bbox_targets, bbox_weights, avg_factor=avg_factor)
        return loss_cls[None], loss_bbox
