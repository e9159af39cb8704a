"""Base class of the losses on embeddings that face heads take."""

from __future__ import annotations

from torch import Tensor, nn

from mmdet_ext.functional.numerics.checks import check_number


class FeatureLoss(nn.Module):
    """Loss on the features (embeddings) of a batch and their labels, with or without a head.

    ``loss(features, labels)`` returns a dict. Its entry 'loss' is the scalar to minimise, times
    ``loss_weight``. The other entries are for the log, such as numbers of triplets, as float
    scalars without a graph.

    MMEngine adds up every entry whose name contains 'loss', and only logs the others. So no other
    key may contain 'loss', and neither may a prefix that a head puts before the keys.

    `TripletLoss` returns the scalar alone by default, as mmdet's loss of that name does. `losses`
    returns the dict for every loss. A subclass defines `losses`.

    Args:
        loss_weight: factor on the loss, at least 0.

    Raises:
        ValueError: for a negative ``loss_weight``.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        why = '0 will do as well; it is the factor on the loss'
        wanted = 'above 0 and finite'
        check_number('loss_weight', loss_weight, wanted, least=0, finite=True, why=why)
        self.loss_weight = loss_weight

    def losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the loss and the scalars for the log.

        Args:
            features: (N, D), floating point; half precision is computed in float32.
            labels: (N,) integers.

        Returns:
            dict: 'loss', a scalar that keeps the graph even where it is 0, and float scalars.

        Raises:
            TypeError, ValueError: for features and labels that do not fit each other.
        """
        raise NotImplementedError(f'{type(self).__name__} does not define losses')

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor] | Tensor:
        """Return the dict of `losses`; a subclass may return the scalar alone."""
        return self.losses(features, labels)

    def extra_repr(self) -> str:
        """Return the options, as printed with a model."""
        options = {k: v for k, v in vars(self).items() if k[0] != '_' and k != 'training'}
        return ', '.join(f'{name}={value!r}' for name, value in options.items())
