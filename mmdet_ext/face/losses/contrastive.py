"""Contrastive loss."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.face.losses.base import FeatureLoss
from mmdet_ext.functional.embedding.distances import (
    Distance,
    check_contrastive_options,
    contrastive_loss,
)
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class ContrastiveLoss(FeatureLoss):
    """Loss that pulls samples of one identity together and pushes others a margin apart.

    It is computed over all pairs of the batch.
    :func:`mmdet_ext.functional.embedding.contrastive_loss` states the formula and its edges.

    The log gets 'positive_pairs', 'negative_pairs', and 'close_negative_pairs', the number of
    negative pairs nearer than the margin.

    Args:
        margin: above 0, in units of the distance.
        distance: 'euclidean', 'squared_euclidean' or 'cosine'.
        normalize: scale features to length 1 first; 'cosine' always does.
        balance: give all positive pairs together the weight of all negative pairs together.
        loss_weight: factor on the loss, at least 0.

    Raises:
        ValueError: for an option out of range.

    References:
        Hadsell, Chopra and LeCun, Dimensionality Reduction by Learning an Invariant Mapping, CVPR
        2006, equation 4.
    """

    def __init__(
        self,
        margin: float = 1.0,
        distance: Distance = 'euclidean',
        normalize: bool = False,
        balance: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        check_contrastive_options(margin, distance)
        self.margin = margin
        self.distance: Distance = distance
        self.normalize = normalize
        self.balance = balance

    def losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the loss and the number of pairs of either kind."""
        loss, *counts = contrastive_loss(
            features, labels, self.margin, self.distance, self.normalize, self.balance
        )
        names = ('positive_pairs', 'negative_pairs', 'close_negative_pairs')
        numbers = (count.to(loss.dtype) for count in counts)
        return {'loss': self.loss_weight * loss, **dict(zip(names, numbers, strict=True))}
