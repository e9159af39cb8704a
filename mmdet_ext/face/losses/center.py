"""Centre loss."""

from __future__ import annotations

from typing import Literal

import torch
from mmengine.dist import all_gather, all_reduce, get_world_size
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.face.losses.base import FeatureLoss
from mmdet_ext.functional.embedding.distances import (
    center_loss,
    center_shift,
    class_mean_center_loss,
    shifted_centers,
)
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.registry import MODELS

Form = Literal['paper', 'learnable']


@MODELS.register_module()
class CenterLoss(FeatureLoss):
    r"""Loss that pulls each feature to the centre of its identity.

    It accompanies a classifier, which keeps identities apart: alone, the loss is smallest where all
    features and centres are one point. There are two forms.

    'paper' is half the squared distance, averaged over the batch (the paper sums it, so that the
    weight of the loss would depend on the batch size):

    .. math:: L = \frac{1}{2N} \sum_i \lVert x_i - c_{y_i} \rVert_2^2, \quad
        c_j \leftarrow c_j - \alpha \frac{\sum_{y_i = j} (c_j - x_i)}{1 + n_j}

    with n_j the number of samples of j in the batch. The centres c are buffers, start at 0, and
    are kept in checkpoints. In training each batch moves them, after its loss has been computed.
    Sums and counts are taken over the batches of all processes, so that centres are equal in all.
    Features that are not finite move no centre.

    'learnable' makes the centres a parameter that the optimiser trains, drawn from a normal
    distribution. An identity costs the mean distance of its samples, not squared, whatever their
    number:

    .. math:: L = \sum_i \lVert x_i - c_{y_i} \rVert_2 \;/\; n_{y_i}

    This is a sum over the identities of the batch. The gradient of a sample has a length of at most
    1 / n_j, and is 0 at the centre.

    The log gets 'distance', the mean distance of the samples to their centres.

    Args:
        num_classes: C, number of identities.
        in_channels: D, length of a feature.
        form: 'paper' or 'learnable'.
        alpha: step of the centres in the form 'paper', from 0, which leaves them in place, to 1.
        loss_weight: factor on the loss, the paper's lambda, 0.003 there for the sum over a batch
            of 256.

    Raises:
        ValueError: for an option out of range; in a call, for a label outside 0 to C - 1.

    References:
        Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV
        2016, equations 2 to 4 and algorithm 1.
    """

    centers: Tensor

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        form: Form = 'paper',
        alpha: float = 0.5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        why = 'it is the length of a feature'
        check_number('num_classes', num_classes, above=0, finite=True, why='one centre each')
        check_number('in_channels', in_channels, above=0, finite=True, why=why)
        check_one_of('form', form, Form)
        why = 'it is the part of the way that a centre goes with each batch'
        check_number('alpha', alpha, 'from 0 to 1', least=0, most=1, why=why)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.form: Form = form
        self.alpha: float = alpha
        if form == 'paper':
            self.register_buffer('centers', torch.zeros(num_classes, in_channels))
        else:
            self.centers = nn.Parameter(torch.randn(num_classes, in_channels))

    def losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the loss and the mean distance to the centres; move the centres in training."""
        samples = max(1, len(features))
        each = center_loss(features, labels, self.centers)
        distance = (2 * each.detach()).sqrt().sum() / samples
        if self.form == 'paper':
            loss = each.sum() / samples
            if self.training:
                self._move_centers(features.detach(), labels)
        else:
            loss = class_mean_center_loss(features, labels, self.centers).sum()
        return {'loss': self.loss_weight * loss, 'distance': distance}

    @torch.no_grad()
    def _move_centers(self, features: Tensor, labels: Tensor) -> None:
        """Move the centres of the identities in the batches of all processes."""
        classes = _labels_everywhere(labels.long()).unique()
        shift, count = center_shift(features, labels, self.centers, classes)
        all_reduce(shift, op='sum')
        all_reduce(count, op='sum')
        # All processes compute the same numbers here, so that centres are equal to the last bit.
        moved = shifted_centers(self.centers[classes], shift, count, self.alpha)
        self.centers[classes] = moved.to(self.centers.dtype)


def _labels_everywhere(labels: Tensor) -> Tensor:
    """Return the labels of all processes, whose batches may differ in size."""
    if get_world_size() == 1:
        return labels
    most = torch.tensor([len(labels)], device=labels.device)
    all_reduce(most, op='max')
    padded = F.pad(labels, (0, int(most) - len(labels)), value=-1)
    together = torch.cat(all_gather(padded))
    return together[together >= 0]
