"""Centre loss."""

from __future__ import annotations

from numbers import Real
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
from mmdet_ext.functional.numerics.checks import check_above, check_one_of
from mmdet_ext.registry import MODELS

Form = Literal['paper', 'learnable']


@MODELS.register_module()
class CenterLoss(FeatureLoss):
    r"""Draws features to the centre of their identity; beside a classifier that keeps them apart.

    Alone it is smallest where all features and centres are one point. Two forms:

    paper: the mean over the batch of half the squared distance (the paper has the sum; with it
    ``loss_weight`` would depend on the batch size). The centres are no parameters. In training
    they follow each batch, after its loss has been taken:

    .. math:: L = \frac{1}{2N} \sum_i \lVert x_i - c_{y_i} \rVert_2^2, \quad
        c_j \leftarrow c_j - \alpha \frac{\sum_{y_i = j} (c_j - x_i)}{1 + n_j}

    with n_j the samples of j in the batch. They start at 0, are buffers of the checkpoint, and
    are the same in all processes: sums and counts are taken over the batches of all of them, as if
    it were one batch. What is not finite moves no centre.

    learnable: the centres are a parameter, which the optimiser trains, from a normal distribution.
    An identity costs the mean distance, not squared, of its samples, whatever their number:

    .. math:: L = \sum_i \lVert x_i - c_{y_i} \rVert_2 \;/\; n_{y_i}

    It is a sum over the identities of the batch. The gradient has length at most 1 / n_j a sample,
    and 0 at the centre itself.

    Logged beside the loss: 'distance', the mean distance of the samples to their centres.

    Args:
        num_classes: C.
        in_channels: D, the length of a feature.
        form: as above.
        alpha: of the paper's form, from 0 (centres stay) to 1.
        loss_weight: the paper's lambda, 0.003 there for the sum over a batch of 256.

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
        check_above('num_classes', num_classes, 0, 'one centre each')
        check_above('in_channels', in_channels, 0, 'it is the length of a feature')
        check_one_of('form', form, Form)
        if not isinstance(alpha, Real) or not 0 <= float(alpha) <= 1:
            raise ValueError(
                f'alpha must be from 0 to 1, got {alpha!r}: it is the part of the way that a '
                'centre goes with each batch'
            )
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.form: Form = form
        self.alpha: float = alpha
        if form == 'paper':
            self.register_buffer('centers', torch.zeros(num_classes, in_channels))
        else:
            self.centers = nn.Parameter(torch.randn(num_classes, in_channels))

    def losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss and the mean distance to the centres; moves centres in training."""
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
        classes = _labels_everywhere(labels.long()).unique()
        shift, count = center_shift(features, labels, self.centers, classes)
        all_reduce(shift, op='sum')
        all_reduce(count, op='sum')
        # All processes add the same numbers here, so that centres are equal to the last bit.
        moved = shifted_centers(self.centers[classes], shift, count, self.alpha)
        self.centers[classes] = moved.to(self.centers.dtype)


def _labels_everywhere(labels: Tensor) -> Tensor:
    """The labels of all processes, whose batches may differ in size."""
    if get_world_size() == 1:
        return labels
    most = torch.tensor([len(labels)], device=labels.device)
    all_reduce(most, op='max')
    padded = F.pad(labels, (0, int(most) - len(labels)), value=-1)
    together = torch.cat(all_gather(padded))
    return together[together >= 0]
