"""Metric-learning losses on distances to class centres and between pairs of samples.

`mmdet_ext.functional.embedding.triplet` holds the loss on triplets.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.functional.numerics.bounds import at_least
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'ContrastiveResult',
    'Distance',
    'center_loss',
    'center_shift',
    'check_contrastive_options',
    'check_feature_batch',
    'class_mean_center_loss',
    'contrastive_loss',
    'pairwise_distance',
    'shifted_centers',
]

Distance = Literal['euclidean', 'squared_euclidean', 'cosine']

# Smallest length by which a feature is divided. With it, the gradient of a zero feature fits
# float16.
_SHORTEST = 1e-4

#: Elements of one chunk of a table that is larger than samples x samples.
CHUNK_ELEMENTS = 2**24


class ContrastiveResult(NamedTuple):
    """Loss of a batch, with counts of its pairs (i < j).

    Attributes:
        loss: scalar.
        positive_pairs: number of pairs of one identity, integer scalar.
        negative_pairs: number of pairs of two identities, integer scalar.
        close_negative_pairs: number of negative pairs nearer than the margin, integer scalar. Of
            the negative pairs, only these have a gradient.
    """

    loss: Tensor
    positive_pairs: Tensor
    negative_pairs: Tensor
    close_negative_pairs: Tensor


def check_feature_batch(features: Tensor, labels: Tensor, num_classes: int | None = None) -> None:
    """Raise an error that names both arguments unless they are features (N, D) and labels (N,).

    Args:
        features: floating point.
        labels: integers, on the device of the features.
        num_classes: C, if labels must lie in 0 to C - 1. Their values are checked on a CPU only,
            because reading them from another device would wait for it.

    Raises:
        TypeError: for features that are not floating point, or labels that are not integers.
        ValueError: for shapes, devices or labels that do not fit.
    """
    for name, value in (('features', features), ('labels', labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f'{name} must be a tensor, got {type(value).__name__}')
    if not features.is_floating_point():
        raise TypeError(f'features must be floating point, got {features.dtype}')
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(
            f'labels must be integers, one identity per sample, got {labels.dtype}: call .long()'
        )
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            'features must be (N, D) and labels (N,), got '
            f'{tuple(features.shape)} and {tuple(labels.shape)}'
        )
    if features.device != labels.device:
        raise ValueError(
            f'features are on {features.device}, labels on {labels.device}: move one of them'
        )
    if num_classes is None or labels.device.type != 'cpu' or torch.compiler.is_compiling():
        return
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(
            f'labels must lie in 0 to {num_classes - 1} for num_classes={num_classes}, got '
            f'{int(wrong[0])} ({len(wrong)} of {len(labels)} are outside): look at num_classes '
            'and at the labels of the data set'
        )


def center_loss(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    r"""Compute half the squared distance of each sample to the centre of its identity.

    .. math:: L_i = \tfrac12 \lVert x_i - c_{y_i} \rVert_2^2

    Args:
        features: x, (N, D); half precision is computed in float32.
        labels: y, (N,) integers in 0 to C - 1.
        centers: c, (C, D).

    Returns:
        Tensor: (N,). The paper sums it over the batch.

    Raises:
        TypeError, ValueError: as `check_feature_batch` raises them; for centres that do not fit.

    >>> center_loss(torch.tensor([[3., 4.]]), torch.tensor([1]), torch.zeros(2, 2))
    tensor([12.5000])

    References:
        Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV
        2016, equation 2.
    """
    return _center_offset(features, labels, centers).square().sum(1) / 2


def class_mean_center_loss(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    r"""Compute the distance of each sample to its centre, divided by the size of its identity.

    .. math:: L_i = \lVert x_i - c_{y_i} \rVert_2 \;/\; \#\{k : y_k = y_i\}

    The size is the number of samples of the identity in the batch. The sum over a batch is then
    the sum over its identities of their mean distance: an identity with many images weighs as much
    as an identity with one. The distance is not squared.

    Args:
        features: x, (N, D); half precision is computed in float32.
        labels: y, (N,) integers in 0 to C - 1.
        centers: c, (C, D); they receive a gradient, so that they can be trained.

    Returns:
        Tensor: (N,). A sample at its centre gives 0 with gradient 0.

    Raises:
        TypeError, ValueError: as `center_loss` raises them.

    >>> x = torch.tensor([[3., 4.], [0., 1.], [0., 2.]])
    >>> class_mean_center_loss(x, torch.tensor([1, 0, 0]), torch.zeros(2, 2))
    tensor([5.0000, 0.5000, 1.0000])
    """
    offset = _center_offset(features, labels, centers)
    count = (labels[:, None] == labels).sum(1)
    distance: Tensor = torch.linalg.vector_norm(offset, dim=1)
    return distance / count


def center_shift(
    features: Tensor, labels: Tensor, centers: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Compute the sums of a batch in the paper's update of the centres.

    .. math:: s_j = \sum_{y_i = j} (c_j - x_i), \quad n_j = \#\{i : y_i = j\}

    Args:
        features: x, (N, D).
        labels: y, (N,) integers in 0 to C - 1.
        centers: c, (C, D).
        classes: identities j to compute, (U,), ascending; they must include every label.

    Returns:
        tuple: s (U, D) and n (U,), both in the precision of the loss. Sums of parts of a batch
        add up to the sums of the batch.

    >>> x = torch.tensor([[1.], [2.]])
    >>> center_shift(x, torch.tensor([4, 4]), torch.zeros(5, 1), torch.tensor([3, 4]))
    (tensor([[ 0.],
            [-3.]]), tensor([0., 2.]))
    """
    offset = _center_offset(features, labels, centers)
    place = torch.searchsorted(classes, labels.to(classes.dtype).contiguous())
    total = offset.new_zeros(len(classes), offset.shape[1]).index_add(0, place, -offset)
    count = offset.new_zeros(len(classes)).index_add(0, place, offset.new_ones(len(offset)))
    return total, count


def shifted_centers(centers: Tensor, shift: Tensor, count: Tensor, alpha: float) -> Tensor:
    r"""Update the centres as the paper does.

    .. math:: c_j - \alpha \; s_j / (1 + n_j)

    Args:
        centers: c, (U, D).
        shift: s, (U, D), as `center_shift` returns it.
        count: n, (U,), as `center_shift` returns it.
        alpha: from 0, which leaves the centres in place, to 1.

    Returns:
        Tensor: (U, D). A centre stays in place where its update is not finite, as after an
        overflow in half precision: one step that a loss scaler skips must not spoil it for good.

    >>> shifted_centers(torch.zeros(1, 1), torch.tensor([[-3.]]), torch.tensor([2.]), alpha=0.5)
    tensor([[0.5000]])

    References:
        Wen et al., 2016 (see `center_loss`), equation 4 and algorithm 1.
    """
    moved = centers - alpha * shift / (1 + count[:, None])
    return torch.where(moved.isfinite().all(1, keepdim=True), moved, centers)


def _center_offset(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """Return x - c of each sample, (N, D), in at least float32."""
    check_feature_batch(features, labels, len(centers))
    if centers.dim() != 2 or centers.shape[1:] != features.shape[1:]:
        raise ValueError(
            'features (N, D) and centers (C, D) must have one D, got '
            f'{tuple(features.shape)} and {tuple(centers.shape)}: look at in_channels'
        )
    features, own = promote_half(features, centers[labels.long()])
    return features - own


def pairwise_distance(
    features: Tensor, distance: Distance = 'euclidean', normalize: bool = False
) -> Tensor:
    r"""Compute the distances between all pairs of samples.

    - euclidean: :math:`\lVert x_i - x_j \rVert`.
    - squared_euclidean: its square.
    - cosine: :math:`1 - \cos(x_i, x_j)`, computed as half the squared distance of the unit
      vectors. It is exactly 0 for equal features and never negative.

    Args:
        features: x, (N, D); half precision is computed in float32.
        distance: 'euclidean', 'squared_euclidean' or 'cosine'.
        normalize: scale features to length 1 first; 'cosine' always does.

    Returns:
        Tensor: (N, N). Equal features have distance 0 with gradient 0. Differences are taken
        before they are squared, so that near samples keep their digits. Scaling to length 1
        divides by at least 1e-4: a zero feature stays zero, at a cosine distance of 0.5 to all
        others. Squares of features beyond 1e18 overflow float32.

    Raises:
        ValueError: for an unknown ``distance``.

    >>> pairwise_distance(torch.tensor([[0., 0.], [3., 4.]]))
    tensor([[0., 5.],
            [5., 0.]])
    """
    check_one_of('distance', distance, Distance)
    (features,) = promote_half(features)
    if normalize or distance == 'cosine':
        length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        features = features / at_least(length, _SHORTEST)
    # The backward pass of cdist on a GPU holds rows x N x D elements.
    rows = max(1, CHUNK_ELEMENTS // max(1, features.numel()))
    exact = 'donot_use_mm_for_euclid_dist'
    table = torch.cat(
        [torch.cdist(part, features, compute_mode=exact) for part in features.split(rows)]
    )
    if distance == 'euclidean':
        return table
    return table.square() if distance == 'squared_euclidean' else table.square() / 2


def check_contrastive_options(margin: float, distance: Distance) -> None:
    """Raise ValueError, naming the option, unless `contrastive_loss` accepts both options."""
    why = 'at 0 nothing would push identities apart'
    check_number('margin', margin, above=0, finite=True, why=why)
    check_one_of('distance', distance, Distance)


def contrastive_loss(
    features: Tensor,
    labels: Tensor,
    margin: float = 1.0,
    distance: Distance = 'euclidean',
    normalize: bool = False,
    balance: bool = False,
) -> ContrastiveResult:
    r"""Compute the contrastive loss over all pairs of a batch.

    It pulls samples of one identity together, and pushes samples of two identities apart until
    they are a margin from each other.

    .. math:: L_{ij} = (1 - Y) \tfrac12 D^2 + Y \tfrac12 \max(0, m - D)^2

    with Y = 0 for two samples of one identity and Y = 1 for samples of two identities (some texts
    define Y the other way round), D the distance of the two samples, and m = ``margin``.

    Args:
        features: (N, D); half precision is computed in float32.
        labels: (N,) integers, any values.
        margin: m, above 0, in units of the distance.
        distance: D, as `pairwise_distance` defines it.
        normalize: as `pairwise_distance` defines it.
        balance: average the mean over positive pairs and the mean over negative pairs. False
            takes one mean over all pairs. With P identities of K samples there are
            K (P - 1) / (K - 1) negative pairs per positive pair, and far ones cost nothing.

    Returns:
        ContrastiveResult: scalars. Without pairs the loss is a zero that keeps the graph. A kind
        of pair that is absent contributes 0.

    Raises:
        TypeError, ValueError: as `check_feature_batch` raises them; for an option out of range.

    >>> x = torch.tensor([[0.], [2.], [2.5]])
    >>> contrastive_loss(x, torch.tensor([0, 0, 1]))[:2]
    (tensor(0.7083), tensor(1))

    (2^2 / 2 for the positive pair, (1 - 0.5)^2 / 2 for the near negative, 0 for the far one.)

    References:
        Hadsell, Chopra and LeCun, Dimensionality Reduction by Learning an Invariant Mapping, CVPR
        2006, equation 4.
    """
    check_contrastive_options(margin, distance)
    check_feature_batch(features, labels)
    table = pairwise_distance(features, distance, normalize)
    same = labels[:, None] == labels
    upper = torch.ones_like(same).triu(1)
    positive, negative = same & upper, ~same & upper
    pull = torch.where(positive, table.square() / 2, 0).sum()
    push = torch.where(negative, F.relu(margin - table).square() / 2, 0).sum()
    positives, negatives = positive.sum(), negative.sum()
    if balance:
        loss = (pull / positives.clamp(min=1) + push / negatives.clamp(min=1)) / 2
    else:
        loss = (pull + push) / (positives + negatives).clamp(min=1)
    close = (negative & (table.detach() < margin)).sum()
    return ContrastiveResult(loss, positives, negatives, close)
