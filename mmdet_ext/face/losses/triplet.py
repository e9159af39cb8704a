"""Triplet loss."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.face.losses.base import FeatureLoss
from mmdet_ext.functional.embedding.distances import Distance
from mmdet_ext.functional.embedding.triplet import Mining, triplet_loss
from mmdet_ext.functional.numerics.checks import check_not_negative, check_one_of
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class TripletLoss(FeatureLoss):
    """Holds negatives farther from an anchor than positives, by a margin.

    Mining, formulae and edges: :func:`mmdet_ext.functional.embedding.triplet.triplet_loss`. Takes the
    options and the call of mmdet's stock TripletLoss, and by default returns a scalar as it does.
    Its value is equal to stock's where each identity of the batch has two samples or more and
    there are two identities or more. Elsewhere stock fails on a batch of one identity, and takes
    an anchor without another sample of its identity for its own positive; here such a batch is 0,
    and such an anchor does not count. Near samples keep their digits, equal ones have distance 0
    (1e-6 in stock). Stock has batch-hard mining alone.

    Logged beside the loss where ``log_counts`` is set: 'easy', 'semi_hard' and 'hard', how many of
    all triplets of the batch are which, whatever the mining.

    Args:
        margin: at least 0, in units of the distance.
        loss_weight: factor on the loss.
        hard_mining: stock's option: True. False, which stock does not implement, needs another
            ``mining`` than 'batch_hard'.
        mining: 'batch_hard', 'semi_hard' or 'batch_all'.
        distance: 'euclidean', 'squared_euclidean' or 'cosine'. FaceNet's is the squared one of
            normalised features, with a margin of 0.2.
        normalize: scale features to length 1 first; the cosine does always.
        soft_margin: log(1 + exp(p - n)) instead of the hinge; the margin then only counts.
        log_counts: return a dict with the counts beside the loss, as other losses here do. False
            returns the scalar, which is what stock's heads can take. `losses` is the dict always.

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
        check_not_negative('margin', margin, 'it is how much farther than a positive a negative is')
        check_one_of('mining', mining, Mining)
        check_one_of('distance', distance, Distance)
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
        """The loss, and how many triplets are easy, semi-hard and hard."""
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
        """The loss; with ``log_counts``, the dict of `losses`.

        Args:
            inputs: features (N, D), by stock's name.
            targets: labels (N,), likewise.
        """
        losses = self.losses(inputs, targets)
        return losses if self.log_counts else losses['loss']
