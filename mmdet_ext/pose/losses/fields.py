"""Loss of heatmaps and part affinity fields."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmdet_ext.functional.numerics.checks import check_number, check_that
from mmdet_ext.functional.pose.fields import paf_loss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class PartAffinityFieldLoss(nn.Module):
    r"""Squared errors of heatmaps, and of the fields of limbs.

    Formulas: `heatmap_mse_loss` and `paf_loss`, of which the means over joints, limbs and images
    are taken.

    Args:
        heatmap_weight: factor on the loss of heatmaps, at least 0.
        field_weight: factor on the loss of fields, at least 0.
        heatmap_loss: options of the loss of heatmaps, in the call of KeypointHeatmapLoss; None for
            that loss.

    Raises:
        ValueError: for an option out of its range.

    References:
        Cao et al., Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields, 2017,
        equations 4 to 6.
    """

    def __init__(
        self,
        heatmap_weight: float = 1.0,
        field_weight: float = 1.0,
        heatmap_loss: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_number('heatmap_weight', heatmap_weight, least=0, finite=True)
        check_number('field_weight', field_weight, least=0, finite=True)
        self.heatmap_weight = heatmap_weight
        self.field_weight = field_weight
        self.heatmap_loss = MODELS.build(heatmap_loss or {'type': 'mmdet_ext.KeypointHeatmapLoss'})

    def forward(
        self,
        output: Tensor,
        fields: Tensor,
        target: Tensor,
        field_target: Tensor,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute both losses of a batch.

        Args:
            output: heatmaps, (B, K, H, W).
            fields: x and y of each limb's field in turn, (B, 2 C, H, W).
            target: targets of the heatmaps, (B, K, H, W).
            field_target: targets of the fields, (B, 2 C, H, W).
            mask: 0 where pixels do not count, such as in crowds without labels, (B, 1, H, W).

        Returns:
            tuple: loss of heatmaps and loss of fields, two scalars.

        Raises:
            ValueError: for shapes that do not fit.
        """
        shape = tuple(fields.shape)
        check_that(len(shape) == 4 and shape[1] % 2 == 0, 'fields', shape, '(B, 2 C, H, W)')
        check_that(
            shape == field_target.shape, 'field_target', tuple(field_target.shape), f'{shape}'
        )
        if mask is not None:
            wanted = (shape[0], 1, *shape[2:])
            check_that(mask.shape == wanted, 'mask', tuple(mask.shape), f'{wanted}')
        pairs = (shape[0], shape[1] // 2, 2, *shape[2:])
        of_limbs = paf_loss(
            fields.reshape(pairs),
            field_target.reshape(pairs),
            mask=None if mask is None else mask[:, 0],
        )
        of_joints = self.heatmap_loss(output, target, None, mask)
        of_fields = of_limbs.sum() / max(of_limbs.numel(), 1)
        return self.heatmap_weight * of_joints, self.field_weight * of_fields

    def extra_repr(self) -> str:
        """Return the options, as printed with a model."""
        return f'heatmap_weight={self.heatmap_weight}, field_weight={self.field_weight}'
