"""Contrastive loss."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.face.losses.base import FeatureLoss
from mmdet_ext.functional.embedding.distances import Distance, contrastive_loss
from mmdet_ext.functional.numerics.checks import check_above, check_one_of
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class ContrastiveLoss(FeatureLoss):
    """Draws the samples of one identity together, and holds others at least a margin apart.

    Over all pairs of the batch. Formula and edges:
    :func:`mmdet_ext.functional.embedding.distances.contrastive_loss`.

    Logged beside the loss: 'positive_pairs', 'negative_pairs' and 'close_negative_pairs', those
    nearer than the margin.

    Args:
        margin: above 0, in units of the distance.
        distance: 'euclidean', 'squared_euclidean' or 'cosine'.
        normalize: scale features to length 1 first; the cosine does always.
        balance: positive and negative pairs weigh the same together, however many there are.
        loss_weight: factor on the loss.

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
        check_above('margin', margin, 0, 'at 0 nothing would push identities apart')
        check_one_of('distance', distance, Distance)
        self.margin = margin
        self.distance: Distance = distance
        self.normalize = normalize
        self.balance = balance

    def losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss, and how many pairs there are of either kind."""
        loss, *counts = contrastive_loss(
            features, labels, self.margin, self.distance, self.normalize, self.balance
        )
        names = ('positive_pairs', 'negative_pairs', 'close_negative_pairs')
        numbers = (count.to(loss.dtype) for count in counts)
        return {'loss': self.loss_weight * loss, **dict(zip(names, numbers, strict=True))}
