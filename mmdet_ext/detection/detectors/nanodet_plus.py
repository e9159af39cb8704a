"""Detector of NanoDet-Plus, whose assignment a second head guides in training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector
from mmengine.logging import MessageHub
from torch import Tensor

from mmdet_ext.detection.heads.dense.gfl import GFLHead
from mmdet_ext.detection.heads.dense.nanodet_plus import NanoDetPlusHead
from mmdet_ext.functional.numerics.checks import check_count, check_whole
from mmdet_ext.registry import MODELS

#: Names of the modules that only training uses.
GUIDANCE = ('aux_neck', 'aux_head')


@MODELS.register_module()
class NanoDetPlus(SingleStageDetector):  # type: ignore[misc]
    """NanoDet-Plus: mmdet's single-stage detector with an assign-guidance module.

    The head of a small detector predicts too poorly at first to decide by its own predictions
    which priors learn. In training a second neck and a larger head decide: the second neck gets the
    maps of the backbone, and the second head the outputs of both necks, joined. Both heads learn
    the targets of that assignment. The guidance costs nothing in a test, where it is not computed.

    It is active in the first ``guide_epochs`` epochs; in later ones the head's own predictions
    decide. From ``detach_epoch`` on, the guidance gets the maps without gradient, so that it
    no longer trains backbone and neck. Epochs are counted from 0, by the runner.

    Averaged weights, `EMAHook` of MMEngine, are those of all modules::

        custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002,
                             update_buffers=True)]

    A detector without ``aux_head`` has no guidance, and takes a checkpoint that has one: its
    weights are left out. `drop_guidance` removes it from a detector that has been built.

    Args:
        backbone: config of the backbone.
        neck: config of the neck; the second neck is a copy of it, weights included.
        bbox_head: config of a `NanoDetPlusHead`.
        aux_head: config of a `GFLHead` for maps of twice the neck's channels; None for no guidance.
        detach_epoch: first epoch in which the guidance gets no gradient of backbone and neck.
        guide_epochs: number of epochs with guidance; None for all.
        train_cfg: options of training: ``assigner``, ``allowed_border``, ``pos_weight``.
        test_cfg: options of a test.
        data_preprocessor: config of the preprocessor.
        init_cfg: config of the initialisation.

    Raises:
        ValueError: if a head is of another type, the two heads do not fit, or an epoch is out of
            its range.

    References:
        RangiLyu, NanoDet-Plus, 2021, https://github.com/RangiLyu/nanodet.
    """

    def __init__(
        self,
        backbone: Any,
        neck: Any,
        bbox_head: Any,
        aux_head: Any = None,
        detach_epoch: int = 10,
        guide_epochs: int | None = None,
        train_cfg: Any = None,
        test_cfg: Any = None,
        data_preprocessor: Any = None,
        init_cfg: Any = None,
    ) -> None:
        check_whole('detach_epoch', detach_epoch, least=0)
        if guide_epochs is not None:
            check_count('guide_epochs', guide_epochs)
        super().__init__(
            backbone, neck, bbox_head, train_cfg, test_cfg, data_preprocessor, init_cfg
        )
        if not isinstance(self.bbox_head, NanoDetPlusHead):
            raise ValueError(
                'bbox_head must be mmdet_ext.NanoDetPlusHead, got '
                f"{type(self.bbox_head).__name__}. For another head use mmdet's "
                'SingleStageDetector as the detector'
            )
        self.detach_epoch = detach_epoch
        self.guide_epochs = guide_epochs
        self.aux_head: GFLHead | None = None
        if aux_head is not None:
            self.aux_head = MODELS.build(aux_head)
            self._check_guide()
            self.aux_neck = copy.deepcopy(self.neck)

    def _check_guide(self) -> None:
        """Raise ValueError unless the second head predicts what the first does."""
        own, guide = self.bbox_head, self.aux_head
        if not isinstance(guide, GFLHead):
            raise ValueError(
                f'aux_head must be mmdet_ext.GFLHead, got {type(guide).__name__}: it has to '
                'predict distributions of distances, as NanoDetPlusHead does'
            )
        for name in ('num_classes', 'reg_max'):
            if getattr(own, name) != getattr(guide, name):
                raise ValueError(
                    f'aux_head.{name}={getattr(guide, name)}, but bbox_head.{name}='
                    f'{getattr(own, name)}: give both heads the same'
                )
        strides = [[tuple(each) for each in head.prior_generator.strides] for head in (own, guide)]
        if strides[0] != strides[1]:
            raise ValueError(
                f'aux_head has the strides {strides[1]}, but bbox_head {strides[0]}: give both '
                'heads the same'
            )
        if guide.in_channels != 2 * own.in_channels:
            raise ValueError(
                f'aux_head.in_channels must be {2 * own.in_channels}, twice the '
                f"{own.in_channels} of bbox_head, as it gets both necks' maps, got "
                f'{guide.in_channels}'
            )

    @property
    def is_guided(self) -> bool:
        """Return whether the guidance is active in the current epoch."""
        if self.aux_head is None:
            return False
        return self.guide_epochs is None or _epoch() < self.guide_epochs

    def drop_guidance(self) -> None:
        """Remove the modules that only training uses."""
        self.aux_head = None
        if hasattr(self, 'aux_neck'):
            del self.aux_neck

    def init_weights(self) -> None:
        """Initialise all weights; the second neck begins with those of the first."""
        fresh = not self._is_init
        super().init_weights()
        given = isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained'
        if self.aux_head is not None and fresh and not given:
            self.aux_neck.load_state_dict(self.neck.state_dict())

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Compute the losses of a batch, those of the guidance too where it is active.

        Args:
            batch_inputs: images (B, 3, H, W).
            batch_data_samples: mmdet's data samples, with ground truth.
        """
        maps = self.backbone(batch_inputs)
        x = self.neck(maps)
        losses: dict[str, Tensor]
        head = self.aux_head
        if head is None or not self.is_guided:
            losses = self.bbox_head.loss(x, batch_data_samples)
            return losses
        given = x
        if _epoch() >= self.detach_epoch:
            maps, given = ([each.detach() for each in part] for part in (maps, x))
        both = zip(given, self.aux_neck(maps), strict=True)
        guide = head([torch.cat(pair, 1) for pair in both])
        losses = self.bbox_head.guided_loss(x, batch_data_samples, guide)
        return losses

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Leave out the weights of a guidance that this detector does not have."""
        if self.aux_head is None:
            starts = tuple(f'{prefix}{name}.' for name in GUIDANCE)
            for key in [key for key in state_dict if key.startswith(starts)]:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _epoch() -> int:
    """Return the current epoch from 0; 0 without a runner."""
    return int(MessageHub.get_current_instance().get_info('epoch', 0) or 0)
