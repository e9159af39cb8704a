"""Images of rare classes more often, and by option those of frequent classes less often."""

from __future__ import annotations

from collections.abc import Sized

import numpy as np

from mmdet_ext.engine.samplers.by_class import ByClassSampler
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RepeatFactorSampler(ByClassSampler):
    r"""Sampler that repeats images by the rarest class in them.

    With :math:`f_c` the share of images that have the class c, image i is repeated

    .. math:: r_i = \max_{c \in i} \max\left(\text{least}, \sqrt{t / f_c}\right), \quad
        r_i \le \text{most}

    times in an epoch: on average, where that is no whole number. Which images get one more is drawn
    anew each epoch, unlike in MMEngine's ClassBalancedDataset, which rounds all factors up once and
    for all. An epoch has :math:`\sum_i r_i` images, rounded; factors are stretched to that sum,
    by less than one image in all. Images without an object have the factor 1, or ``least`` if that
    is below.

    Args:
        dataset: data set with ``get_cat_ids(i)``, or ``get_gt_labels()``; or MMEngine's
            ConcatDataset or RepeatDataset of such data sets.
        oversample_thr: t, above 0 and at most 1. Classes that are in a smaller share of the images
            are over-sampled.
        least: least factor, above 0 and at most 1. Below 1, images that have frequent classes alone
            are under-sampled.
        most: largest factor, at least 1; None for no bound.
        shuffle: draw the order, and which images get one more. Otherwise images are in their order,
            and all epochs are equal.
        seed: seed of the draws, the same on all ranks; None takes one that all ranks agree on.
        round_up: repeat some images, so that all ranks get as many; otherwise leave some out.

    Raises:
        ValueError: for options out of their range, and a data set without images.
        TypeError: if the data set gives no classes.

    References:
        Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, 2019, appendix B.
    """

    def __init__(
        self,
        dataset: Sized,
        oversample_thr: float,
        *,
        least: float = 1.0,
        most: float | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
    ) -> None:
        check_number('oversample_thr', oversample_thr, above=0, most=1)
        check_number('least', least, above=0, most=1)
        if most is not None:
            check_number('most', most, least=1, finite=True)
        super().__init__(dataset, seed, round_up)
        self.shuffle = shuffle
        share = self.presence.images_per_class() / self.presence.num_images
        # A class that no image has gets any factor: no image takes it.
        factors = np.sqrt(oversample_thr / np.where(share > 0, share, 1.0)).clip(least, most)
        self.factors = self.presence.largest(factors, without=1.0 if least == 1 else least)

    def length(self) -> int:
        """Return the rounded sum of the factors."""
        return max(round(float(self.factors.sum())), 1)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the images of this epoch."""
        order = np.arange(len(self.factors))
        offset = 0.5
        if self.shuffle:
            rng.shuffle(order)
            offset = rng.random()
        # Numbers offset, offset + 1, ... are thrown on a line on which each image has its factor
        # as its length: it gets its factor of them, rounded down or up, and all together get
        # as many as the line is long.
        ends = np.cumsum(self.factors[order])
        thrown = (np.arange(self.length()) + offset) * (ends[-1] / self.length())
        images = order[np.searchsorted(ends, thrown, side='right').clip(max=len(order) - 1)]
        if self.shuffle:
            rng.shuffle(images)
        return images
