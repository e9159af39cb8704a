"""From all images alike to all classes alike, over the epochs."""

from __future__ import annotations

from collections.abc import Sized

import numpy as np

from mmdet_ext.engine.samplers.by_class import ByClassSampler
from mmdet_ext.functional.numerics.checks import check_whole
from mmdet_ext.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ProgressivelyBalancedSampler(ByClassSampler):
    r"""Sampler that goes from instance-balanced to class-balanced over the epochs.

    In epoch t of T, image i is drawn, with replacement, with the probability

    .. math::
        p_i(t) = \left(1 - \frac{t}{T - 1}\right) \frac{1}{N} + \frac{t}{T - 1} \cdot
            \frac{1}{C} \sum_{c \in i} \frac{1}{n_c}

    with N images, and :math:`n_c` images that have the class c, of C classes that occur. The first
    epoch draws all images alike, the last epoch all classes alike, and the images of a class alike.
    An epoch has N draws. Images without an object are drawn less and less; the last epoch has none.

    Args:
        dataset: data set with ``get_cat_ids(i)``, or ``get_gt_labels()``; or MMEngine's
            ConcatDataset or RepeatDataset of such data sets.
        epochs: T, the epochs over which the sampling changes, at least 1; with 1, and in later
            epochs, all classes are alike.
        seed: seed of the draws, the same on all ranks; None takes one that all ranks agree on.
        round_up: repeat some images, so that all ranks get as many; otherwise leave some out.

    Raises:
        ValueError: for fewer than one epoch, and a data set without images or without any object.
        TypeError: if the data set gives no classes.

    References:
        Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, 2020,
        section 4.1, which has one class per image.
    """

    def __init__(
        self, dataset: Sized, epochs: int, *, seed: int | None = None, round_up: bool = True
    ) -> None:
        check_whole('epochs', epochs)
        super().__init__(dataset, seed, round_up)
        self.epochs = epochs
        counts = self.presence.images_per_class()
        if not counts.any():
            raise ValueError(
                'ProgressivelyBalancedSampler balances classes, and no image of the data set has '
                'an object: look at its classes (metainfo) and annotation file'
            )
        share = np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0)
        self.class_balanced = self.presence.total(share) / np.count_nonzero(counts)

    def length(self) -> int:
        """Return the number of images of the data set."""
        return self.presence.num_images

    def probabilities(self, epoch: int) -> np.ndarray:
        """Return the probability of each image in a draw of an epoch, (N,)."""
        part = min(epoch / (self.epochs - 1), 1.0) if self.epochs > 1 else 1.0
        return (1 - part) / self.length() + part * self.class_balanced

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the images of this epoch, with replacement."""
        bounds = np.cumsum(self.probabilities(self.epoch))
        at = rng.random(self.length()) * bounds[-1]
        # An image whose probability is 0 has no width.
        return np.searchsorted(bounds, at, side='right').clip(max=self.length() - 1)
