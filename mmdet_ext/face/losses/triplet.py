"""Triplet loss."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.face.losses.base import FeatureLoss
from mmdet_ext.functional.embedding.distances import Distance
from mmdet_ext.functional.embedding.triplet import Mining, check_triplet_options, triplet_loss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class TripletLoss(FeatureLoss):
    """Loss that keeps negatives a margin farther from an anchor than positives.

    :func:`mmdet_ext.functional.embedding.triplet_loss` states mining, formulas and edges.

    It is a drop-in replacement for mmdet's TripletLoss: it takes its options and its call, and by
    default returns a scalar. The values are equal if the batch has two identities or more, with
    two samples or more each. For other batches mmdet's loss fails on a single identity, and takes
    an anchor without another sample of its identity as its own positive. Here such a batch costs
    0, and such an anchor does not count. Near samples keep their digits, and equal samples have
    distance 0 instead of 1e-6. mmdet's loss has batch-hard mining alone.

    With ``log_counts`` the log gets 'easy', 'semi_hard' and 'hard', the numbers of such triplets
    among all triplets of the batch, whatever the mining.

    Args:
        margin: at least 0, in units of the distance.
        loss_weight: factor on the loss, at least 0.
        hard_mining: mmdet's option. False, which mmdet does not implement, needs a ``mining``
            other than 'batch_hard'.
        mining: 'batch_hard', 'semi_hard' or 'batch_all'.
        distance: 'euclidean', 'squared_euclidean' or 'cosine'. FaceNet uses the squared distance
            of normalised features, with a margin of 0.2.
        normalize: scale features to length 1 first; 'cosine' always does.
        soft_margin: use log(1 + exp(p - n)) instead of the hinge, for distances p to the positive
            and n to the negative. The margin then only matters to the counts.
        log_counts: return a dict with loss and counts, as other feature losses do. False returns
            the scalar that mmdet's heads take. `losses` returns the dict in both cases.

    Raises:
        ValueError: for an option out of range.

    References:
        Schroff, Kalenichenko and Philbin, FaceNet, CVPR 2015.
        Hermans, Beyer and Leibe, In Defense of the Triplet Loss for Person Re-Identification,
        2017.
    """

    def __init__(
        self,
        margin: float = 0.3,
        loss_weight: float = 1.0,
        hard_mining: bool = True,
        mining: Mining = 'batch_hard',
        distance: Distance = 'euclidean',
        normalize: bool = False,
        soft_margin: bool = False,
        log_counts: bool = False,
    ) -> None:
        super().__init__(loss_weight)
        check_triplet_options(margin, mining, distance)
        if not hard_mining and mining == 'batch_hard':
            raise ValueError(
                "hard_mining=False contradicts mining='batch_hard': set mining to 'semi_hard' or "
                "'batch_all'"
            )
        self.margin = margin
        self.hard_mining = hard_mining
        self.mining: Mining = mining
        self.distance: Distance = distance
        self.normalize = normalize
        self.soft_margin = soft_margin
        self.log_counts = log_counts

    def losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the loss and the numbers of easy, semi-hard and hard triplets."""
        loss, *counts = triplet_loss(
            features,
            labels,
            self.margin,
            self.mining,
            self.distance,
            self.normalize,
            self.soft_margin,
        )
        easy, semi_hard, hard = (count.to(loss.dtype) for count in counts)
        return {
            'loss': self.loss_weight * loss,
            'easy': easy,
            'semi_hard': semi_hard,
            'hard': hard,
        }

    def forward(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor] | Tensor:
        """Return the loss, or the dict of `losses` with ``log_counts``.

        Args:
            inputs: features (N, D), under mmdet's name.
            targets: labels (N,), under mmdet's name.
        """
        losses = self.losses(inputs, targets)
        return losses if self.log_counts else losses['loss']
