"""Results of several sets of pairs that one loader joins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdet_ext.data.face.pairs.sets import MEAN, distinct_names, pairs_from
from mmdet_ext.data.reports import listed
from mmdet_ext.face.metrics.embedding_metric import not_evaluated

_WITH_MEAN = ('accuracy', 'auc', 'eer', 'insightface_accuracy', 'insightface_tar')

#: sample_idx, label, embedding and image file of an image.
Row = tuple[int, int, np.ndarray, str | None]


@dataclass
class ImagesOfSet:
    """Results of the images of one set of pairs, or of images that belong to none.

    Attributes:
        name: name of the set; '' for images of no set.
        rows: results of the images, in which repeats may be.
        carried: what each image carries, by its number in the set.
    """

    name: str = ''
    rows: list[Row] = field(default_factory=list)
    carried: dict[int, Mapping[str, Any]] = field(default_factory=dict)


def images_by_set(results: Sequence[tuple[Any, ...]]) -> list[ImagesOfSet]:
    """Divide results by the set that each image belongs to, in the order of the results.

    Args:
        results: results of `EmbeddingMetric.process`.

    Raises:
        ValueError: if two sets have one name.
    """
    found: dict[Any, ImagesOfSet] = {}
    for result in results:
        row, carried = result[:4], result[4] if len(result) > 4 else None
        key = None if carried is None else _key(carried)
        images = found.setdefault(key, ImagesOfSet())
        images.rows.append(row)
        if carried is not None:
            images.carried.setdefault(carried['image'], carried)
    sets = [images for images in found.values() if images.carried]
    for images, name in zip(
        sets, distinct_names([next(iter(one.carried.values())) for one in sets]), strict=True
    ):
        images.name = name
    return list(found.values())


def joined_rows(sets: Sequence[ImagesOfSet]) -> tuple[list[Row], int]:
    """Give the images and identities of several sets new numbers, so that all can be compared.

    Labels of different sets are different identities, unless both name the same folder of images.
    An image file that is in several sets counts once.

    Args:
        sets: results by set.

    Returns:
        tuple: the results, and the number of images left out because another set has them.
    """
    numbers: dict[tuple[int, int], int] = {}
    identities: dict[Any, int] = {}
    rows: list[Row] = []
    number_of_file: dict[str, int] = {}
    doubles = set()
    # Images of known identity come first, so that a file of several sets keeps its identity.
    every = sorted(
        ((place, row) for place, images in enumerate(sets) for row in images.rows),
        key=lambda one: one[1][1] < 0,
    )
    for place, (number, label, embedding, path) in every:
        own = number_of_file.get(path, -1) if path is not None else -1
        if own >= 0 and (place, number) not in numbers:
            doubles.add((place, number))
            continue
        own = numbers.setdefault((place, number), len(numbers))
        if path is not None:
            number_of_file.setdefault(path, own)
        if label >= 0:
            key = os.path.dirname(path) if path and sets[place].carried else (place, label)
            label = identities.setdefault(key, len(identities))
        rows.append((own, label, embedding, path))
    return rows, len(doubles)


def pairs_of(sets: Sequence[ImagesOfSet], meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the pairs of the images of one data set.

    Args:
        sets: results, at most those of one set.
        meta: meta information of the data set, whose ``pairs`` are taken if images carry none.

    Raises:
        ValueError: if there are no pairs, or they are not those of the images.
    """
    known = meta.get('pairs')
    if sets and sets[0].carried:
        carried = pairs_of_set(sets[0])
        # Data sets that are joined have the metainfo of the first, so those are not compared.
        if known is not None and 'cumulative_sizes' not in meta and not _equal(known, carried):
            raise ValueError(
                f"the images are of the set {sets[0].name!r}, metainfo['pairs'] of another one: "
                f'{len(carried["same"]):,} and {len(known.get("same", ())):,} pairs. The loader '
                'must go over the data set whose metainfo the evaluator has'
            )
        return carried
    if known is None and sets:
        raise ValueError(
            "pairs='dataset' needs metainfo['pairs'] of the data set, as FacePairsDataset has it; "
            "for any other, set pairs='all'. Of data sets that are joined, the data samples must "
            "keep the meta key 'pair_set'"
        )
    most, count = getattr(known, 'images', None), len({row[0] for one in sets for row in one.rows})
    if most is not None and count > most:
        raise ValueError(
            f"metainfo['pairs'] is of {most:,} images, but {count:,} were evaluated, and their "
            "data samples carry no 'pair_set'. FacePairsDataset writes this meta key onto the data "
            'samples that its pipeline packs; a model must return these samples'
        )
    pairs: Mapping[str, Any] = known or {}
    return pairs


def pairs_of_set(images: ImagesOfSet) -> Mapping[str, Any]:
    """Return the pairs of a set.

    Raises:
        ValueError: if some of its images were not evaluated.
    """
    size = next(iter(images.carried.values()))['images']
    absent = sorted(set(range(size)) - images.carried.keys())
    if absent:
        raise ValueError(not_evaluated(f"metainfo['pairs'] of {images.name!r}", absent))
    return pairs_from(list(images.carried.values()))


def refuse_images_of_no_set(sets: Sequence[ImagesOfSet]) -> None:
    """Raise ValueError if images of no set are joined with sets of pairs."""
    lone = sum(len(images.rows) for images in sets if not images.carried)
    if lone:
        raise ValueError(
            f'{lone:,} images belong to no set of pairs: their data samples carry no meta key '
            "'pair_set', which FacePairsDataset writes. Join FacePairsDatasets alone, and evaluate "
            'other data by a loader of its own'
        )


def means_over_sets(sets: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the means of the figures that all sets have; thresholds, spreads, counts have none.

    >>> means_over_sets([{'auc': 1.0, 'eer_threshold': 0.3}, {'auc': 0.5, 'eer_threshold': 0.1}])
    {'mean/auc': 0.75}
    """
    return {
        f'{MEAN}/{name}': sum(one[name] for one in sets) / len(sets)
        for name in sets[0]
        if (name in _WITH_MEAN or name.startswith('tar@')) and all(name in one for one in sets)
    }


def listed_names(sets: Sequence[ImagesOfSet]) -> str:
    """List the names of sets, for a message."""
    return listed([repr(images.name) if images.name else 'images of no set' for images in sets])


def _key(carried: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what images of one set have in common."""
    return tuple(carried[part] for part in ('name', 'source', 'images', 'pairs'))


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two tables hold the same pairs."""
    return all(np.array_equal(one.get(key, ()), other.get(key, ())) for key in ('index', 'same'))
