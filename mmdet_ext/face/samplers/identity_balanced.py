"""Batches of several images of each of several identities, for losses between images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sized
from typing import Any, Literal

import numpy as np
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmdet_ext.functional.numerics.checks import check_one_of, check_whole
from mmdet_ext.registry import DATA_SAMPLERS

#: Number of indices that are converted to Python integers at a time.
_CHUNK = 65_536


@DATA_SAMPLERS.register_module()
class IdentityBalancedSampler(Sampler[int]):
    """Sampler that fills each batch with K images of each of P identities.

    Every P * K consecutive indices, from the first on, are a batch: P different identities, with
    the K images of each together. **The** ``batch_size`` **of the loader must be P * K** on each
    rank. The sampler does not know it; with another size, batches begin at other places.

    An epoch gives about as many images as the data set has. It goes through all identities in a
    random order, then through all again in another order, and so on, so that identities with many
    and with few images occur equally often. Each time, an identity continues with the next K of its
    shuffled images, so that none is repeated before all have been used. An identity of fewer than
    K images repeats them within the batch, as evenly as possible. The number of such identities is
    logged once.

    All ranks share one order of identities, and each takes P of them per step, so that no identity
    is on two ranks within a step. All ranks give the same number of batches.

    After the first sort, an epoch costs one sort with one number per image: about a second for 5
    million images of 90,000 identities.

    Args:
        dataset: data set with ``get_gt_labels()``, or with ``get_data_info(i)['gt_label']``; or
            MMEngine's ConcatDataset of such data sets, which must share one numbering of labels;
            or RepeatDataset, which makes the epoch longer.
        identities_per_batch: P, at least 1.
        pictures_per_identity: K, at least 1.
        shuffle: draw random orders; otherwise identities are in the order of their labels, and
            images in the order of their indices.
        seed: seed of the orders, the same on all ranks; None takes one that all ranks agree on.
        round_up: give at least as many images per epoch as the data set has; otherwise at most as
            many, and at least one batch.
        single: 'repeat' the image of an identity with only one image K times, which gives no
            genuine pair, or 'skip' these identities.

    Raises:
        ValueError: if an option is out of its range, labels are negative or not whole numbers, or
            there are fewer identities than one step of all ranks takes.
        TypeError: if the data set does not give its labels.
    """

    def __init__(
        self,
        dataset: Sized,
        identities_per_batch: int,
        pictures_per_identity: int,
        *,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
        single: Literal['repeat', 'skip'] = 'repeat',
    ) -> None:
        check_whole('identities_per_batch', identities_per_batch)
        check_whole('pictures_per_identity', pictures_per_identity)
        check_one_of('single', single, ('repeat', 'skip'))
        self.rank, self.world_size = get_dist_info()
        self.identities_per_batch = identities_per_batch
        self.pictures_per_identity = pictures_per_identity
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        inner = dataset.dataset if isinstance(dataset, RepeatDataset) else dataset
        times = len(dataset) // max(len(inner), 1)
        self._sort(identity_labels(inner), skip_single=single == 'skip')
        images = len(self._by_identity) * times
        per_step = identities_per_batch * self.world_size * pictures_per_identity
        self.num_batches = max(-(-images // per_step) if round_up else images // per_step, 1)

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of this rank."""
        indices = self._epoch_indices()
        for start in range(0, len(indices), _CHUNK):
            yield from indices[start : start + _CHUNK].tolist()

    def __len__(self) -> int:
        """Return the number of indices of this rank."""
        return self.num_batches * self.identities_per_batch * self.pictures_per_identity

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which selects the random orders.

        Args:
            epoch: number of the epoch, from 0.
        """
        self.epoch = epoch

    def _sort(self, labels: np.ndarray, *, skip_single: bool) -> None:
        """Sort the images by identity, and log how many identities have too few images."""
        if labels.ndim != 1 or labels.dtype.kind not in 'iu' or (labels < 0).any():
            raise ValueError(
                'the labels of the data set must be whole numbers of at least 0, one per image; '
                f'got {labels.dtype} of shape {labels.shape}'
                + (f', the least {labels.min()}' if labels.size else '')
            )
        order = np.argsort(labels, kind='stable')
        _, counts = np.unique(labels, return_counts=True)
        one = counts == 1
        if skip_single:
            order, counts = order[np.repeat(~one, counts)], counts[~one]
        self._by_identity, self._counts = order, counts
        self._starts = np.cumsum(counts) - counts
        few = int((counts < self.pictures_per_identity).sum())
        notes = []
        if few:
            notes.append(f'{few} have fewer than {self.pictures_per_identity} images, which repeat')
        if one.any():
            what = 'are skipped' if skip_single else 'give no genuine pair'
            notes.append(f'{int(one.sum())} have one image and {what}')
        if notes:
            print_log(
                f'IdentityBalancedSampler: of {len(one)} identities {"; ".join(notes)}',
                logger='current',
                level=logging.WARNING,
            )
        needed = self.identities_per_batch * self.world_size
        if len(counts) < needed:
            raise ValueError(
                f'a step takes {self.identities_per_batch} different identities on each of '
                f'{self.world_size} ranks, but the data has {len(counts)}'
                f'{" of at least two images" if skip_single else ""}: lower '
                f'identities_per_batch to at most {len(counts) // self.world_size}'
            )

    def _epoch_indices(self) -> np.ndarray:
        """Compute the indices of this rank in this epoch."""
        rng = np.random.default_rng([self.seed, self.epoch]) if self.shuffle else None
        images = self._by_identity
        if rng is not None:
            # The integer parts keep the identities apart, the fractions shuffle their images.
            identity = np.repeat(np.arange(len(self._counts)), self._counts)
            images = images[np.argsort(identity + rng.random(len(images)))]
        identities, visits = self._visits(rng)
        in_row = visits[:, None] * self.pictures_per_identity + np.arange(
            self.pictures_per_identity
        )
        in_row %= self._counts[identities][:, None]
        return images[self._starts[identities][:, None] + in_row].reshape(-1)

    def _visits(self, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
        """List the identities of this rank's batches, and how often each was used before."""
        group = self.identities_per_batch * self.world_size
        total = self.num_batches * group
        count = len(self._counts)
        rounds: list[np.ndarray] = []
        for round_start in range(0, total, count):
            order = np.arange(count) if rng is None else rng.permutation(count)
            begun = round_start % group
            if begun:
                # Complete the last step of the previous round with identities not yet in it.
                in_step = np.isin(order, rounds[-1][count - begun :])
                first = np.flatnonzero(~in_step)[: group - begun]
                order = np.concatenate([order[first], np.delete(order, first)])
            rounds.append(order)
        visits = np.repeat(np.arange(len(rounds)), count)
        shape = (self.num_batches, self.world_size, self.identities_per_batch)
        identities, visits = (
            array[:total].reshape(shape)[:, self.rank].reshape(-1)
            for array in (np.concatenate(rounds), visits)
        )
        return identities, visits


def identity_labels(dataset: Any) -> np.ndarray:
    """Return the labels of all images of a data set.

    Args:
        dataset: as in `IdentityBalancedSampler`.

    Returns:
        Labels, shape (N,).

    Raises:
        TypeError: if the data set does not give its labels.
    """
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([identity_labels(part) for part in dataset.datasets])
    if isinstance(dataset, RepeatDataset):
        return np.tile(identity_labels(dataset.dataset), dataset.times)
    if hasattr(dataset, 'get_gt_labels'):
        return np.asarray(dataset.get_gt_labels())
    if hasattr(dataset, 'get_data_info'):
        try:
            return np.asarray([dataset.get_data_info(i)['gt_label'] for i in range(len(dataset))])
        except KeyError as error:
            raise TypeError(
                f'entries of {type(dataset).__name__} have no {error}, by which '
                'IdentityBalancedSampler distinguishes identities'
            ) from error
    raise TypeError(
        f'IdentityBalancedSampler needs get_gt_labels() or get_data_info(i) of its data set; '
        f"{type(dataset).__name__} has neither. Wrap the sampler's data set by nothing but "
        "MMEngine's ConcatDataset and RepeatDataset"
    )
