"""Other classes so similar to a sample that they are taken for its own identity."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmdet_ext.face.margins.base import Margin
from mmdet_ext.functional.embedding.chunked_competition import OtherScores
from mmdet_ext.functional.numerics.checks import check_number

# Far below any score, but finite: the gradient stays finite where all classes are left out.
_LOWEST = -1e30


class FilteredScores:
    """Rule that leaves classes above a threshold out, and hands the rest to the margin's rule.

    A class that is left out scores -1e30: its weight in the softmax, or in the sum of UniFace,
    is 0.

    Args:
        threshold: largest similarity of a class that stays, (N,).
        rule: the margin's own rule; None for unchanged similarities.

    Attributes:
        seen: number of similarities above the threshold, over all chunks that were scored, those
            to the own classes among them.
    """

    def __init__(self, threshold: Tensor, rule: OtherScores | None) -> None:
        self.threshold, self.rule = threshold[:, None], rule
        self.seen = torch.zeros((), dtype=torch.int64, device=threshold.device)

    def score(self, similarity: Tensor) -> Tensor:
        """Return the scores as a new table."""
        out = similarity > self.threshold
        self.seen = self.seen + out.sum()
        if self.rule is None:
            return similarity.masked_fill(out, _LOWEST)
        return self.rule.score(similarity).masked_fill_(out, _LOWEST)

    def slope(self, similarity: Tensor) -> Tensor | None:
        """Return the derivative of the scores, 0 for classes that are left out."""
        out = similarity > self.threshold
        slope = None if self.rule is None else self.rule.slope(similarity)
        return (
            torch.ones_like(similarity).masked_fill_(out, 0)
            if slope is None
            else (slope.masked_fill(out, 0))
        )


class ClassFilter:
    """Function of the own similarities that makes the rule of a batch, for `class_competition`.

    Args:
        margin: margin of the head.
        threshold: largest cosine of a class that stays.
        norm: length of the features, (N,).
        labels: class of each sample, (N,).
    """

    def __init__(self, margin: Margin, threshold: float, norm: Tensor, labels: Tensor) -> None:
        norm = norm.detach()
        self.limit = threshold * (torch.ones_like(norm) if margin.normalize_features else norm)
        self.others = margin.others(labels)

    def __call__(self, own: Tensor) -> FilteredScores:
        """Return the rule for the similarities ``own`` (N,) to the own classes."""
        self.own = own
        self.rule = FilteredScores(self.limit, None if self.others is None else self.others(own))
        return self.rule

    def filtered(self, summed: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the mean number of classes per sample that the forward pass left out.

        Args:
            summed: sums a count over all parts of the classes.
        """
        seen = summed(self.rule.seen) - (self.own > self.limit).sum()
        return seen.clamp(min=0) / max(len(self.own), 1)


def check_filter(threshold: float | None, margin: Margin | None) -> None:
    """Raise ValueError unless the option ``filter_threshold`` fits the margin."""
    if threshold is None:
        return
    check_number('filter_threshold', threshold, above=0, most=1, why='it is a cosine')
    if margin is None or not margin.normalize_weight:
        name = 'a head without a margin' if margin is None else type(margin).__name__
        raise ValueError(
            f'filter_threshold={threshold!r} is compared with cosines, and {name} has none: take '
            'a margin on normalised centres, such as ArcFace or NormFace, or leave it out'
        )
