"""Hard example mining over samples or pixels: a choice by the probability of their labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.functional.classification.mining import hardest_of_rows
from mmdet_ext.functional.classification.softmax_maps import map_cross_entropy
from mmdet_ext.functional.numerics.checks import check_number, check_whole
from mmdet_ext.functional.numerics.map_blocks import is_map
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['check_pixel_mining', 'hard_pixel_mask', 'label_log_probability']


@torch.no_grad()
def label_log_probability(pred: Tensor, label: Tensor, use_sigmoid: bool = False) -> Tensor:
    """Compute the logarithm of the probability that predictions give to their labels.

    Args:
        pred: (N, C) or (N, C, ...) logits; half precision is computed in float32.
        label: (N, ...) labels; what negative labels get has no meaning. With sigmoid, labels from
            C on are background, of which the probability is 1 minus the highest.
        use_sigmoid: whether each column is a binary decision.

    Returns:
        Tensor: (N, ...), at most 0, float32 or float64, without a graph.

    >>> label_log_probability(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    classes = pred.shape[1]
    index = label.long().clamp(0, max(classes - 1, 0))
    if not use_sigmoid and is_map(pred):
        return -map_cross_entropy(pred, index)
    if not use_sigmoid:
        (pred,) = promote_half(pred)
        return pred.log_softmax(1).gather(1, index.unsqueeze(1)).squeeze(1)
    own = pred.gather(1, index.unsqueeze(1)).squeeze(1)
    if classes > 0:
        own = torch.where(label < classes, own, -pred.amax(1))
    return F.logsigmoid(*promote_half(own))


@torch.no_grad()
def hard_pixel_mask(
    log_probability: Tensor,
    valid_mask: Tensor,
    thresh: float | None = 0.7,
    min_kept: int = 100_000,
    hardness: Tensor | None = None,
) -> Tensor:
    r"""Mark the pixels whose label has a low probability, and a least number of the hardest.

    With :math:`r_i` the rank of pixel i among all valid ones, 0 for the hardest, i is marked if

    .. math:: p_i < t \quad \text{or} \quad r_i < m

    for :math:`t` = ``thresh`` and :math:`m` = ``min_kept``.

    Args:
        log_probability: (N, ...), logarithm of the probability of the label.
        valid_mask: (N, ...) bool; a pixel with False neither counts nor is marked.
        thresh: probability in [0, 1] below which a pixel is marked; None: rank decides alone.
        min_kept: least number of pixels that are marked, from 0, of all images together.
        hardness: (N, ...), what ranks the pixels instead of the lowness of their probability.

    Returns:
        Tensor: (N, ...) bool. With fewer valid pixels than ``min_kept``, all of them are marked. Of
        two pixels that are equally hard, the earlier ranks as the harder. A NaN is hard.

    Raises:
        ValueError: for an option out of range.

    >>> log_p = torch.tensor([0.9, 0.2, 0.8, 0.95]).log()
    >>> hard_pixel_mask(log_p, torch.ones(4, dtype=torch.bool), thresh=0.7, min_kept=2)
    tensor([False,  True,  True, False])

    References:
        Shrivastava et al., Training Region-based Object Detectors with Online Hard Example
        Mining, 2016, for the idea. Wu et al., Bridging Category-level and Instance-level Semantic
        Image Segmentation, 2016, the section on online bootstrapping, for the rule.
    """
    check_pixel_mining(thresh, min_kept)
    kept = torch.zeros_like(valid_mask)
    if thresh is not None:
        # Not "below", so that a NaN is kept, and seen.
        kept = valid_mask & ~(log_probability.exp() >= thresh)
    if min_kept == 0:
        return kept
    may_look = kept.device.type == 'cpu' and not torch.compiler.is_compiling()
    if hardness is None and may_look:  # the least probable pixels are among those that are marked
        if int(kept.sum()) >= min_kept:
            return kept
    rank_by = -log_probability if hardness is None else hardness
    quota = torch.full((1,), min(min_kept, kept.numel()), device=kept.device)
    hardest = hardest_of_rows(rank_by.flatten(), valid_mask.flatten(), quota)
    return kept | hardest.view_as(kept)


def check_pixel_mining(thresh: float | None, min_kept: int) -> None:
    """Raise ValueError unless the options of `hard_pixel_mask` are in their ranges."""
    if thresh is not None:
        check_number('thresh', thresh, least=0, most=1, why='it is a probability')
    check_whole('min_kept', min_kept, 0 if thresh is not None else 1)
