"""Head of YOLOv1: two boxes and one set of classes for each cell of a 7 x 7 grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.utils import filter_scores_and_topk
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_ext.detection.heads.yolo.fitting import UsesLastMap, check_channels
from mmdet_ext.detection.host import batch_geometry
from mmdet_ext.functional.assignment.geometry import Priors
from mmdet_ext.functional.numerics.checks import check_count, check_number
from mmdet_ext.functional.yolo.v1 import decode_yolov1, split_yolov1, yolov1_loss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class YOLOV1Head(UsesLastMap):
    """Head of YOLOv1 on one feature map.

    The map is S x S, and so is the grid: cells lie on the images as the batch pads them. Give all
    images one size, by a resize that does not keep the ratio, as the paper does, or by padding. A
    cell predicts ``boxes_per_cell`` boxes and one set of classes, so that it finds one class.
    The loss, the rule that assigns, and what the numbers stand for are in
    :mod:`mmdet_ext.functional.yolo.v1`. Losses are sums over the cells, and means over the images.
    Ignore regions do not count.

    The score of a box for a class is its confidence times the probability of the class, each
    bounded to [0, 1], as plain numbers may leave it. Boxes are clipped to their image.

    Args:
        num_classes: C.
        in_channels: channels of the map.
        grid_size: S, side of the map and of the grid.
        boxes_per_cell: boxes of each cell.
        fc_channels: width of the hidden fully connected layer, which sees the whole map, as in the
            paper; None for a 1x1 convolution in place of both layers.
        dropout: probability of the dropout before the last layer, in [0, 1); not for
            ``fc_channels=None``.
        lambda_coord: weight of centres and sizes in the loss.
        lambda_noobj: weight of the confidence of boxes without an object.
        train_cfg: not used.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms``, ``max_per_img`` and ``min_bbox_size``, as for
            mmdet's dense heads.
        init_cfg: by default normal weights of deviation 0.01.

    Raises:
        ValueError: if an option is out of its range; if a map is not S x S, or has other channels;
            if a label is no class of the head.

    References:
        Redmon et al., You Only Look Once: Unified, Real-Time Object Detection, 2016.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        grid_size: int = 7,
        boxes_per_cell: int = 2,
        fc_channels: int | None = 4096,
        dropout: float = 0.5,
        lambda_coord: float = 5.0,
        lambda_noobj: float = 0.5,
        train_cfg: Any = None,
        test_cfg: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Normal', layer=['Conv2d', 'Linear'], std=0.01))
        for name, value in (
            ('num_classes', num_classes),
            ('in_channels', in_channels),
            ('grid_size', grid_size),
            ('boxes_per_cell', boxes_per_cell),
        ):
            check_count(name, value)
        check_number('lambda_coord', lambda_coord, least=0, finite=True)
        check_number('lambda_noobj', lambda_noobj, least=0, finite=True)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.grid_size = grid_size
        self.boxes_per_cell = boxes_per_cell
        self.lambda_coord = lambda_coord
        self.lambda_noobj = lambda_noobj
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg
        numbers = 5 * boxes_per_cell + num_classes
        if fc_channels is None:
            self.layers: nn.Module = nn.Conv2d(in_channels, numbers, 1)
            return
        check_count('fc_channels', fc_channels)
        check_number('dropout', dropout, 'in [0, 1)', least=0, below=1)
        cells = grid_size**2
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_channels * cells, fc_channels),
            nn.LeakyReLU(0.1),
            nn.Dropout(dropout),
            nn.Linear(fc_channels, numbers * cells),
            nn.Unflatten(1, (numbers, grid_size, grid_size)),
        )

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor]:
        """Compute the numbers of all cells.

        Args:
            x: maps of the network, of which the last, (B, in_channels, S, S), is used.

        Returns:
            tuple: one map (B, 5 boxes_per_cell + C, S, S).

        Raises:
            ValueError: if the map has another size, or other channels.
        """
        check_channels(self, x[-1:], [self.in_channels])
        features = x[-1]
        height, width = features.shape[-2:]
        if (height, width) != (self.grid_size, self.grid_size):
            raise ValueError(
                f'grid_size={self.grid_size} needs a map of {self.grid_size} x {self.grid_size}, '
                f'but got one of {height} x {width} (height x width). Resize the images to '
                f'{self.grid_size} times the stride of the network per side, with '
                'keep_ratio=False, or set grid_size to the side of a square map'
            )
        return (self.layers(features),)

    def loss_by_feat(
        self,
        pred_map: Tensor,
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the five terms of equation 3 of the paper.

        Args:
            pred_map: (B, 5 boxes_per_cell + C, S, S).
            batch_gt_instances: boxes (G_i, 4), px, and labels (G_i,) per image.
            batch_img_metas: meta information per image.
            batch_gt_instances_ignore: not used.

        Returns:
            dict: ``loss_xy``, ``loss_wh``, ``loss_conf``, ``loss_noobj`` and ``loss_cls``.

        Raises:
            ValueError: if a box is not finite, or a label not in [0, C).
        """
        geometry = batch_geometry(Priors(corners=pred_map.new_zeros((0, 4))), batch_gt_instances)
        geometry.check_ground_truth(self.num_classes)
        height, width = input_size(batch_img_metas)
        boxes = geometry.gt_boxes.float()
        terms = yolov1_loss(
            split_yolov1(pred_map.permute(0, 2, 3, 1), self.boxes_per_cell),
            boxes / boxes.new_tensor([width, height, width, height]),
            geometry.gt_labels,
            geometry.gt_valid,
            self.lambda_coord,
            self.lambda_noobj,
        )
        names = ('loss_xy', 'loss_wh', 'loss_conf', 'loss_noobj', 'loss_cls')
        return {name: term.mean() for name, term in zip(names, terms, strict=True)}

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
            pred_map: (B, 5 boxes_per_cell + C, S, S).
            batch_img_metas: meta information per image.
            cfg: options in place of ``test_cfg``.
            rescale: whether boxes are those of the image before its resize.
            with_nms: whether boxes that overlap are suppressed.
        """
        cells = split_yolov1(pred_map.permute(0, 2, 3, 1).float(), self.boxes_per_cell)
        height, width = input_size(batch_img_metas)
        boxes = decode_yolov1(cells.boxes)
        boxes = boxes * boxes.new_tensor([width, height, width, height])
        scores = cells.confidence.clamp(0, 1)[..., None] * cells.classes.clamp(0, 1)[..., None, :]
        return [
            select_boxes(self, own, score, meta, cfg, rescale, with_nms)
            for own, score, meta in zip(
                boxes.flatten(1, 3), scores.flatten(1, 3), batch_img_metas, strict=True
            )
        ]


def input_size(batch_img_metas: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Return height and width, px, of the images of a batch as the network gets them.

    Args:
        batch_img_metas: meta information per image, with ``batch_input_shape`` from mmdet's data
            preprocessor; without it the largest ``img_shape`` counts.
    """
    shapes = [meta.get('batch_input_shape', meta['img_shape'])[:2] for meta in batch_img_metas]
    heights, widths = zip(*shapes, strict=True)
    return max(heights), max(widths)


def select_boxes(
    head: BaseDenseHead,
    boxes: Tensor,
    scores: Tensor,
    meta: dict[str, Any],
    cfg: Any,
    rescale: bool,
    with_nms: bool,
    clip_first: bool = True,
) -> InstanceData:
    """Select the detections of an image by score, and suppress those that overlap.

    Args:
        head: head with ``test_cfg``.
        boxes: (P, 4) corners, px, which are clipped to the image.
        scores: (P, C).
        meta: meta information of the image.
        cfg: options in place of ``test_cfg``.
        rescale: whether boxes are those of the image before its resize.
        with_nms: whether boxes that overlap are suppressed.
        clip_first: whether boxes are clipped before those that overlap are suppressed, or after.
    """
    cfg = head.test_cfg if cfg is None else cfg
    if clip_first:
        boxes = clipped(boxes, meta)
    most = cfg.get('nms_pre', -1)
    # mmdet's function drops the last of the scores where the number is below 0.
    most = most if most > 0 else scores.numel()
    kept, labels, place, _ = filter_scores_and_topk(scores, cfg.get('score_thr', 0), most)
    found = InstanceData(bboxes=boxes[place], scores=kept, labels=labels)
    found = head._bbox_post_process(found, cfg, rescale, with_nms, meta)
    if not clip_first:
        found.bboxes = clipped(found.bboxes, meta, rescale)
    return found


def clipped(boxes: Tensor, meta: dict[str, Any], rescaled: bool = False) -> Tensor:
    """Clip boxes (N, 4), corners, px, to an image.

    Args:
        boxes: the boxes.
        meta: meta information of the image.
        rescaled: whether boxes are those of the image before its resize.
    """
    height, width = meta['img_shape'][:2]
    sides = boxes.new_tensor([width, height, width, height])
    if rescaled:
        sides = sides / sides.new_tensor(meta['scale_factor'] * 2)
    return torch.minimum(boxes.clamp(min=0), sides)
