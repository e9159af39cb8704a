"""Head of YOLOv2: anchors found by k-means, in the cells of one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules.prior_generators import YOLOAnchorGenerator
from mmdet.registry import TASK_UTILS
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.detection.backbones.layers import BATCH_NORM, LEAKY_RELU, conv
from mmdet_ext.detection.heads.dense.batch_targets import BatchTargets, flat_levels
from mmdet_ext.detection.heads.dense.fitting import check_fits
from mmdet_ext.detection.heads.yolo.fitting import UsesLastMap, check_channels
from mmdet_ext.detection.heads.yolo.yolov1 import select_boxes
from mmdet_ext.detection.host import batch_geometry
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.functional.numerics.checks import check_count, check_that, check_whole, is_pair
from mmdet_ext.functional.yolo.v2 import YOLOV2Scales, decode_yolov2, yolov2_loss
from mmdet_ext.registry import MODELS

#: Width and height, in cells, of the authors' five anchors for Pascal VOC.
VOC_ANCHORS = (
    (1.3221, 1.73145),
    (3.19275, 4.00944),
    (5.05587, 8.09892),
    (9.47112, 4.84053),
    (11.2364, 10.0071),
)
#: The assigner of the paper: one anchor for each box; predictions above an IoU of 0.6 are ignored.
ASSIGNER = dict(type='mmdet_ext.YOLOv3Assigner', ignore_iou_thr=0.6)


@MODELS.register_module()
class YOLOV2Head(UsesLastMap, BatchTargets):
    """Head of YOLOv2 on one feature map.

    A 3x3 convolution and a 1x1 convolution give for each anchor of each cell a box, the IoU that
    the box is expected to have with an object, and a softmax over the classes. A ground truth
    belongs to the anchor of the most similar shape in the cell that holds its centre. The loss is
    :func:`mmdet_ext.functional.yolo.v2.yolov2_loss`: sums over the priors, means over the images.
    Scores are sigma(t_o) times the softmax. Boxes are clipped to their image.

    Args:
        num_classes: C.
        in_channels: channels of the map.
        anchors: width and height of each anchor, in cells; ``tools/data/anchors.py`` finds those
            of your data.
        stride: side of a cell, px.
        feat_channels: channels of the 3x3 convolution; 0 for none.
        scales: weights of the terms of the loss by name: ``coord``, ``object``, ``no_object``,
            ``classes``, ``prior``; those of the authors where a name is absent.
        prior_samples: number of training images during which all priors without a box also learn
            their own anchor. The buffer ``samples_seen`` counts the images of all processes, and
            is part of the checkpoint. 0 for none.
        norm_cfg: norm of the 3x3 convolution.
        act_cfg: activation of the 3x3 convolution.
        train_cfg: ``assigner``, any of ours for anchors or points; by default `YOLOv3Assigner`
            with ``ignore_iou_thr=0.6``.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms``, ``max_per_img`` and ``min_bbox_size``, as for
            mmdet's dense heads.
        init_cfg: by default normal weights of deviation 0.01.

    Raises:
        ValueError: if an option is out of its range, or the assigner is none of ours; if the size
            of the image is no multiple of the stride, the map has another stride or other
            channels, or a label is no class of the head.

    References:
        Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, 2017, section 2.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        anchors: Sequence[Sequence[float]] = VOC_ANCHORS,
        stride: int = 32,
        feat_channels: int = 1024,
        scales: dict[str, float] | None = None,
        prior_samples: int = 12_800,
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = LEAKY_RELU,
        train_cfg: Any = None,
        test_cfg: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Normal', layer='Conv2d', std=0.01))
        for name, value in (
            ('num_classes', num_classes),
            ('in_channels', in_channels),
            ('stride', stride),
        ):
            check_count(name, value)
        check_whole('feat_channels', feat_channels, 0)
        check_whole('prior_samples', prior_samples, 0)
        _check_anchors(anchors)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.stride = stride
        self.scales = _scales(scales)
        self.prior_samples = prior_samples
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg
        self.prior_generator = YOLOAnchorGenerator(
            strides=[stride],
            base_sizes=[[(width * stride, height * stride) for width, height in anchors]],
        )
        self.assigner = TASK_UTILS.build((train_cfg or {}).get('assigner', ASSIGNER))
        check_that(
            isinstance(self.assigner, BatchAssigner),
            'train_cfg.assigner',
            type(self.assigner).__name__,
            'an assigner of mmdet_ext',
            'leave it out for YOLOv3Assigner',
        )
        check_fits(self, self.assigner)
        self.register_buffer('samples_seen', torch.zeros((), dtype=torch.long))
        width = feat_channels or in_channels
        self.conv: nn.Module = nn.Identity()
        if feat_channels:
            self.conv = conv(in_channels, width, 3, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv_pred = nn.Conv2d(width, len(anchors) * self.num_attrib, 1)

    @property
    def num_attrib(self) -> int:
        """Numbers per prior: four of the box, one of the object, one per class."""
        return 5 + self.num_classes

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor]:
        """Compute the raw predictions.

        Args:
            x: maps of the network, of which the last, (B, in_channels, H, W), is used.

        Returns:
            tuple: one map (B, A (5 + C), H, W), for A anchors.

        Raises:
            ValueError: if the map has other channels.
        """
        check_channels(self, x[-1:], [self.in_channels])
        return (self.conv_pred(self.conv(x[-1])),)

    def loss_by_feat(
        self,
        pred_map: Tensor,
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms of the loss.

        Args:
            pred_map: (B, A (5 + C), H, W).
            batch_gt_instances: boxes (G_i, 4), px, and labels (G_i,) per image.
            batch_img_metas: meta information per image.
            batch_gt_instances_ignore: ignore regions per image, for assigners that use them.

        Returns:
            dict: ``loss_xy``, ``loss_wh``, ``loss_conf``, ``loss_noobj`` and ``loss_cls``; also
            ``loss_prior`` unless ``prior_samples`` is 0.

        Raises:
            ValueError: if a box is not finite, a label not in [0, C), or the map does not fit the
                images.
        """
        levels = self._priors(pred_map, batch_img_metas)
        flat = flat_levels([pred_map], self.num_attrib).float()
        geometry = batch_geometry(
            self.batch_priors(levels), batch_gt_instances, batch_gt_instances_ignore
        )
        geometry.check_ground_truth(self.num_classes)
        scores = flat.detach()[..., 4:5].sigmoid() * flat.detach()[..., 5:].softmax(-1)
        predictions = Predictions(
            boxes=decode_yolov2(flat.detach()[..., :4], levels[0], self.stride),
            probabilities=scores,
        )
        with torch.no_grad():
            matched = self.match(self.assigner, geometry, predictions)
        terms = yolov2_loss(
            flat,
            levels[0],
            self.stride,
            matched.assignment.gt_index,
            geometry.gt_boxes,
            geometry.gt_labels,
            self.scales,
        )
        names = ('loss_xy', 'loss_wh', 'loss_conf', 'loss_noobj', 'loss_cls')
        losses = {name: term.mean() for name, term in zip(names, terms[:5], strict=True)}
        if self.prior_samples:
            losses['loss_prior'] = terms.prior.mean() * (self.samples_seen < self.prior_samples)
        if self.training:
            self.samples_seen += len(flat) * get_world_size()
        return losses

    def predict_by_feat(
        self,
        pred_map: Tensor,
        batch_img_metas: Sequence[dict[str, Any]],
        cfg: Any = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Compute the detections of each image.

        Args:
            pred_map: (B, A (5 + C), H, W).
            batch_img_metas: meta information per image.
            cfg: options in place of ``test_cfg``.
            rescale: whether boxes are those of the image before its resize.
            with_nms: whether boxes that overlap are suppressed.
        """
        (priors,) = self._priors(pred_map, batch_img_metas)
        flat = flat_levels([pred_map], self.num_attrib).float()
        boxes = decode_yolov2(flat[..., :4], priors, self.stride)
        scores = flat[..., 4:5].sigmoid() * flat[..., 5:].softmax(-1)
        return [
            select_boxes(self, own, score, meta, cfg, rescale, with_nms)
            for own, score, meta in zip(boxes, scores, batch_img_metas, strict=True)
        ]

    def _priors(self, pred_map: Tensor, metas: Sequence[dict[str, Any]]) -> list[Tensor]:
        """Return the anchors (H W A, 4), corners, px, as the only level."""
        rows, columns = pred_map.shape[-2:]
        shape = metas[0].get('batch_input_shape')
        if shape is not None and tuple(shape) != (rows * self.stride, columns * self.stride):
            raise ValueError(
                f'a map of {rows} x {columns} cells (height x width) of stride={self.stride} '
                f'covers images of {rows * self.stride} x {columns * self.stride} px, but the '
                f'batch has {shape[0]} x {shape[1]} px. Pad the images to multiples of the stride '
                '(pad_size_divisor of the data preprocessor), or set stride to that of the network'
            )
        levels: list[Tensor] = self.prior_generator.grid_priors(
            [(rows, columns)], device=pred_map.device
        )
        return levels


def _check_anchors(anchors: Any) -> None:
    """Raise ValueError unless anchors are pairs of numbers above 0."""
    fits = isinstance(anchors, Sequence) and len(anchors) > 0
    check_that(
        fits and all(is_pair(pair) and min(pair) > 0 for pair in anchors),
        'anchors',
        anchors,
        'pairs of width and height in cells, above 0, one pair for each anchor',
    )


def _scales(given: dict[str, float] | None) -> YOLOV2Scales:
    given = dict(given or {})
    unknown = sorted(set(given) - set(YOLOV2Scales._fields))
    check_that(not unknown, 'scales', unknown, f'among {", ".join(YOLOV2Scales._fields)}')
    return YOLOV2Scales(**given)
