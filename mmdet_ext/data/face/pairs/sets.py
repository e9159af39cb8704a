"""Sets of pairs that are evaluated together: what each image carries, and the pairs from that.

Joined data sets have the meta information of the first alone, and number their images from 0 each.
So each image carries the name of its set, its own number, and its places in pairs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.data.face.pairs.collected import BoolArray, IntArray

#: Stems of lists that say nothing about their set; the folder of the list names it.
_GENERAL = ('pairs', 'mean')
#: Name under which the means over sets are reported.
MEAN = 'mean'


class PairTable(dict[str, Any]):
    """Pairs of one set: ``index`` (K, 2), ``same`` (K,), ``fold`` (K,).

    A comparison gives one bool, unlike that of a dict of arrays, which raises. A pickle holds a
    plain dict of the arrays, because checkpoints that have it must be read without this package.

    Args:
        images: number of images of the set.
        index: number of the two images of each pair.
        same: whether each pair is genuine.
        fold: fold of each pair, from 0 on.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, images: int, index: IntArray, same: BoolArray, fold: IntArray) -> None:
        super().__init__(index=index, same=same, fold=fold)
        self.images = images

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __copy__(self) -> PairTable:
        return PairTable(self.images, self['index'], self['same'], self['fold'])

    def __deepcopy__(self, memo: dict[int, Any]) -> PairTable:
        return PairTable(self.images, *(self[key].copy() for key in ('index', 'same', 'fold')))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Mapping)
            and set(self) == set(other)
            and all(np.array_equal(value, other[key]) for key, value in self.items())
        )

    def __ne__(self, other: object) -> bool:
        return not self == other


class PairSet:
    """Set of pairs, which gives what each of its images carries.

    Args:
        name: name of the set.
        named: whether the user chose the name.
        source: path of the list.
        pairs: the pairs.
    """

    def __init__(self, name: str, named: bool, source: str, pairs: PairTable) -> None:
        self.name, self.named = name, named
        self.source = os.path.abspath(source)
        self.pairs, self.images = pairs, pairs.images
        flat = pairs['index'].reshape(-1)
        self._places = np.argsort(flat, kind='stable')
        self._begins = np.searchsorted(flat[self._places], np.arange(self.images + 1))

    def carried_by(self, image: int) -> dict[str, Any]:
        """Return what an image carries, in values of Python, which any pipeline can pack.

        Args:
            image: number of the image, 0 .. M - 1.

        Returns:
            dict: ``name``, ``named`` and ``source`` of the set; ``image``, its number; ``images``
            and ``pairs``, the sizes of the set; and for each pair it is in: ``place``, twice the
            number of the pair plus 0 for its first image or 1 for its second; ``same``; ``fold``.
        """
        places = self._places[self._begins[image] : self._begins[image + 1]]
        return dict(
            name=self.name,
            named=self.named,
            source=self.source,
            image=int(image),
            images=self.images,
            pairs=len(self.pairs['same']),
            place=tuple(places.tolist()),
            same=tuple(self.pairs['same'][places // 2].tolist()),
            fold=tuple(self.pairs['fold'][places // 2].tolist()),
        )


def pairs_from(carried: Sequence[Mapping[str, Any]]) -> PairTable:
    """Make the pairs of a set from what its images carry.

    Args:
        carried: one mapping of `PairSet.carried_by` for each image of one set, all of them.

    Raises:
        ValueError: if the images do not give both images of every pair.
    """
    count = carried[0]['pairs']
    index = np.full(2 * count, -1, np.int64)
    same, fold = np.zeros(count, np.bool_), np.zeros(count, np.int64)
    for one in carried:
        places = np.array(one['place'], np.int64)
        index[places] = one['image']
        same[places // 2], fold[places // 2] = one['same'], one['fold']
    lost = int((index < 0).reshape(-1, 2).any(1).sum())
    if lost:
        raise ValueError(f'{lost:,} of {count:,} pairs lack an image')
    return PairTable(carried[0]['images'], index.reshape(-1, 2), same, fold)


def default_name(ann_file: str | os.PathLike[str]) -> str:
    """Return the name of a set by its list: the stem, or the folder of a list named ``pairs``.

    >>> default_name('data/agedb_30.bin'), default_name('data/lfw/pairs.txt')
    ('agedb_30', 'lfw')
    """
    path = Path(os.path.abspath(ann_file))
    if path.stem.lower() not in _GENERAL:
        return path.stem.lstrip('.') or 'pairs'
    folder = path.parent.name.lstrip('.')
    return folder if folder and folder != MEAN else 'pairs'


def check_name(name: str) -> None:
    """Raise ValueError unless a name of a set can be that of results and of a folder."""
    if not isinstance(name, str) or not name.strip() or name != name.strip():
        raise ValueError(f'name must be text without blanks around it, got {name!r}')
    if name == MEAN or name.startswith('.') or any(sign in name for sign in '/\\'):
        raise ValueError(
            f'name must not be {MEAN!r}, which names the means over sets, begin with a dot, or '
            f'hold a slash, got {name!r}'
        )


def distinct_names(sets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a name for each set; names that no user chose get their folder where two are equal.

    Args:
        sets: what an image of each set carries.

    Raises:
        ValueError: if two sets still have one name.
    """
    names = [one['name'] for one in sets]
    names = [
        f'{Path(one["source"]).parent.name}_{name}'
        if names.count(name) > 1 and not one['named']
        else name
        for name, one in zip(names, sets, strict=True)
    ]
    for name in names:
        alike = list(_described(name, names, sets))
        if len(alike) > 1:
            raise ValueError(
                f'{len(alike)} sets of pairs have the name {name!r}: {" and ".join(alike)}. Give '
                f'each FacePairsDataset a name of its own, as name={name + "_2"!r}'
            )
    return names


def _described(name: str, names: Sequence[str], sets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Describe the sets of a name."""
    for other, one in zip(names, sets, strict=True):
        if other == name:
            yield f'{one["source"]} ({one["pairs"]:,} pairs of {one["images"]:,} images)'
