"""Squeeze-and-excitation, as a plugin of mmdet's ResNet."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_ext.functional.numerics.checks import check_count, check_that
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class SqueezeExcitation(BaseModule):  # type: ignore[misc]
    r"""Plugin that weighs the channels of a map by what the whole map shows.

    .. math::
        z_c &= \frac{1}{HW} \sum_{i, j} u_c(i, j) \\
        s &= \sigma(W_2 \max(W_1 z, 0)) \\
        \tilde x_c &= s_c u_c

    with :math:`u` the map, :math:`W_1` to ``in_channels / ratio`` numbers and :math:`W_2` back.

    mmdet has ``SELayer`` in its code, but its ResNet cannot take it as a plugin: plugins are built
    with ``in_channels``, which ``SELayer`` calls ``channels``. In a block with an identity the
    place is before the sum::

        backbone=dict(
            type='ResNet', depth=50, ...,
            plugins=[dict(cfg=dict(type='mmdet_ext.SqueezeExcitation'), position='after_conv3')],
        )

    mmdet's ResNet takes plugins in blocks of three convolutions alone, so from 50 layers on.

    Args:
        in_channels: channels of the map, given by the block.
        ratio: by how much the channels are squeezed, 16 in the paper.
        init_cfg: config of the initialisation.

    Raises:
        ValueError: if ``ratio`` is below 1, or above ``in_channels``.

    References:
        Hu et al., Squeeze-and-Excitation Networks, 2018, eqs. 2 to 4.
    """

    def __init__(self, in_channels: int, ratio: int = 16, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        check_count('in_channels', in_channels)
        check_count('ratio', ratio)
        check_that(ratio <= in_channels, 'ratio', ratio, f'at most in_channels={in_channels}')
        squeezed = in_channels // ratio
        self.squeeze = nn.Linear(in_channels, squeezed)
        self.excite = nn.Linear(squeezed, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, in_channels, H, W) with its channels weighed."""
        scale: Tensor = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return x * scale[:, :, None, None]
