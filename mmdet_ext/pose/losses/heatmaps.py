"""Loss of heatmaps of joints."""

from __future__ import annotations

from torch import Tensor, nn

from mmdet_ext.functional.numerics.checks import check_number, check_whole
from mmdet_ext.functional.pose.heatmaps import hard_keypoint_mean, heatmap_mse_loss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class KeypointHeatmapLoss(nn.Module):
    r"""Squared error of heatmaps, in the call of MMPose's KeypointMSELoss.

    With the usual options it is that loss; formula of a heatmap: `heatmap_mse_loss`. A head of
    several people gives weights of people, which do not fit the heatmaps that they share: without
    ``use_target_weight`` they are not used, where MMPose's loss stops with an AssertionError.

    Args:
        use_target_weight: whether weights of the call count.
        hard_keypoints: number of joints per image, those of the largest loss, over which the mean
            is taken; None for all.
        positive_threshold: target from which on a pixel is a positive; None for no difference.
        positive_weight: weight of positives, at least 0. Most pixels of a heatmap are background.
        skip_empty_channel: whether heatmaps without any target other than 0 cost nothing.
        loss_weight: factor on the loss, at least 0.

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(
        self,
        use_target_weight: bool = False,
        hard_keypoints: int | None = None,
        positive_threshold: float | None = None,
        positive_weight: float = 1.0,
        skip_empty_channel: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if hard_keypoints is not None:
            check_whole('hard_keypoints', hard_keypoints)
        if positive_threshold is not None:
            check_number('positive_threshold', positive_threshold, finite=True)
        check_number('positive_weight', positive_weight, least=0, finite=True)
        check_number('loss_weight', loss_weight, least=0, finite=True)
        self.use_target_weight = use_target_weight
        self.hard_keypoints = hard_keypoints
        self.positive_threshold = positive_threshold
        self.positive_weight = positive_weight
        self.skip_empty_channel = skip_empty_channel
        self.loss_weight = loss_weight

    def forward(
        self,
        output: Tensor,
        target: Tensor,
        target_weights: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            output: heatmaps, (B, K, H, W).
            target: their targets, (B, K, H, W).
            target_weights: weight of each joint, (B, K), or of each pixel, (B, K, H, W).
            mask: 0 where pixels do not count, (B, K, H, W) or (B, 1, H, W).

        Returns:
            Tensor: a scalar, float32, or float64 with an input; 0 with a graph for no images.

        Raises:
            ValueError: for shapes that do not fit.
        """
        loss = heatmap_mse_loss(
            output,
            target,
            target_weights if self.use_target_weight else None,
            mask,
            positive_threshold=self.positive_threshold,
            positive_weight=self.positive_weight,
        )
        if self.skip_empty_channel:
            empty = ~(target != 0).flatten(2).any(2)
            # An empty channel may hold values that are not finite.
            loss = loss.masked_fill(empty, 0)
        if self.hard_keypoints is not None and loss.numel():
            loss = hard_keypoint_mean(loss, self.hard_keypoints)
        return self.loss_weight * (loss.sum() / max(loss.numel(), 1))

    def extra_repr(self) -> str:
        """Return the options, as printed with a model."""
        return ', '.join(
            f'{name}={value!r}'
            for name, value in vars(self).items()
            if name[0] != '_' and name != 'training'
        )
