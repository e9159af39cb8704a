"""Head that predicts heatmaps of joints and part affinity fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import build_conv_layer
from mmengine.structures import InstanceData, PixelData
from mmpose.models.heads import HeatmapHead
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.functional.numerics.checks import check_that, check_whole
from mmdet_ext.functional.pose.fields import check_limbs
from mmdet_ext.pose.skeletons import mirror_limbs, read_limbs
from mmdet_ext.registry import MODELS

#: Heatmaps and fields of a batch.
Maps = tuple[Tensor, Tensor]


@MODELS.register_module()
class PartAffinityFieldHead(HeatmapHead):  # type: ignore[misc]
    """Head of a bottom-up network that tells people apart by the limbs between their joints.

    Its options are those of MMPose's AssociativeEmbeddingHead; a last layer of its own predicts the
    fields. Targets and decoder are those of the codec PartAffinityField with the same limbs.

    Args:
        in_channels: channels of the features.
        num_keypoints: K.
        limbs: pairs of joints, or the name of a table, as in the codec.
        deconv_out_channels: channels of deconvolutions, each of which doubles the size; None for
            none.
        deconv_kernel_sizes: their kernels.
        conv_out_channels: channels of convolutions before the last layers; None for none.
        conv_kernel_sizes: their kernels.
        final_layer: options of both last layers.
        loss: a loss in the call of PartAffinityFieldLoss; None for that loss.
        decoder: the codec that decodes maps; None for a head that only trains.
        init_cfg: how to initialise; None for MMPose's way.

    Raises:
        ValueError: for limbs that are no pairs of joints, or that are not those of the decoder.

    References:
        Cao et al., Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields, 2017,
        section 2.1, with one stage.
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int,
        limbs: str | Sequence[Sequence[int]] = 'coco',
        deconv_out_channels: Sequence[int] | None = (256, 256, 256),
        deconv_kernel_sizes: Sequence[int] | None = (4, 4, 4),
        conv_out_channels: Sequence[int] | None = None,
        conv_kernel_sizes: Sequence[int] | None = None,
        final_layer: dict[str, Any] | None = None,
        loss: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        check_whole('num_keypoints', num_keypoints, 2)
        pairs = check_limbs(read_limbs(limbs), num_keypoints)
        check_that(bool(pairs), 'limbs', limbs, 'at least one pair')
        last = {'kernel_size': 1, **(final_layer or {})}
        super().__init__(
            in_channels=in_channels,
            out_channels=num_keypoints,
            deconv_out_channels=deconv_out_channels,
            deconv_kernel_sizes=deconv_kernel_sizes,
            conv_out_channels=conv_out_channels,
            conv_kernel_sizes=conv_kernel_sizes,
            final_layer=last,
            loss=loss or {'type': 'mmdet_ext.PartAffinityFieldLoss'},
            decoder=decoder,
            init_cfg=init_cfg,
        )
        self.num_keypoints = num_keypoints
        self.limbs = pairs
        if self.decoder is not None:
            own = [tuple(limb) for limb in getattr(self.decoder, 'limbs', pairs)]
            check_that(own == pairs, 'limbs', pairs, f'those of the decoder, {own}')
        channels = [in_channels, *(deconv_out_channels or ()), *(conv_out_channels or ())][-1]
        self.field_layer = build_conv_layer(
            {'type': 'Conv2d', **last},
            in_channels=channels,
            out_channels=2 * len(pairs),
        )

    def forward(self, feats: Sequence[Tensor]) -> Maps:
        """Predict maps from the last of some features.

        Args:
            feats: features, the last (B, in_channels, h, w).

        Returns:
            tuple: heatmaps, (B, K, H, W), and x and y of each limb's field in turn, (B, 2 C, H, W).
        """
        features = self.conv_layers(self.deconv_layers(feats[-1]))
        return self.final_layer(features), self.field_layer(features)

    def loss(
        self, feats: Sequence[Tensor], batch_data_samples: Sequence[Any], train_cfg: Any = None
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            feats: features, as `forward` takes them.
            batch_data_samples: data samples with the targets of PartAffinityField, and with
                'heatmap_mask' where pixels do not count.
            train_cfg: not used.

        Returns:
            dict: 'loss_kpt' and 'loss_paf'.

        Raises:
            AttributeError: if a sample has no such targets.
        """
        heatmaps, fields = self.forward(feats)
        truth = [sample.gt_fields for sample in batch_data_samples]
        mask = None
        if all('heatmap_mask' in each for each in truth):
            mask = torch.stack([each.heatmap_mask for each in truth])
        of_joints, of_fields = self.loss_module(
            heatmaps,
            fields,
            torch.stack([each.heatmaps for each in truth]),
            torch.stack([each.limb_fields for each in truth]),
            mask,
        )
        return {'loss_kpt': of_joints, 'loss_paf': of_fields}

    def predict(
        self, feats: Any, batch_data_samples: Sequence[Any], test_cfg: Any = None
    ) -> list[InstanceData] | tuple[list[InstanceData], list[PixelData]]:
        """Find people in the images of a batch.

        Args:
            feats: features, as `forward` takes them; a list of two, of the images and of their
                mirror images, with ``flip_test``; and a list of such for each scale with
                ``multiscale_test``.
            batch_data_samples: data samples, with the meta information 'flip_indices' where
                images are mirrored, and 'img_shape' where maps are enlarged.
            test_cfg: 'flip_test', 'shift_heatmap', 'multiscale_test', 'align_corners',
                'restore_heatmap_size' (enlarge maps to the input before decoding) and
                'output_heatmaps', all False as usual.

        Returns:
            list: people of each image: 'keypoints', 'keypoint_scores' and 'bbox_scores'; with
            ``output_heatmaps`` a tuple with the maps.
        """
        cfg = dict(test_cfg or {})
        scales = feats if cfg.get('multiscale_test', False) else [feats]
        size = None
        if cfg.get('restore_heatmap_size', False):
            size = tuple(batch_data_samples[0].metainfo['img_shape'][:2])
        maps: list[Maps] = []
        for each in scales:
            if cfg.get('flip_test', False):
                flip = batch_data_samples[0].metainfo['flip_indices']
                straight, mirrored = (self.forward(part) for part in each)
                shift = cfg.get('shift_heatmap', False)
                turned = self.mirror(mirrored, flip, shift)
                maps.append(((straight[0] + turned[0]) / 2, (straight[1] + turned[1]) / 2))
            else:
                maps.append(self.forward(each))
        if size is None:
            size = tuple(maps[0][0].shape[2:])
        heatmaps, fields = (
            torch.stack([_resize(each[part], size, cfg) for each in maps]).mean(0)
            for part in (0, 1)
        )
        people = self.decode((heatmaps, fields))
        if not cfg.get('output_heatmaps', False):
            return people
        pixels = [
            PixelData(heatmaps=one.detach(), limb_fields=other.detach())
            for one, other in zip(heatmaps, fields, strict=True)
        ]
        return people, pixels

    def mirror(self, maps: Maps, flip_indices: Sequence[int], shift: bool = False) -> Maps:
        """Turn the maps of mirror images into those of the images.

        Left and right joints and limbs change places; x of each direction changes its sign.

        Args:
            maps: heatmaps and fields.
            flip_indices: the mirror joint of each joint.
            shift: move maps by a pixel to the right, for networks whose strides leave the mirror
                image out of line.

        Raises:
            ValueError: if the mirror of a limb is no limb.
        """
        heatmaps, fields = (each.flip(-1) for each in maps)
        index, turned = mirror_limbs(self.limbs, flip_indices)
        images, channels, height, width = fields.shape
        pairs = fields.view(images, channels // 2, 2, height, width)[:, index]
        sign = fields.new_ones(len(index), 2)
        sign[:, 0] = -1
        sign[torch.tensor(turned)] *= -1
        fields = (pairs * sign[:, :, None, None]).view(fields.shape)
        heatmaps = heatmaps[:, list(flip_indices)]
        if shift:
            heatmaps, fields = (
                torch.cat([each[..., :1], each[..., :-1]], -1) for each in (heatmaps, fields)
            )
        return heatmaps, fields

    def decode(self, batch_outputs: Maps) -> list[InstanceData]:
        """Find people in maps.

        Args:
            batch_outputs: heatmaps and fields.

        Raises:
            RuntimeError: without a decoder.
        """
        if self.decoder is None:
            raise RuntimeError(
                'PartAffinityFieldHead has no decoder: set decoder=dict(...), the codec of the data'
            )
        decoded = zip(*self.decoder.batch_decode(*batch_outputs), strict=True)
        return [
            InstanceData(keypoints=joints, keypoint_scores=scores, bbox_scores=of_people)
            for joints, scores, of_people in decoded
        ]


def _resize(maps: Tensor, size: tuple[int, ...], cfg: dict[str, Any]) -> Tensor:
    """Resize maps to height and width."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    align = bool(cfg.get('align_corners', False))
    shape = [int(side) for side in size]
    return F.interpolate(maps, shape, mode='bilinear', align_corners=align)
