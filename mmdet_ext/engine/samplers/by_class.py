"""Common part of samplers that draw each epoch anew, whatever was drawn before."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmdet_ext.engine.samplers.presence import Presence, class_presence


class ByClassSampler(ABC, Sampler[int]):
    """Sampler whose epoch is a list of images that follows from the seed and the epoch's number.

    All ranks draw the same list, and each takes every world-size-th image of it. A list does not
    depend on those before: a training that is resumed at an epoch, or that skips the batches that
    it has had, goes on as if it had not been interrupted.

    Args:
        dataset: as in `class_presence`.
        seed: seed of the lists, the same on all ranks; None takes one that all ranks agree on.
        round_up: repeat the first images of the list, so that all ranks get as many; otherwise
            leave out its last ones.

    Raises:
        ValueError: for a data set without images.
        TypeError: if the data set gives no classes.
    """

    def __init__(self, dataset: Sized, seed: int | None = None, round_up: bool = True) -> None:
        self.rank, self.world_size = get_dist_info()
        # Batch samplers, such as mmdet's AspectRatioBatchSampler, ask the data set about an image.
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.round_up = round_up
        self.epoch = 0
        if not len(dataset):
            raise ValueError(
                f'{type(self).__name__} needs images, and the data set has none: look at its '
                'annotation file and filter_cfg'
            )
        self.presence: Presence = class_presence(dataset)

    @abstractmethod
    def length(self) -> int:
        """Return the length of an epoch's list, the same for all."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the images of this epoch, in their order, (length,)."""

    def __iter__(self) -> Iterator[int]:
        """Yield the images of this rank."""
        images = self.draw(np.random.default_rng([self.seed, self.epoch]))
        wanted = len(self) * self.world_size
        yield from np.resize(images, wanted)[self.rank :: self.world_size].tolist()

    def __len__(self) -> int:
        """Return the number of images of this rank."""
        ranks = self.world_size
        return max((self.length() + (ranks - 1 if self.round_up else 0)) // ranks, 1)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which selects the list.

        Args:
            epoch: number of the epoch, from 0.
        """
        self.epoch = epoch
