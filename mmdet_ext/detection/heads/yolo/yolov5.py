"""Head of YOLOv5: anchors on several levels, with a loss balanced over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models.task_modules.prior_generators import YOLOAnchorGenerator
from mmdet.registry import TASK_UTILS
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.detection.heads.dense.batch_targets import BatchTargets, flat_levels
from mmdet_ext.detection.heads.dense.fitting import check_fits, check_level_count
from mmdet_ext.detection.heads.dense.matched_batch import MatchedBatch
from mmdet_ext.detection.heads.yolo.anchor_watch import AnchorWatch
from mmdet_ext.detection.heads.yolo.fitting import check_channels
from mmdet_ext.detection.heads.yolo.yolov1 import select_boxes
from mmdet_ext.detection.host import batch_geometry
from mmdet_ext.functional.assignment.claims import IGNORE
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.functional.numerics.checks import check_count, check_number, check_that, is_pair
from mmdet_ext.functional.yolo.v5 import (
    decode_yolov5,
    level_means,
    objectness_target,
    yolov5_scales,
)
from mmdet_ext.registry import MODELS

#: Width and height, px, of the authors' anchors for COCO at 640 px, for the strides 8, 16 and 32.
COCO_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
#: The terms of the loss, with the weights of the authors' settings for n and s.
LOSS_CLS = dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5)
LOSS_BBOX = dict(type='mmdet_ext.CIoULoss', eps=1e-12, aspect_thr=None, loss_weight=0.05)
LOSS_OBJ = dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)
ASSIGNER = dict(type='mmdet_ext.YOLOv5Assigner', ratio_thr=4.0)

#: Objects expected in an image of this side, px, and share of a class, for the first biases.
EXPECTED_OBJECTS, EXPECTED_SIDE, EXPECTED_SHARE = 8, 640, 0.6


class DecodedLevel(NamedTuple):
    """Decoded priors of one level.

    Attributes:
        scores: (B, P_l, C) probabilities of a class and an object together.
        boxes: (B, P_l, 4) corners, px of the input, not clipped.
        factors: None, as the scores hold the objectness.
    """

    scores: Tensor
    boxes: Tensor
    factors: None = None


@MODELS.register_module()
class YOLOv5Head(BatchTargets):
    """Head of YOLOv5, one 1x1 convolution per level.

    It gives for each anchor of each cell a box, the overlap that the box is expected to have with
    an object, and a sigmoid per class. The formulas of boxes and loss are in
    :mod:`mmdet_ext.functional.yolo.v5`. A prior has one box (see `YOLOv5Assigner`), where the
    authors' code may teach it several at once. With an assigner that uses other cells than those
    around a box's centre, a prior far from the centre learns the nearest point that it can reach.

    Args:
        num_classes: C.
        in_channels: channels of the map of each level, the finest first.
        anchors: width and height, px, of the anchors of each level; ``tools/data/anchors.py``
            finds those of your data, and checks given ones.
        strides: side of a cell of each level, px.
        image_size: longer side of the training images, px, by which the objectness is weighed.
        level_weights: weight of each level in the objectness.
        loss_cls: config of the loss of the classes, a sigmoid per class.
        loss_bbox: config of the overlap loss of the boxes.
        loss_obj: config of the loss of the objectness, whose targets are in [0, 1].
        anchor_boxes: number of ground-truth boxes after which the log says how many of them have
            an anchor (see `AnchorWatch`); 0 for none.
        train_cfg: ``assigner``, any of ours; by default `YOLOv5Assigner` with ``ratio_thr=4``.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms``, ``max_per_img`` and ``min_bbox_size``, as for
            mmdet's dense heads. ``multi_label=False`` leaves each prior its best class alone.
        init_cfg: by default torch's own weights. Biases make the first objectness that of 8
            objects in an image of 640 px, and the first share of a class 0.6 / C.

    Raises:
        ValueError: if an option is out of its range, levels do not fit each other, or the assigner
            is none of ours; if feature maps do not fit the levels, channels and strides, or a
            label is no class of the head.

    References:
        Jocher, YOLOv5, https://github.com/ultralytics/yolov5, release 6.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int] = (256, 512, 1024),
        anchors: Sequence[Sequence[Sequence[float]]] = COCO_ANCHORS,
        strides: Sequence[int] = (8, 16, 32),
        image_size: float = 640,
        level_weights: Sequence[float] = (4.0, 1.0, 0.4),
        loss_cls: Any = LOSS_CLS,
        loss_bbox: Any = LOSS_BBOX,
        loss_obj: Any = LOSS_OBJ,
        anchor_boxes: int = 1000,
        train_cfg: Any = None,
        test_cfg: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        check_count('num_classes', num_classes)
        _check_levels(in_channels, anchors, strides, level_weights)
        self.scales = yolov5_scales(num_classes, len(strides), image_size)
        self.num_classes = num_classes
        self.in_channels = list(in_channels)
        self.strides = list(strides)
        self.level_weights = list(level_weights)
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg
        self.prior_generator = YOLOAnchorGenerator(
            strides=list(strides),
            base_sizes=[[tuple(pair) for pair in level] for level in anchors],
        )
        self.assigner = _built_assigner(train_cfg)
        check_fits(self, self.assigner)
        self.watch = AnchorWatch(anchors, self.assigner, anchor_boxes)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_obj = MODELS.build(loss_obj)
        for name in ('loss_cls', 'loss_obj'):
            check_that(
                getattr(getattr(self, name), 'use_sigmoid', True) is not False,
                name,
                'a softmax loss',
                'a loss over sigmoids',
                'write use_sigmoid=True, as the head predicts by sigmoids',
            )
        self.convs_pred = nn.ModuleList(
            nn.Conv2d(channels, len(level) * self.num_attrib, 1)
            for channels, level in zip(in_channels, anchors, strict=True)
        )
        self._set_first_biases()

    @property
    def num_attrib(self) -> int:
        """Numbers per prior: four of the box, one of the object, one per class."""
        return 5 + self.num_classes

    def _set_first_biases(self) -> None:
        share = EXPECTED_SHARE / (self.num_classes - 0.99999)
        for layer, stride in zip(self.convs_pred, self.strides, strict=True):
            rows = torch.as_tensor(layer.bias.data).view(-1, self.num_attrib)
            rows[:, 4] = math.log(EXPECTED_OBJECTS / (EXPECTED_SIDE / stride) ** 2)
            rows[:, 5:] = math.log(share)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor]]:
        """Compute the raw predictions.

        Args:
            x: maps (B, in_channels[l], H_l, W_l), one per level.

        Returns:
            tuple: one list of maps (B, A_l (5 + C), H_l, W_l), for A_l anchors of a level; of each
            anchor the four numbers of the box, the objectness, and C logits.

        Raises:
            ValueError: if there are more or fewer maps than levels, or a map has other channels.
        """
        check_level_count(self, x)
        check_channels(self, x, self.in_channels)
        return ([layer(each) for layer, each in zip(self.convs_pred, x, strict=True)],)

    def loss_by_feat(
        self,
        pred_maps: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms of the loss.

        Args:
            pred_maps: (B, A_l (5 + C), H_l, W_l) per level.
            batch_gt_instances: boxes (G_i, 4), px, and labels (G_i,) per image.
            batch_img_metas: meta information per image; not used.
            batch_gt_instances_ignore: ignore regions per image, for assigners that use them.

        Returns:
            dict: ``loss_cls``, ``loss_bbox`` and ``loss_obj``, summed over the levels and times
            the number of images of all processes.

        Raises:
            ValueError: if a box is not finite, or a label not in [0, C).
        """
        levels = self._priors(pred_maps)
        rows = flat_levels(pred_maps, self.num_attrib).float()
        geometry = batch_geometry(
            self.batch_priors(levels), batch_gt_instances, batch_gt_instances_ignore
        )
        geometry.check_ground_truth(self.num_classes)
        if self.training:
            self.watch.see(geometry)
        strides, level = self._of_priors(levels)
        used = self.assigner.predictions_used
        predictions = None
        if used != ():
            predictions = self._predictions(rows.detach(), geometry.priors.rows, strides)
        with torch.no_grad():
            matched = self.match(self.assigner, geometry, predictions)
        losses = self._losses(rows, matched, strides, level)
        images = len(rows) * get_world_size()
        return {name: value * images for name, value in losses.items()}

    def _losses(
        self, rows: Tensor, matched: MatchedBatch, strides: Tensor, level: Tensor
    ) -> dict[str, Tensor]:
        """Compute the terms for one image.

        Args:
            rows: raw predictions (B, P, 5 + C).
            matched: the batch.
            strides: of each prior, (P, 1), px.
            level: of each prior, (P,).
        """
        number = len(self.strides)
        own, prior = rows[matched.place], matched.place[1]
        boxes = decode_yolov5(own[:, :4], matched.priors, strides[prior])
        truth = matched.boxes.float()
        box = self.loss_bbox(boxes, truth, reduction_override='none')
        wanted = one_hot(matched.labels, self.num_classes).to(own.dtype)
        classes = self.loss_cls(own[:, 5:], wanted, reduction_override='none').mean(-1)
        target = matched.spread(objectness_target(boxes, truth))
        objectness = self.loss_obj(
            rows[..., 4].flatten(), target.flatten(), reduction_override='none'
        )
        counted = matched.assignment.gt_index != IGNORE
        balanced = level_means(objectness.view_as(target), level, number, counted)
        balanced = balanced * balanced.new_tensor(self.level_weights)
        return dict(
            loss_cls=self.scales.classes * level_means(classes, level[prior], number).sum(),
            loss_bbox=self.scales.box * level_means(box, level[prior], number).sum(),
            loss_obj=self.scales.objectness * balanced.sum(),
        )

    def predict_by_feat(
        self,
        pred_maps: Sequence[Tensor],
        batch_img_metas: Sequence[dict[str, Any]],
        cfg: Any = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Compute the detections of each image; boxes are clipped to it at last, as upstream.

        Args:
            pred_maps: (B, A_l (5 + C), H_l, W_l) per level.
            batch_img_metas: meta information per image.
            cfg: options in place of ``test_cfg``.
            rescale: whether boxes are those of the image before its resize.
            with_nms: whether boxes that overlap are suppressed.
        """
        cfg = self.test_cfg if cfg is None else cfg
        boxes, scores = self.decoded(pred_maps)
        if not cfg.get('multi_label', True):
            best = scores.amax(-1, keepdim=True)
            # Of equal scores the first class remains.
            first = (scores == best).cumsum(-1).cumsum(-1) == 1
            scores = scores.where(first, -1)
        return [
            select_boxes(self, own, score, meta, cfg, rescale, with_nms, clip_first=False)
            for own, score, meta in zip(boxes, scores, batch_img_metas, strict=True)
        ]

    def decoded(self, pred_maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode the predictions of all priors.

        Args:
            pred_maps: (B, A_l (5 + C), H_l, W_l) per level.

        Returns:
            tuple: boxes (B, P, 4), corners, px, not clipped, and scores (B, P, C): sigmoids of
            the class times that of the objectness.
        """
        levels = self._priors(pred_maps)
        rows = flat_levels(pred_maps, self.num_attrib).float()
        found = self._predictions(rows, torch.cat(levels), self._of_priors(levels)[0])
        assert found.boxes is not None and found.probabilities is not None
        return found.boxes, found.probabilities

    def decode_for_export(self, pred_maps: Sequence[Tensor]) -> list[DecodedLevel]:
        """Decode the predictions level by level, for the graph of another runtime.

        Args:
            pred_maps: (B, A_l (5 + C), H_l, W_l) per level.
        """
        found = []
        for each, priors, stride in zip(
            pred_maps, self._priors(pred_maps), self.strides, strict=True
        ):
            # By the shape of the map, as its length would be a constant of the graph.
            rows = each.permute(0, 2, 3, 1).reshape(each.shape[0], -1, self.num_attrib)
            own = self._predictions(rows, priors, float(stride))
            assert own.boxes is not None and own.probabilities is not None
            found.append(DecodedLevel(own.probabilities, own.boxes))
        return found

    def _predictions(self, rows: Tensor, priors: Tensor, strides: Tensor | float) -> Predictions:
        """Return boxes (B, P, 4) and scores (B, P, C) of raw predictions (B, P, 5 + C)."""
        return Predictions(
            boxes=decode_yolov5(rows[..., :4], priors, strides),
            probabilities=rows[..., 4:5].sigmoid() * rows[..., 5:].sigmoid(),
        )

    def _priors(self, pred_maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors (H_l W_l A_l, 4) of each level, corners, px."""
        sizes = [each.shape[-2:] for each in pred_maps]
        levels: list[Tensor] = self.prior_generator.grid_priors(sizes, device=pred_maps[0].device)
        return levels

    def _of_priors(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the stride (P, 1), px, and the level (P,) of each prior."""
        device = levels[0].device
        counts = torch.tensor([len(level) for level in levels], device=device)
        total = sum(len(level) for level in levels)
        level = torch.arange(len(levels), device=device)
        level = level.repeat_interleave(counts, output_size=total)
        strides = levels[0].new_tensor(self.strides)[level, None]
        return strides, level


def _built_assigner(train_cfg: Any) -> Any:
    assigner = TASK_UTILS.build((train_cfg or {}).get('assigner', ASSIGNER))
    check_that(
        isinstance(assigner, BatchAssigner),
        'train_cfg.assigner',
        type(assigner).__name__,
        'an assigner of mmdet_ext',
        'leave it out for YOLOv5Assigner',
    )
    return assigner


def _check_levels(in_channels: Any, anchors: Any, strides: Any, level_weights: Any) -> None:
    """Raise ValueError unless all have an entry per level, of the right kind."""
    for name, values in (
        ('in_channels', in_channels),
        ('anchors', anchors),
        ('level_weights', level_weights),
    ):
        check_that(
            isinstance(values, Sequence) and len(values) == len(strides) > 0,
            name,
            values,
            f'one entry per level, of which strides={list(strides)} has {len(strides)}',
        )
    for channels in in_channels:
        check_count('in_channels', channels)
    for stride in strides:
        check_count('strides', stride)
    for weight in level_weights:
        check_number('level_weights', weight, least=0, finite=True)
    for level in anchors:
        check_that(
            isinstance(level, Sequence)
            and len(level) > 0
            and all(is_pair(pair) and min(pair) > 0 for pair in level),
            'anchors',
            level,
            'pairs of width and height in px, above 0, one pair or more for each level',
        )
