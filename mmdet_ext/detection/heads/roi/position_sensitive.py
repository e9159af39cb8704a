"""Position-sensitive pooling of RoIs, and the heads behind it: R-FCN and Light-Head R-CNN."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmdet.models.roi_heads import SingleRoIExtractor, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmengine.model import BaseModule
from torch import Tensor, nn
from torchvision import ops

from mmdet_ext.functional.numerics.checks import check_count, check_that, check_whole
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class PSRoIPool(SingleRoIExtractor):  # type: ignore[misc]
    r"""RoI extractor whose bins each read maps of their own.

    A RoI is cut into :math:`k \times k` bins, with :math:`k` = ``output_size``. Bin (i, j) of
    output c is the mean, over the bin, of map :math:`ck^2 + ik + j` alone. So a map learns one
    part of an object, such as its upper left, and the place in the RoI is not lost, although
    nothing behind the pooling depends on it:

    .. math:: r_c(i, j) = \frac{1}{n} \sum_{(x, y) \in \mathrm{bin}(i, j)}
        z_{c, i, j}(x + x_0, y + y_0)

    with :math:`n` cells in the bin, and :math:`(x_0, y_0)` the corner of the RoI.

    The pooling is torchvision's, on any device: `torchvision.ops.ps_roi_pool`, or `ps_roi_align`
    where ``sampling_ratio`` is given. It is computed in float32 or float64. By itself
    ``ps_roi_pool`` never reads the last row and column of a map; here it does.

    Args:
        out_channels: outputs per bin: with `RFCNHead` the classes, the background and 4 for the
            box; 10 in Light-Head R-CNN.
        featmap_strides: px of the image per cell, for each level; a RoI is mapped to a level by its
            size, as in mmdet's ``SingleRoIExtractor``.
        output_size: bins per side: 3 or 7 in the paper.
        in_channels: channels of the features, of which a 1 x 1 convolution makes the maps. None
            where the features are the maps, ``out_channels * output_size ** 2`` of them.
        sampling_ratio: None for means over whole cells; else points per side of a bin, at which
            maps are interpolated, 0 for as many as cells.
        finest_scale: RoIs of less than twice this side, px, are taken from the first level.
        init_cfg: config of the initialisation.

    Raises:
        ValueError: if an option is outside of its range, or the features have another number of
            channels.

    References:
        Dai et al., R-FCN: Object Detection via Region-based Fully Convolutional Networks, 2016,
        eq. 1.
    """

    def __init__(
        self,
        out_channels: int,
        featmap_strides: list[float],
        output_size: int = 7,
        in_channels: int | None = None,
        sampling_ratio: int | None = None,
        finest_scale: int = 56,
        init_cfg: Any = None,
    ) -> None:
        check_count('out_channels', out_channels)
        check_count('output_size', output_size)
        layer: dict[str, Any] = dict(type=ops.PSRoIPool, output_size=(output_size, output_size))
        if sampling_ratio is not None:
            check_whole('sampling_ratio', sampling_ratio, least=0)
            layer.update(type=ops.PSRoIAlign, sampling_ratio=sampling_ratio)
        if in_channels is not None and init_cfg is None:
            init_cfg = dict(type='Normal', std=0.01, override=dict(name='maps'))
        super().__init__(layer, out_channels, featmap_strides, finest_scale, init_cfg)
        maps = out_channels * output_size**2
        self.maps = None if in_channels is None else nn.Conv2d(in_channels, maps, 1)
        #: Channels of the features that it takes.
        self.takes_channels = maps if in_channels is None else in_channels

    def forward(
        self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Pool RoIs.

        Args:
            feats: a map (B, C, H, W) of each level.
            rois: (N, 5), index of the image in the batch and corners, px.
            roi_scale_factor: factor of their sides, with several levels.

        Returns:
            Tensor: (N, out_channels, output_size, output_size).
        """
        for each in feats:
            if each.shape[1] != self.takes_channels:
                raise ValueError(
                    f'PSRoIPool got features of {each.shape[1]} channels, and takes '
                    f'{self.takes_channels}: {self._explain()}'
                )
        maps = promote_half(*(feats if self.maps is None else map(self.maps, feats)))
        if isinstance(self.roi_layers[0], ops.PSRoIPool):
            # torchvision's ps_roi_pool stops before the last row and column of a map. One more of
            # each makes it read them; what is added is never read.
            maps = tuple(F.pad(each, (0, 1, 0, 1)) for each in maps)
        pooled: Tensor = super().forward(maps, rois.float(), roi_scale_factor)
        return pooled

    def _explain(self) -> str:
        """Return where the number of channels comes from."""
        if self.maps is not None:
            return 'give them as in_channels'
        side = self.roi_layers[0].output_size[0]
        return (
            f'out_channels={self.out_channels} times {side} x {side} bins. Make as many maps, or '
            'give in_channels, so that they are made here'
        )


@MODELS.register_module()
class RFCNHead(BBoxHead):  # type: ignore[misc]
    r"""Box head of R-FCN: the bins of a RoI vote, and nothing is learnt behind the pooling.

    .. math:: r_c = \frac{1}{k^2} \sum_{i, j} r_c(i, j), \qquad s = \mathrm{softmax}(r)

    of the outputs :math:`r_c(i, j)` of `PSRoIPool`: first ``num_classes``, then the background,
    then the offsets of the box, 4 for all classes together. The loss is mmdet's: cross entropy, and
    a box loss of the positives. Any sampler of mmdet fits, the paper's ``OHEMSampler`` among them.

    Args:
        num_classes: classes without the background.
        roi_feat_size: bins per side of the extractor.
        reg_class_agnostic: one box for all classes, as in the paper; else one per class.
        **kwargs: further arguments of mmdet's ``BBoxHead``: ``bbox_coder``, ``loss_cls``,
            ``loss_bbox``, ``reg_decoded_bbox``, ``init_cfg``, ...

    Raises:
        ValueError: if the RoIs come with another number of outputs.

    References:
        Dai et al., R-FCN: Object Detection via Region-based Fully Convolutional Networks, 2016,
        section 2; box regression in the same section.
    """

    def __init__(
        self,
        num_classes: int = 80,
        roi_feat_size: int = 7,
        reg_class_agnostic: bool = True,
        **kwargs: Any,
    ) -> None:
        check_count('num_classes', num_classes)
        for name in ('with_avg_pool', 'with_cls', 'with_reg', 'in_channels'):
            check_that(name not in kwargs, name, kwargs.get(name), 'absent', 'R-FCN has no layers')
        # mmdet initialises the layers by name, of which there are none here.
        kwargs['init_cfg'] = kwargs.get('init_cfg') or []
        super().__init__(
            num_classes=num_classes,
            roi_feat_size=roi_feat_size,
            reg_class_agnostic=reg_class_agnostic,
            in_channels=1,
            **kwargs,
        )
        self._outputs = [self.fc_cls.out_features, self.fc_reg.out_features]
        del self.fc_cls, self.fc_reg

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Average the bins.

        Args:
            x: (N, classes + 1 + box, k, k), the outputs of `PSRoIPool`.

        Returns:
            tuple: logits (N, num_classes + 1), the last column for the background; offsets (N, 4),
            or (N, 4 * num_classes) without ``reg_class_agnostic``.
        """
        if x.shape[1] != sum(self._outputs):
            raise ValueError(
                f'RFCNHead got {x.shape[1]} outputs per bin, and takes {sum(self._outputs)}: '
                f'{self._outputs[0]} for num_classes={self.num_classes} and the background, '
                f'{self._outputs[1]} for the box. Give that number as out_channels of PSRoIPool'
            )
        scores, boxes = x.mean((2, 3)).split(self._outputs, 1)
        # mmdet takes views of them.
        return scores.contiguous(), boxes.contiguous()


@MODELS.register_module()
class LightHeadRoIHead(StandardRoIHead):  # type: ignore[misc]
    r"""RoI head of Light-Head R-CNN: RoIs are pooled from few maps, made by large convolutions.

    The head of R-FCN takes :math:`k^2 (C + 1)` maps, 3969 for the 80 classes of COCO and 7 x 7
    bins. This one takes :math:`10 k^2` = 490 for any number of classes: a large separable
    convolution makes them of the features (`LargeSeparableConv`), an extractor such as `PSRoIPool`
    or mmdet's with ``RoIAlign`` pools them, and one fully connected layer (mmdet's
    ``ConvFCBBoxHead`` with ``num_shared_fcs=1``) goes before the two predictions. All else is
    mmdet's ``StandardRoIHead``; masks are pooled from the features.

    Args:
        in_channels: channels of the features.
        mid_channels: channels between the two convolutions of a branch: 64 for the small network
            of the paper, 256 for the large one.
        map_channels: number of maps, :math:`\alpha k^2` with :math:`\alpha = 10`.
        kernel_size: length of the convolutions, odd.
        *args: arguments of mmdet's ``StandardRoIHead``.
        **kwargs: keyword arguments of it.

    Raises:
        ValueError: if ``kernel_size`` is even, or if the extractor takes another number of channels
            than ``map_channels``.

    References:
        Li et al., Light-Head R-CNN: In Defense of Two-Stage Object Detector, 2017, section 3.
    """

    def __init__(
        self,
        *args: Any,
        in_channels: int,
        mid_channels: int = 256,
        map_channels: int = 490,
        kernel_size: int = 15,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        extractor = self.bbox_roi_extractor
        taken = getattr(extractor, 'takes_channels', extractor.out_channels)
        check_that(
            map_channels == taken,
            'map_channels',
            map_channels,
            f'{taken}, the channels that the extractor {type(extractor).__name__} takes',
        )
        self.thin_maps = LargeSeparableConv(in_channels, mid_channels, map_channels, kernel_size)

    def _bbox_forward(self, x: tuple[Tensor, ...], rois: Tensor) -> dict[str, Tensor]:
        """Compute the predictions for RoIs, in training, in test and for samplers."""
        thin = tuple(map(self.thin_maps, x[: self.bbox_roi_extractor.num_inputs]))
        found: dict[str, Tensor] = super()._bbox_forward(thin, rois)
        return found


class LargeSeparableConv(BaseModule):  # type: ignore[misc]
    r"""Sum of a k x 1 convolution before a 1 x k one, and of the two in the other order.

    Each output sees k x k inputs, at the price of 2 k instead of :math:`k^2` of them. A ReLU
    follows, as in the code of the authors; the paper has no word on it.

    Args:
        in_channels: channels of the features.
        mid_channels: channels between the two convolutions of a branch.
        out_channels: channels of the result.
        kernel_size: k, odd.

    References:
        Li et al., Light-Head R-CNN: In Defense of Two-Stage Object Detector, 2017, figure 3.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, kernel_size: int):
        super().__init__(init_cfg=dict(type='Normal', layer='Conv2d', std=0.01))
        for name, value in (('in_channels', in_channels), ('mid_channels', mid_channels)):
            check_count(name, value)
        check_whole('kernel_size', kernel_size)
        check_that(kernel_size % 2 == 1, 'kernel_size', kernel_size, 'odd')
        tall, wide = (kernel_size, 1), (1, kernel_size)
        self.tall_first = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, tall, padding='same'),
            nn.Conv2d(mid_channels, out_channels, wide, padding='same'),
        )
        self.wide_first = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, wide, padding='same'),
            nn.Conv2d(mid_channels, out_channels, tall, padding='same'),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, out_channels, H, W) of features (B, in_channels, H, W)."""
        added: Tensor = self.tall_first(x) + self.wide_first(x)
        return added.relu()
