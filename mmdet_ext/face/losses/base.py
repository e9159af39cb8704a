"""How heads of face recognition call a loss on features."""

from __future__ import annotations

from torch import Tensor, nn

from mmdet_ext.functional.numerics.checks import check_not_negative


class FeatureLoss(nn.Module):
    """A loss on the features (embeddings) of a batch and their labels, beside or without a head.

    The call is ``loss(features, labels)``, and its result a dict: 'loss', the scalar to add, times
    ``loss_weight``; beside it what is worth a line in the log, such as numbers of triplets, as
    float scalars without a graph. Of what a head returns MMEngine adds up every entry whose name
    has 'loss' in it, and logs the others: so no other key has, and a head that puts a name before
    the keys must take one without. `TripletLoss` gives the scalar alone unless told otherwise, as
    its stock twin does; `losses` is the dict for all of them.

    A subclass writes `losses`.

    Args:
        loss_weight: factor on the loss, at least 0.

    Raises:
        ValueError: for a negative ``loss_weight``.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_not_negative('loss_weight', loss_weight, 'it is the factor on the loss')
        self.loss_weight = loss_weight

    def losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss and what is logged.

        Args:
            features: (N, D), floating point; half precision is computed in float32.
            labels: (N,) integers.

        Returns:
            dict: 'loss', a scalar that keeps the graph also where it is 0, and float scalars.

        Raises:
            TypeError, ValueError: for features and labels that do not fit each other.
        """
        raise NotImplementedError(f'{type(self).__name__} does not define losses')

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor] | Tensor:
        """What `losses` gives; a subclass may make it the scalar alone."""
        return self.losses(features, labels)

    def extra_repr(self) -> str:
        """The options, as printed with a model."""
        options = {k: v for k, v in vars(self).items() if k[0] != '_' and k != 'training'}
        return ', '.join(f'{name}={value!r}' for name, value in options.items())
