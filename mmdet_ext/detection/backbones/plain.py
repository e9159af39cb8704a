"""Plain stacks of convolutions: the networks of YOLOv1 and YOLOv2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmdet_ext.detection.backbones.layers import (
    BATCH_NORM,
    LEAKY_RELU,
    StagedBackbone,
    conv,
    scaled,
)
from mmdet_ext.registry import MODELS

#: A stage: kernel, channels and stride of each convolution.
Stage = tuple[tuple[int, int, int], ...]

#: YOLOv1's 24 convolutions. All stages but the first begin with a 2x2 max pool.
YOLOV1_STAGES: tuple[Stage, ...] = (
    ((7, 64, 2),),
    ((3, 192, 1),),
    ((1, 128, 1), (3, 256, 1), (1, 256, 1), (3, 512, 1)),
    (*((1, 256, 1), (3, 512, 1)) * 4, (1, 512, 1), (3, 1024, 1)),
    (
        *((1, 512, 1), (3, 1024, 1)) * 2,
        (3, 1024, 1),
        (3, 1024, 2),
        (3, 1024, 1),
        (3, 1024, 1),
    ),
)
#: Darknet-19 without its last convolution, that of the classes. All stages but the first begin
#: with a 2x2 max pool.
DARKNET19_STAGES: tuple[Stage, ...] = (
    ((3, 32, 1),),
    ((3, 64, 1),),
    ((3, 128, 1), (1, 64, 1), (3, 128, 1)),
    ((3, 256, 1), (1, 128, 1), (3, 256, 1)),
    (*((3, 512, 1), (1, 256, 1)) * 2, (3, 512, 1)),
    (*((3, 1024, 1), (1, 512, 1)) * 2, (3, 1024, 1)),
)


class PlainBackbone(StagedBackbone):
    """Backbone of convolutions with batch norm and leaky ReLU, and max pools between its stages.

    Args:
        table: kernel, channels and stride of each convolution of each stage.
        width: factor on all channels, rounded to multiples of 8.
        out_indices: stages whose maps are returned.
        frozen_stages: index of the last stage that is not trained; -1 for none.
        norm_eval: whether batch norms use their running statistics in training.
        norm_cfg: norm behind each convolution; None for a bias in its place.
        act_cfg: activation.
        init_cfg: by default He's for convolutions, gains 1.
    """

    def __init__(
        self,
        table: Sequence[Stage],
        width: float,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        norm_cfg: Any,
        act_cfg: Any,
        init_cfg: Any,
    ) -> None:
        stages, strides, stride, channels = [], [], 1, 3
        for index, convs in enumerate(table):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if index else []
            stride *= 2 if index else 1
            for kernel, full, step in convs:
                out = scaled(full, width)
                layers.append(conv(channels, out, kernel, step, norm_cfg=norm_cfg, act_cfg=act_cfg))
                channels, stride = out, stride * step
            stages.append(nn.Sequential(*layers))
            strides.append(stride)
        super().__init__(stages, strides, out_indices, frozen_stages, norm_eval, init_cfg)


@MODELS.register_module()
class YOLOV1Backbone(PlainBackbone):
    """The 24 convolutions of YOLOv1, of stride 64: a map of 7 x 7 x 1024 for 448 x 448 px.

    The maps of the stages have the strides 2, 4, 8, 16 and 64. The paper has no batch norm; its
    authors' later configurations have.

    Args:
        width: factor on all channels, rounded to multiples of 8, for small data.
        out_indices: stages, 0 to 4, whose maps are returned.
        frozen_stages: index of the last stage that is not trained; -1 for none.
        norm_eval: whether batch norms use their running statistics in training.
        norm_cfg: norm behind each convolution; None for a bias in its place, as in the paper.
        act_cfg: activation.
        init_cfg: by default He's for convolutions, gains 1.

    Raises:
        ValueError: if an option is out of its range, or, in the forward pass, a side of the images
            is no multiple of 64.

    References:
        Redmon et al., You Only Look Once: Unified, Real-Time Object Detection, 2016, figure 3.
    """

    def __init__(
        self,
        width: float = 1.0,
        out_indices: Sequence[int] = (4,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = LEAKY_RELU,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(
            YOLOV1_STAGES,
            width,
            out_indices,
            frozen_stages,
            norm_eval,
            norm_cfg,
            act_cfg,
            init_cfg,
        )


@MODELS.register_module()
class Darknet19(PlainBackbone):
    """The backbone of YOLOv2: 18 convolutions, with maps of 512 and 1024 channels.

    The maps of the stages have the strides 1, 2, 4, 8, 16 and 32. mmdet's ``Darknet`` is that of
    YOLOv3, with 53 layers alone.

    Args:
        width: factor on all channels, rounded to multiples of 8, for small data.
        out_indices: stages, 0 to 5, whose maps are returned.
        frozen_stages: index of the last stage that is not trained; -1 for none.
        norm_eval: whether batch norms use their running statistics in training.
        norm_cfg: norm behind each convolution.
        act_cfg: activation.
        init_cfg: by default He's for convolutions, gains 1.

    Raises:
        ValueError: if an option is out of its range, or, in the forward pass, a side of the images
            is no multiple of the largest stride.

    References:
        Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, 2017, table 6.
    """

    def __init__(
        self,
        width: float = 1.0,
        out_indices: Sequence[int] = (4, 5),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = LEAKY_RELU,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(
            DARKNET19_STAGES,
            width,
            out_indices,
            frozen_stages,
            norm_eval,
            norm_cfg,
            act_cfg,
            init_cfg,
        )
