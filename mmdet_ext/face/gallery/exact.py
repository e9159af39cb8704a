"""Exact search of the nearest identities, by blocks of rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mmdet_ext.face.gallery.rows import Rows
from mmdet_ext.face.gallery.vectors import GRID, cosines

Array = np.ndarray[Any, Any]

_QUERIES = 128
_ROWS = 8192


class Nearest(NamedTuple):
    """Nearest identities of a query, the best first.

    Attributes:
        identity: (K,) int64.
        cosine: (K,) float64.
    """

    identity: Array
    cosine: Array


def scan(rows: Rows, owner: Array, alive: Array, queries: Array, k: int) -> list[Nearest]:
    """Find the k nearest identities of each query among all rows.

    Matrix products in float32 find the rows that can be among the nearest, with room for rounding;
    their cosines are then computed by `cosines`.

    Args:
        rows: N rows of length 1.
        owner: (N,) int64, identity of each row; a lower one was enrolled earlier.
        alive: (N,) bool, whether a row counts.
        queries: (Q, D) float32 of length 1.
        k: at least 1.

    Returns:
        list[Nearest]: of each query, fewer than k if there are fewer identities.
    """
    found: list[Nearest] = []
    for start in range(0, len(queries), _QUERIES):
        found += _scan(rows, owner, alive, queries[start : start + _QUERIES], k)
    return found


def rank(owner: Array, cosine: Array, k: int) -> Nearest:
    """Order identities by their best cosine; equal ones by their number.

    >>> found = rank(np.array([4, 2, 4, 3]), np.array([0.5, 0.7, 0.9, 0.7]), 3)
    >>> found.identity.tolist(), found.cosine.tolist()
    ([4, 2, 3], [0.9, 0.7, 0.7])
    """
    order = np.lexsort((owner, -cosine))
    first = np.sort(np.unique(owner[order], return_index=True)[1])[:k]
    return Nearest(owner[order[first]], cosine[order[first]])


def _scan(rows: Rows, owner: Array, alive: Array, queries: Array, k: int) -> list[Nearest]:
    # Half a step of the grid on either side, and the rounding of a sum of D products.
    slack = 2 / GRID + queries.shape[1] * 2.0**-23
    floor = np.full(len(queries), -np.inf, np.float32)
    place = [np.zeros(0, np.int64)] * len(queries)
    score = [np.zeros(0, np.float32)] * len(queries)
    for start, block in rows.blocks(_ROWS):
        live = alive[start : start + len(block)]
        scores = queries @ block.T
        hits = (scores >= floor[:, None]) & live
        for query in np.flatnonzero(hits.any(1)):
            new = np.flatnonzero(hits[query])
            place[query] = np.concatenate([place[query], new + start])
            score[query] = np.concatenate([score[query], scores[query, new]])
            floor[query] = _kth(owner[place[query]], score[query], k) - slack
            kept = score[query] >= floor[query]
            place[query], score[query] = place[query][kept], score[query][kept]
    return [
        rank(owner[near], cosines(rows.take(near), query), k)
        for near, query in zip(place, queries, strict=True)
    ]


def _kth(owner: Array, score: Array, k: int) -> float:
    """Return the score of the k-th identity, minus infinity if there are fewer."""
    best = rank(owner, score, k).cosine
    return float(best[-1]) if len(best) == k else -np.inf
