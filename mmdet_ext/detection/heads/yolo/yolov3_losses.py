"""Losses of YOLOv3 and YOLOv4, part by part, on the maps of mmdet's head."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import YOLOV3Head as MMDetYOLOV3Head
from mmdet.models.task_modules.coders import YOLOBBoxCoder
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_ext.detection.heads.dense.batch_targets import flat_levels
from mmdet_ext.functional.numerics.checks import OptionError, check_number, check_that
from mmdet_ext.functional.yolo.terms import bounded_log_side, objectness_weight, size_weight
from mmdet_ext.registry import MODELS


class GridSensitiveCoder(YOLOBBoxCoder):  # type: ignore[misc]
    r"""Coder of mmdet's ``YOLOBBoxCoder``, whose centres reach beyond the cell of a prior.

    A centre lies at :math:`s \sigma - (s - 1) / 2` cells from the corner of its cell, with
    :math:`\sigma` the predicted share, in (0, 1), and s the scale of the level. For s = 1 this is
    mmdet's, in which a centre on the border of a cell needs an infinite logit.

    Args:
        scales: scale of each level, at least 1, by its stride.
        eps: smallest target of a share, as mmdet's coder has it.

    References:
        Bochkovskiy et al., YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020, section
        3.4, "eliminate grid sensitivity".
    """

    def __init__(self, scales: Mapping[float, float], eps: float) -> None:
        super().__init__(eps=eps)
        self.scales = dict(scales)

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor, stride: Tensor | int) -> Tensor:
        """Encode boxes (N, 4) px at anchors (N, 4) px, as mmdet's coder."""
        encoded: Tensor = super().encode(bboxes, gt_bboxes, self._reach(stride))
        return encoded

    def decode(self, bboxes: Tensor, pred_bboxes: Tensor, stride: Tensor | int) -> Tensor:
        """Decode shares and logarithms of sides (..., 4) at anchors (..., 4) px, as mmdet's."""
        decoded: Tensor = super().decode(bboxes, pred_bboxes, self._reach(stride))
        return decoded

    def _reach(self, stride: Tensor | int) -> Tensor:
        """Return the range of a centre, px.

        Both ends of the range move outwards by the same length, so that the range of a scaled
        level is that of a level with cells that are larger by the scale, about the same centre.
        """
        strides = torch.as_tensor(stride).float()
        reach = strides
        for level, scale in self.scales.items():
            reach = torch.where(strides == level, strides * scale, reach)
        return reach


def grid_coder(coder: Any, scale_x_y: float | Sequence[float], strides: Sequence[int]) -> Any:
    """Return a coder with these scales: the one of the head where all are 1.

    Args:
        coder: of the head.
        scale_x_y: one scale, or one per level.
        strides: of the levels, px.

    Raises:
        ValueError: for a scale below 1, another number of levels, or scales with a coder of
            another kind.
    """
    given = scale_x_y if isinstance(scale_x_y, Sequence) else [scale_x_y] * len(strides)
    check_that(
        len(given) == len(strides),
        'scale_x_y',
        scale_x_y,
        f'one number, or one per level, of which there are {len(strides)}',
    )
    for scale in given:
        check_number('scale_x_y', scale, least=1, finite=True, why='1 is the range of a cell')
    if all(scale == 1 for scale in given):
        return coder
    if type(coder) is not YOLOBBoxCoder:
        raise ValueError(
            f'scale_x_y={scale_x_y!r} needs the coder YOLOBBoxCoder, got {type(coder).__name__}. '
            'Leave bbox_coder out, or scale_x_y at 1'
        )
    return GridSensitiveCoder(dict(zip(strides, given, strict=True)), coder.eps)


class YOLOv3Losses(MMDetYOLOV3Head):  # type: ignore[misc]
    """mmdet's ``YOLOV3Head`` with the parts of YOLOv3's and YOLOv4's loss as options.

    `YOLOV3Head`, which documents the options, adds the targets of a batch at once.
    """

    def __init__(
        self,
        *args: Any,
        loss_bbox: dict[str, Any] | None = None,
        size_weight: bool = False,
        lambda_noobj: float = 1.0,
        scale_x_y: float | Sequence[float] = 1.0,
        **kwargs: Any,
    ) -> None:
        check_number('lambda_noobj', lambda_noobj, least=0, finite=True)
        given = inspect.signature(MMDetYOLOV3Head.__init__).bind(self, *args, **kwargs)
        given.apply_defaults()
        check_levels(given.arguments)
        super().__init__(*args, **kwargs)
        self.loss_bbox = None if loss_bbox is None else MODELS.build(loss_bbox)
        self.size_weight = size_weight
        self.lambda_noobj = lambda_noobj
        self.bbox_coder: Any = grid_coder(self.bbox_coder, scale_x_y, self.featmap_strides)
        self._check_losses()

    def _check_losses(self) -> None:
        for name in ('loss_xy', 'loss_conf'):
            if getattr(getattr(self, name), 'use_sigmoid', True) is False:
                raise ValueError(
                    f'{name} is a softmax loss, which needs columns of classes. Write '
                    'use_sigmoid=True, or take a loss of values such as MSELoss'
                )
        if self.one_hot_smoother and self._softmax:
            raise ValueError(
                f'one_hot_smoother={self.one_hot_smoother} smooths targets of a sigmoid, but '
                'loss_cls is a softmax loss. Set label_smoothing of loss_cls, and '
                'one_hot_smoother=0'
            )

    @property
    def _softmax(self) -> bool:
        """Return whether the classes exclude each other, by the loss that trains them."""
        return getattr(self.loss_cls, 'use_sigmoid', None) is False

    def loss_by_feat(
        self,
        pred_maps: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, list[Tensor]]:
        """Compute the losses of each level.

        Args:
            pred_maps: raw predictions (B, A (5 + C), H, W) per level, for A anchors per cell.
            batch_gt_instances: boxes and labels per image.
            batch_img_metas: meta information per image, with ``img_shape`` for ``size_weight``.
            batch_gt_instances_ignore: ignore regions per image, which the targets have used.

        Returns:
            dict: ``loss_cls``, ``loss_conf``, and ``loss_xy`` with ``loss_wh``, or ``loss_bbox``;
            each a list with one value per level.
        """
        sizes = [each.shape[-2:] for each in pred_maps]
        device = pred_maps[0].device
        levels = self.prior_generator.grid_priors(sizes, device=device)
        flags = [self.responsible_flags(sizes, each.bboxes, device) for each in batch_gt_instances]
        targets, backgrounds = self.get_targets([levels] * len(flags), flags, batch_gt_instances)
        image_sides = None
        if self.size_weight:
            shapes = [meta['img_shape'][:2] for meta in batch_img_metas]
            image_sides = levels[0].new_tensor(shapes).flip(1)[:, None]
        found = [
            self._level_losses(*level, image_sides)
            for level in zip(
                pred_maps, targets, backgrounds, levels, self.featmap_strides, strict=True
            )
        ]
        return {name: [losses[name] for losses in found] for name in found[0]}

    def _level_losses(
        self,
        pred_map: Tensor,
        target: Tensor,
        background: Tensor,
        priors: Tensor,
        stride: int,
        image_sides: Tensor | None,
    ) -> dict[str, Tensor]:
        """Compute the losses of one level.

        Args:
            pred_map: raw predictions (B, A (5 + C), H, W).
            target: (B, P, 5 + C), with 0 at priors that have no box.
            background: (B, P), 1 at the background.
            priors: anchors (P, 4), corners, px.
            stride: of the level, px.
            image_sides: (B, 1, 2) width and height of the images, px; None for no `size_weight`.
        """
        rows = flat_levels([pred_map], self.num_attrib).float()
        has_box = target[..., 4]
        box_weight = has_box
        if image_sides is not None:
            sides = (priors[:, 2:] - priors[:, :2]) * target[..., 2:4].exp()
            box_weight = has_box * size_weight(sides, image_sides)
        objectness = objectness_weight(has_box > 0, background, self.lambda_noobj)
        losses = dict(
            loss_cls=self._class_loss(rows[..., 5:], target[..., 5:], has_box),
            loss_conf=_compared(self.loss_conf, rows[..., 4], target[..., 4], objectness),
        )
        if self.loss_bbox is None:
            weight = box_weight[..., None]
            losses['loss_xy'] = _compared(self.loss_xy, rows[..., :2], target[..., :2], weight)
            losses['loss_wh'] = self.loss_wh(rows[..., 2:4], target[..., 2:4], weight=weight)
        else:
            place = has_box.nonzero(as_tuple=True)
            own = priors[place[1]]
            losses['loss_bbox'] = self.loss_bbox(
                self._boxes(own, rows[place][:, :4], stride),
                self.bbox_coder.decode(own, target[place][:, :4], stride),
                weight=box_weight[place],
            )
        return losses

    def _class_loss(self, logits: Tensor, target: Tensor, has_box: Tensor) -> Tensor:
        """Compute the loss of the classes of one level.

        Args:
            logits: (B, P, C).
            target: (B, P, C), one-hot.
            has_box: (B, P), 1 at priors that have a box.
        """
        loss: Tensor
        if self._softmax:
            labels = target.argmax(-1)
            loss = self.loss_cls(logits.flatten(0, 1), labels.flatten(), weight=has_box.flatten())
            return loss
        return _compared(self.loss_cls, logits, target, has_box[..., None])

    def _boxes(self, priors: Tensor, rows: Tensor, strides: Tensor | int) -> Tensor:
        """Decode raw predictions (..., 4) at anchors (..., 4) to corners, px."""
        rows = torch.cat([rows[..., :2].sigmoid(), bounded_log_side(rows[..., 2:])], -1)
        boxes: Tensor = self.bbox_coder.decode(priors, rows, strides)
        return boxes

    def _class_scores(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes, which are the last dimension."""
        return logits.softmax(-1) if self._softmax else logits.sigmoid()

    def predict_by_feat(self, pred_maps: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        """Predict by mmdet's code, which applies a sigmoid to every class.

        Args:
            pred_maps: raw predictions (B, A (5 + C), H, W) per level, for A anchors per cell.
            *args: further arguments of mmdet's ``predict_by_feat``.
            **kwargs: further keyword arguments of mmdet's ``predict_by_feat``.
        """
        if self._softmax:
            pred_maps = [self._with_log_odds(each) for each in pred_maps]
        return super().predict_by_feat(pred_maps, *args, **kwargs)

    def _with_log_odds(self, pred_map: Tensor) -> Tensor:
        """Replace the logits of a softmax by those whose sigmoids are the same probabilities."""
        table = pred_map.float().unflatten(1, (-1, self.num_attrib))
        rest, classes = table.split([5, self.num_classes], 2)
        return torch.cat([rest, classes.softmax(2).logit()], 2).flatten(1, 2)


def check_levels(arguments: Mapping[str, Any]) -> None:
    """Raise an error that names both, where options of ``YOLOV3Head`` have other levels.

    Args:
        arguments: of mmdet's ``YOLOV3Head``, by name.

    Raises:
        OptionError: for different numbers of levels, other strides in ``anchor_generator``, or a
            level with another number of anchors. It is a ValueError and an AssertionError.
    """
    strides = list(arguments['featmap_strides'])
    anchors = arguments['anchor_generator']
    listed = {name: arguments[name] for name in ('in_channels', 'out_channels')}
    listed |= {f'anchor_generator.{key}': anchors.get(key) for key in ('strides', 'base_sizes')}
    for name, values in listed.items():
        if values is not None and len(values) != len(strides):
            raise OptionError(
                f'{name} has {len(values)} levels, but featmap_strides {strides} has '
                f'{len(strides)}. YOLOV3Head needs one entry per level in both'
            )
    own = [stride for stride in anchors.get('strides') or strides]
    if [_single(stride) for stride in own] != [_single(stride) for stride in strides]:
        raise OptionError(
            f'anchor_generator.strides {own} are not featmap_strides {strides}. Write both in the '
            'order of the feature maps, the deepest first'
        )
    counts = [len(sizes) for sizes in anchors.get('base_sizes') or ()]
    if len(set(counts)) > 1:
        raise OptionError(
            f'anchor_generator.base_sizes has {counts} anchors in its levels, but YOLOV3Head needs '
            'as many in each'
        )


def _single(stride: int | Sequence[int]) -> Any:
    """Return a stride of both axes as one number where they are equal."""
    both = tuple(stride) if isinstance(stride, Sequence) else (stride, stride)
    return both[0] if both[0] == both[1] else both


def _compared(loss: nn.Module, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Compute a loss of logits, or of their sigmoids where the loss does not take logits."""
    takes_logits = getattr(loss, 'use_sigmoid', False)
    found: Tensor = loss(logits if takes_logits else logits.sigmoid(), target, weight=weight)
    return found
