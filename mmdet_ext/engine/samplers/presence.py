"""Classes in each image of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.dataset import ConcatDataset, RepeatDataset


@dataclass(frozen=True)
class Presence:
    """Pairs of an image and a class that is in it, each once, by image.

    Attributes:
        image: image of each pair, ascending, (P,), int64.
        label: class of each pair, (P,), int64, at least 0.
        num_images: number of images, with or without a class.
    """

    image: np.ndarray
    label: np.ndarray
    num_images: int

    def images_per_class(self) -> np.ndarray:
        """Count the images of each class, (C,), for C up to the largest label."""
        return np.bincount(self.label)

    def largest(self, values: np.ndarray, without: float) -> np.ndarray:
        """Take the largest of the values of an image's classes.

        Args:
            values: of each class, (C,).
            without: value of an image that has no class.

        Returns:
            np.ndarray: (num_images,), float64.
        """
        found = np.full(self.num_images, -np.inf)
        np.maximum.at(found, self.image, values[self.label])
        return np.where(np.isneginf(found), without, found)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum the values of an image's classes, (num_images,)."""
        return np.bincount(self.image, values[self.label], self.num_images)


def class_presence(dataset: Any) -> Presence:
    """Ask a data set for the classes of each image.

    Args:
        dataset: data set with ``get_cat_ids(i)``, as those of mmdet and mmpretrain have, or with
            ``get_gt_labels()``; or MMEngine's ConcatDataset or RepeatDataset of such data sets.

    Raises:
        TypeError: if the data set gives no classes.
        ValueError: if a class is below 0.
    """
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    images, labels = _pairs(dataset)
    if len(labels) and labels.min() < 0:
        raise ValueError(
            f'the classes of the data set must be at least 0, got {labels.min()} in image '
            f'{images[labels.argmin()]}'
        )
    # A class counts once, however many objects of it an image has.
    width = int(labels.max(initial=0)) + 1
    both = np.unique(images * width + labels)
    return Presence(both // width, both % width, len(dataset))


def _pairs(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """List image and class of each object, by image."""
    if isinstance(dataset, ConcatDataset | RepeatDataset):
        joined = isinstance(dataset, ConcatDataset)
        parts = dataset.datasets if joined else [dataset.dataset] * dataset.times
        starts = np.cumsum([0, *map(len, parts)])
        pairs = [_pairs(part) for part in (parts if joined else parts[:1])]
        pairs = pairs if joined else pairs * dataset.times
        moved = [image + start for (image, _), start in zip(pairs, starts, strict=False)]
        return np.concatenate(moved), np.concatenate([label for _, label in pairs])
    if hasattr(dataset, 'get_gt_labels'):
        labels = np.asarray(dataset.get_gt_labels(), np.int64)
        return np.arange(len(labels)), labels
    if hasattr(dataset, 'get_cat_ids'):
        found = [
            np.atleast_1d(np.asarray(dataset.get_cat_ids(i), np.int64)) for i in range(len(dataset))
        ]
        images = np.repeat(np.arange(len(found)), [len(labels) for labels in found])
        return images, np.concatenate([np.zeros(0, np.int64), *found])
    raise TypeError(
        f'{type(dataset).__name__} gives no classes: a sampler by classes needs get_cat_ids(i), '
        'as the data sets of mmdet and mmpretrain have, or get_gt_labels()'
    )
