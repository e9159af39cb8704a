"""Batches of some images each of some identities, as losses between images want them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sized
from typing import Any, Literal

import numpy as np
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmdet_ext.functional.numerics.checks import check_whole
from mmdet_ext.registry import DATA_SAMPLERS

#: Indices that are made Python numbers at a time.
_CHUNK = 65_536


@DATA_SAMPLERS.register_module()
class IdentityBalancedSampler(Sampler[int]):
    """Gives P identities and K images of each of them a batch.

    Every P * K indices in a row, from the first on, are a batch: P different identities, the K
    images of each together. **The loader's** ``batch_size`` **must be P * K** (a rank): a
    sampler is not told it, and with another the batches are cut elsewhere.

    An epoch is as many batches as it takes to give the number of images of the data set. All
    identities come in a random order, then all again in another, and so on, so that large and
    small ones come equally often; each time an identity goes on with the next K of its shuffled
    images, so that none comes again before all have come. Where it has fewer than K, its
    images repeat within the batch, as evenly as can be; how many such identities there are is
    said once.

    With several ranks, a step takes P identities a rank of one order that all of them share: ranks
    have no identity in common within a step. All give equally many batches.

    Beyond the first sort, an epoch costs one sort of a number an image: 5 million images of
    90,000 identities take about a second.

    Args:
        dataset: with ``get_gt_labels()``, or with ``get_data_info(i)['gt_label']``; MMEngine's
            ConcatDataset of such, whose labels are of one numbering, and RepeatDataset, which
            makes the epoch longer.
        identities_per_batch: P, at least 1.
        pictures_per_identity: K, at least 1.
        shuffle: whether orders are random; otherwise identities go by label, images by index.
        seed: of the orders, the same on all ranks; None takes one that all ranks agree on.
        round_up: whether an epoch gives at least as many images as there are, otherwise at most
            as many (and at least one batch).
        single: what to do with identities of one image: 'repeat' it K times, which gives no
            genuine pair, or 'skip' them.

    Raises:
        ValueError: if an option is out of its range, labels are negative or not whole numbers, or
            there are fewer identities than a step of all ranks takes.
        TypeError: if the data set does not tell its labels.
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
        if single not in ('repeat', 'skip'):
            raise ValueError(f"single must be 'repeat' or 'skip', got {single!r}")
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
        """The indices of this rank."""
        indices = self._epoch_indices()
        for start in range(0, len(indices), _CHUNK):
            yield from indices[start : start + _CHUNK].tolist()

    def __len__(self) -> int:
        """The number of indices of this rank."""
        return self.num_batches * self.identities_per_batch * self.pictures_per_identity

    def set_epoch(self, epoch: int) -> None:
        """Choose the orders of an epoch.

        Args:
            epoch: from 0.
        """
        self.epoch = epoch

    def _sort(self, labels: np.ndarray, *, skip_single: bool) -> None:
        """Sort the images by identity, and say which identities have too few."""
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
        """The indices of this rank in this epoch."""
        rng = np.random.default_rng([self.seed, self.epoch]) if self.shuffle else None
        images = self._by_identity
        if rng is not None:
            # Whole parts keep identities apart, fractions shuffle within them.
            identity = np.repeat(np.arange(len(self._counts)), self._counts)
            images = images[np.argsort(identity + rng.random(len(images)))]
        identities, visits = self._visits(rng)
        in_row = visits[:, None] * self.pictures_per_identity + np.arange(
            self.pictures_per_identity
        )
        in_row %= self._counts[identities][:, None]
        return images[self._starts[identities][:, None] + in_row].reshape(-1)

    def _visits(self, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
        """The identities of this rank's batches in a row, and how often each came before."""
        group = self.identities_per_batch * self.world_size
        total = self.num_batches * group
        count = len(self._counts)
        rounds: list[np.ndarray] = []
        for round_start in range(0, total, count):
            order = np.arange(count) if rng is None else rng.permutation(count)
            begun = round_start % group
            if begun:
                # The step that the last round left unfinished takes none of its identities twice.
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
    """The labels of all images of a data set.

    Args:
        dataset: as `IdentityBalancedSampler` takes it.

    Returns:
        Labels, shape (N,).

    Raises:
        TypeError: if the data set does not tell them.
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
                'IdentityBalancedSampler tells identities'
            ) from error
    raise TypeError(
        f'IdentityBalancedSampler needs get_gt_labels() or get_data_info(i) of its data set; '
        f"{type(dataset).__name__} has neither. Wrap the sampler's data set by nothing but "
        "MMEngine's ConcatDataset and RepeatDataset"
    )
