"""SSD's head with its losses as options."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import SSDHead as StockSSDHead
from torch import Tensor

from mmdet_ext.registry import MODELS


@MODELS.register_module()
class SSDHead(StockSSDHead):  # type: ignore[misc]
    """SSD's head whose losses are options; by default stock's, mining included.

    Stock's ``SSDHead`` computes cross entropy, its mining and smooth L1 itself, and takes no
    loss. This one is stock's otherwise, and of equal losses where none is given.

    Args:
        *args: as stock's.
        loss_cls: config of a softmax loss over ``num_classes + 1`` columns, called a picture.
            None is `OHEMLoss` around cross entropy, with ``train_cfg.neg_pos_ratio`` negatives a
            positive (3 where that is absent). A loss given here without mining counts all priors.
        loss_bbox: config of a box loss. None is smooth L1 with ``train_cfg.smoothl1_beta`` (1
            where that is absent). Losses on boxes, such as IoU losses, need
            ``reg_decoded_bbox=True``.
        **kwargs: as stock's.

    Raises:
        ValueError: if ``loss_cls`` is a sigmoid loss.
    """

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
        """The losses of one picture.

        Args:
            cls_score: (P, num_classes + 1).
            bbox_pred: (P, 4), encoded.
            anchor: (P, 4), px.
            labels: (P,), the background is ``num_classes``.
            label_weights: (P,).
            bbox_targets: (P, 4), encoded, or px for ``reg_decoded_bbox``.
            bbox_weights: (P, 4).
            avg_factor: positives of the whole batch.

        Returns:
            tuple: classification loss (1,), box loss, a scalar.
        """
        loss_cls = self.loss_cls(cls_score, labels, label_weights, avg_factor=avg_factor)
        if self.reg_decoded_bbox:
            bbox_pred = self.bbox_coder.decode(anchor, bbox_pred)
        loss_bbox = self.loss_bbox(bbox_pred, bbox_targets, bbox_weights, avg_factor=avg_factor)
        return loss_cls[None], loss_bbox
