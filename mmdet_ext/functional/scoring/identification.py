"""Identification of images: searches of a gallery, closed set and open set.

Identification finds the identity of an image. A *gallery* holds templates (embeddings) of enrolled
identities. A *probe* is an embedding that is searched in the gallery. A search is *mated* if the
identity of the probe is enrolled. The similarity of an identity is that of its best template.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.scoring.similarity import comparable, on_grid
from mmdet_ext.functional.scoring.verification import allowed_errors

__all__ = ['OpenSetPoint', 'Searches', 'match_rates', 'search_gallery', 'tpir_at_fpir']

#: Largest number of elements of a table of probes x identities: 64 MiB.
TABLE_ELEMENTS = 2**24


class Searches(NamedTuple):
    """Results of searching Q probes.

    Attributes:
        mated: (Q,) bool, whether the identity of the probe is in the gallery.
        rank: (Q,) int64, rank of that identity from 1 on; 0 if not mated.
        mate: (Q,) similarity of that identity; -inf if not mated. The precision is float32, or
            float64 if all embeddings are close to each other.
        top: (Q,) similarity of the best identity, in the precision of ``mate``.
        top_label: (Q,) int64, the best identity; of equally similar ones the lowest label.
    """

    mated: Tensor
    rank: Tensor
    mate: Tensor
    top: Tensor
    top_label: Tensor


class OpenSetPoint(NamedTuple):
    """Best operating point under a bound on the false positive identification rate.

    Attributes:
        bound: the largest false positive identification rate allowed.
        threshold: the lowest occurring similarity that keeps to the bound; inf if there is none.
        fpir: false positive identification rate at the threshold, at most ``bound``.
        tpir: share of the mated searches that find their mate.
        false_positives: number of non-mated searches that return an identity.
    """

    bound: float
    threshold: float
    fpir: float
    tpir: float
    false_positives: int


@torch.no_grad()
def search_gallery(
    probes: Tensor,
    probe_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    table_elements: int = TABLE_ELEMENTS,
    progress: Callable[[int, int], None] | None = None,
) -> Searches:
    """Search every probe in the gallery by the cosine of the embeddings.

    The rank of a mate is 1 + the number of other identities that are at least as similar. A tie
    therefore counts against the probe: a network that gives one embedding to all images is ranked
    last, not first. Similarities are rounded to the grid of
    :mod:`mmdet_ext.functional.scoring.similarity`, so that equal images tie.

    Args:
        probes: (Q, D), floating point, finite, of any length.
        probe_labels: (Q,) integers.
        gallery: (G, D).
        gallery_labels: (G,) integers; templates with equal labels are of one identity.
        table_elements: largest number of elements of the tables of similarities that are held at
            once. Probes and templates are cut into chunks to keep to it; a chunk has at least one
            probe and one template.
        progress: called after each chunk with the number of probes done and of all probes.

    Raises:
        ValueError: if shapes do not fit, or the gallery is empty.

    >>> gallery = torch.eye(3)
    >>> probes = torch.tensor([[1., .5, 0.], [1., .5, 0.], [0., 0., 1.]])
    >>> found = search_gallery(probes, torch.tensor([0, 1, 7]), gallery, torch.arange(3))
    >>> found.rank.tolist(), found.top_label.tolist()
    ([1, 2, 0], [0, 0, 2])
    """
    _check(probes, probe_labels, gallery, gallery_labels)
    identities, identity = gallery_labels.unique(return_inverse=True)
    order = identity.argsort(stable=True)
    ready = comparable(torch.cat([probes, gallery[order]]))
    probes, templates = ready.left[: len(probes)], ready.right[len(probes) :]
    identity = identity[order]
    place = torch.searchsorted(identities, probe_labels).clamp_(max=len(identities) - 1)
    mated = identities[place] == probe_labels
    rows = max(1, table_elements // len(identities))
    width = max(1, table_elements // min(rows, max(1, len(probes))))
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for start in range(0, len(probes), rows):
        some = slice(start, start + rows)
        best = _best_by_identity(probes[some], templates, identity, len(identities), width)
        mate = best.gather(1, place[some, None])
        rank = (best >= mate).sum(1).where(mated[some], 0)
        top = best.amax(1, keepdim=True)
        # `argmax` on the table itself may return any of equal values; this returns the first.
        first = (best == top).int().argmax(1)
        mate = mate.squeeze(1).where(mated[some], -math.inf)
        parts.append((rank, mate, top.squeeze(1), identities[first]))
        if progress is not None:
            progress(min(start + rows, len(probes)), len(probes))
    if not parts:
        empty = probes.new_empty(0)
        return Searches(mated, empty.long(), empty, empty, empty.long())
    rank, mate, top, label = (torch.cat(part) for part in zip(*parts, strict=True))
    return Searches(mated, rank, ready.cosines(mate), ready.cosines(top), label)


def _check(probes: Tensor, probe_labels: Tensor, gallery: Tensor, gallery_labels: Tensor) -> None:
    """Raise ValueError unless shapes fit and the gallery has a template."""
    for name, rows, labels in (
        ('probe', probes, probe_labels),
        ('gallery', gallery, gallery_labels),
    ):
        if labels.shape != rows.shape[:1]:
            raise ValueError(
                f'{name}_labels must be ({len(rows)},), one per embedding, got '
                f'{tuple(labels.shape)}'
            )
    if not len(gallery):
        raise ValueError('gallery is empty: nobody is enrolled')
    if probes.shape[1:] != gallery.shape[1:]:
        raise ValueError(
            'probes and gallery must have embeddings of one size, got '
            f'{tuple(probes.shape)} and {tuple(gallery.shape)}'
        )


def _best_by_identity(
    probes: Tensor, templates: Tensor, identity: Tensor, identities: int, width: int
) -> Tensor:
    """Compute the similarity of each identity's best template to each probe.

    Args:
        probes: (Q, K), made ready by `comparable`.
        templates: (G, K), made ready by `comparable`, in the order of their identities.
        identity: (G,) identity of each template, ascending.
        identities: number of identities I.
        width: number of templates to compare at once.

    Returns:
        Tensor: (Q, I).
    """
    best = probes.new_full((len(probes), identities), -math.inf)
    for start in range(0, len(templates), width):
        some = slice(start, start + width)
        with torch.autocast(probes.device.type, enabled=False):
            found = on_grid(probes @ templates[some].T)
        owner = identity[some]
        if int(owner[-1] - owner[0]) + 1 == len(owner):  # one template per identity
            columns = slice(int(owner[0]), int(owner[-1]) + 1)
            best[:, columns] = torch.maximum(best[:, columns], found)
        else:
            best.scatter_reduce_(1, owner.expand_as(found), found, 'amax')
    return best


def match_rates(searches: Searches, ranks: int) -> Tensor:
    """Compute the cumulative match characteristic.

    This is the share of the mated searches whose mate is within rank k.

    Args:
        searches: with at least one mated search.
        ranks: highest rank R, at least 1.

    Returns:
        Tensor: (R,) float64, the shares for k = 1 to R.

    Raises:
        ValueError: if no search is mated, or ``ranks`` is below 1.

    >>> found = search_gallery(torch.tensor([[1., .5], [1., .5]]), torch.tensor([0, 1]),
    ...                        torch.eye(2), torch.arange(2))
    >>> match_rates(found, 3).tolist()
    [0.5, 1.0, 1.0]
    """
    if ranks < 1:
        raise ValueError(f'ranks is {ranks}; the first rank is 1')
    rank = searches.rank[searches.mated]
    if not len(rank):
        raise ValueError('no probe has its identity in the gallery: there is no rank to report')
    within = torch.bincount(rank.clamp(max=ranks + 1), minlength=ranks + 2)[1 : ranks + 1]
    return within.cumsum(0).double() / len(rank)


def tpir_at_fpir(searches: Searches, fpirs: Sequence[float], rank: int = 1) -> list[OpenSetPoint]:
    """Compute the true positive identification rate at bounds on the false positive one.

    FPIR is the share of the non-mated searches whose best identity is at or above the threshold.
    TPIR is the share of the mated searches whose mate is at or above the threshold and within
    ``rank``. The threshold is the lowest occurring similarity at which at most
    ``floor(fpir * non-mated searches)`` of the non-mated searches return an identity.

    Args:
        searches: with mated and non-mated searches.
        fpirs: bounds in (0, 1].
        rank: number of candidates that a search returns, at least 1.

    Returns:
        list[OpenSetPoint]: in the order of ``fpirs``.

    Raises:
        ValueError: if either kind of searches is absent, a bound is not in (0, 1], or it is below
            1 / non-mated searches.

    References:
        ISO/IEC 19795-1; NIST, Face Recognition Technology Evaluation, Part 2: Identification.

    >>> labels = torch.tensor([0, 1, 7])
    >>> probes = torch.tensor([[1., 0.], [0., 1.], [.6, .8]])
    >>> found = search_gallery(probes, labels, torch.eye(2), torch.arange(2))
    >>> tpir_at_fpir(found, [1.0])[0].tpir
    1.0
    """
    if rank < 1:
        raise ValueError(f'rank is {rank}; the first rank is 1')
    mated = searches.mated
    strangers = searches.top[~mated].sort().values
    friends = searches.mate[mated]
    if not len(strangers) or not len(friends):
        raise ValueError(
            f'open-set identification needs searches of both kinds, got {len(friends)} mated and '
            f'{len(strangers)} non-mated'
        )
    found = friends[searches.rank[mated] <= rank]
    scores = torch.cat([strangers, friends]).unique()
    returned = len(strangers) - torch.searchsorted(strangers, scores)
    points = []
    for bound in fpirs:
        most = allowed_errors(bound, len(strangers), 'fpirs', 'non-mated searches')
        keeping = scores[returned <= most]
        threshold = float(keeping[0]) if len(keeping) else math.inf
        false = int((strangers >= threshold).sum())
        tpir = int((found >= threshold).sum()) / len(friends)
        points.append(OpenSetPoint(float(bound), threshold, false / len(strangers), tpir, false))
    return points
