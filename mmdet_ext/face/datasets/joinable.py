"""Meta information of data sets that may be joined though each has its own identities and pairs."""

from __future__ import annotations

import copy
from collections.abc import KeysView, Set
from typing import Any

#: Keys whose values belong to one data set alone.
_OWN = ('pairs', 'classes')


class JoinableMeta(dict[str, Any]):
    """Meta information whose own pairs and identities do not keep data sets from being joined.

    ``ConcatDataset`` unites the ``keys()`` of its data sets and refuses to join them if a key is
    absent from one of them or has another value there. ``pairs`` and ``classes`` differ in every
    set of pairs, so a union of keys leaves them out. In all other uses this is a dict, and a pickle
    holds a plain dict: checkpoints have the metainfo, and must be read without this package.

    >>> meta = JoinableMeta(pairs=1, classes=2, palette=3)
    >>> sorted(set() | meta.keys()), sorted(meta.keys()), 'pairs' in meta
    (['palette'], ['classes', 'pairs', 'palette'], True)
    """

    def __missing__(self, key: str) -> Any:
        """Raise KeyError; mmdet's ``ConcatDataset`` asks for keys that only another set has."""
        raise KeyError(
            f'{key!r} is not in the metainfo of this FacePairsDataset, which may be joined with '
            'others of its kind alone'
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __copy__(self) -> JoinableMeta:
        return JoinableMeta(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> JoinableMeta:
        return JoinableMeta(copy.deepcopy(dict(self), memo))

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """Return the keys; a union with those of other data sets leaves out what differs."""
        return _Keys(self)


class _Keys(KeysView[str]):
    """Keys of JoinableMeta."""

    def __ror__(self, other: Set[Any]) -> set[Any]:  # type: ignore[override]
        return {*other, *(key for key in self if key not in _OWN)}
