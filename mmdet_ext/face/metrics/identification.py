"""Metric of MMEngine that identifies faces in a gallery."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmdet_ext.face.metrics.embedding_metric import (
    Collected,
    EmbeddingMetric,
    above_all,
    checked_rates,
    plain,
    rate_name,
)
from mmdet_ext.face.metrics.joined_sets import images_by_set, listed_names
from mmdet_ext.functional.numerics.checks import check_number, check_one_of, check_whole
from mmdet_ext.functional.scoring.identification import (
    OpenSetPoint,
    Searches,
    match_rates,
    search_gallery,
    tpir_at_fpir,
)
from mmdet_ext.plots.face import draw_cmc
from mmdet_ext.registry import METRICS
from mmdet_ext.utils.files import write_json

DEFAULT_FPIRS = (1e-1, 1e-2, 1e-3)
CMC_RANKS = 50


@METRICS.register_module()
class FaceIdentificationMetric(EmbeddingMetric):
    """Metric that searches every probe in a gallery by the cosine of the embeddings.

    It reports these results, all floats, after ``prefix``:

    - Closed set: ``rank-1`` and so on, the share of mated searches whose mate is among the k most
      similar identities. A tie counts against the mate. An identity counts with its best image.
    - Open set: ``tpir@fpir=1e-01`` and ``threshold@fpir=1e-01``, the share of mated searches whose
      mate is within ``tpir_rank`` and at or above the threshold. The threshold is the lowest at
      which at most this share of the non-mated searches returns an identity.
    - Counts: ``mated_probes``, ``nonmated_probes``, ``gallery_identities``, ``gallery_pictures``,
      ``zero_embeddings_searched``.

    Args:
        gallery: images to enrol. 'first' takes the first images of each identity, by
            ``sample_idx``; 'dataset' takes the ``sample_idx`` in ``metainfo['gallery']``; or a
            list of ``sample_idx``. All other images are probes, mated if their identity is
            enrolled.
        gallery_per_identity: number of images of each identity that 'first' enrols.
        distractors: identities whose images are all in the gallery, as labels or as names of
            ``metainfo['classes']``.
        nonmated: identities that are not enrolled and whose images are all probes; or a share in
            (0, 1), for this share of the identities, those of the highest labels, at least one.
        unknown: use of images with ``gt_label`` below 0, each of an identity of its own:
            'distractors' or 'nonmated' probes.
        ranks: ranks of the closed set; one may be given without brackets.
        fpirs: bounds on the false positive identification rate; one may be given without brackets.
            A bound below 1 / non-mated probes is refused. None takes those of 1e-1 to 1e-3 that
            the probes can show, and logs which are left out.
        tpir_rank: number of candidates that an open-set search returns.
        out_dir: folder for ``identification.json`` and ``cmc.png``, which each evaluation
            overwrites; None writes none.
        collect_device: as in MMEngine's BaseMetric.
        prefix: prefix of the names of the results.
        collect_dir: as in MMEngine's BaseMetric.

    Raises:
        ValueError: if an option has none of these forms; when evaluating, if an identity is
            unknown, an image of the gallery was not evaluated, no probe is mated, or the probes
            cannot show an FPIR asked for.

    References:
        ISO/IEC 19795-1; NIST, Face Recognition Technology Evaluation, Part 2: Identification.
    """

    def __init__(
        self,
        gallery: Literal['first', 'dataset'] | Sequence[int] = 'first',
        gallery_per_identity: int = 1,
        distractors: Sequence[int | str] = (),
        nonmated: Sequence[int | str] | float = (),
        unknown: Literal['distractors', 'nonmated'] = 'distractors',
        ranks: int | Sequence[int] = (1, 5, 10),
        fpirs: float | Sequence[float] | None = None,
        tpir_rank: int = 1,
        out_dir: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(out_dir, collect_device, prefix, collect_dir)
        _check_roles(gallery, nonmated, distractors)
        check_one_of('unknown', unknown, ('distractors', 'nonmated'))
        for name, value in (
            ('gallery_per_identity', gallery_per_identity),
            ('tpir_rank', tpir_rank),
        ):
            check_whole(name, value)
        self.gallery, self.gallery_per_identity = gallery, gallery_per_identity
        self.distractors, self.nonmated, self.unknown = distractors, nonmated, unknown
        self.ranks, self.tpir_rank = _checked_ranks(ranks), tpir_rank
        self.fpirs = checked_rates(fpirs, 'fpirs')

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Compute the results of the collected images."""
        sets = images_by_set(results)
        if len(sets) > 1:
            names = listed_names(sets)
            raise ValueError(
                f'the images are of {len(sets)} data sets, {names}, in which sample_idx and '
                'gt_label mean different images and identities. Identify in one of them: give '
                'each a loader of its own'
            )
        images = self.collected(sets[0].rows if sets else [])
        labels, enrolled = self._roles(images)
        found = search_gallery(
            images.embeddings[~enrolled],
            labels[~enrolled],
            images.embeddings[enrolled],
            labels[enrolled],
        )
        identities = len(labels[enrolled].unique())
        rates = match_rates(found, max(*self.ranks, min(identities, CMC_RANKS)))
        points = self._open_set(found)
        figures = {f'rank-{rank}': float(rates[rank - 1]) for rank in self.ranks}
        for point in points:
            figures[f'tpir@fpir={rate_name(point.bound)}'] = point.tpir
            figures[f'threshold@fpir={rate_name(point.bound)}'] = point.threshold
        mated = int(found.mated.sum())
        figures |= {
            'mated_probes': float(mated),
            'nonmated_probes': float(len(found.mated) - mated),
            'gallery_identities': float(identities),
            'gallery_pictures': float(enrolled.sum()),
            'zero_embeddings_searched': float(images.zeros),
        }
        self.write_files(lambda folder: self._write(folder, figures, rates, points))
        return above_all(figures)

    def _open_set(self, found: Searches) -> list[OpenSetPoint]:
        """Compute the operating points of the open set, if there are non-mated probes."""
        nonmated = int((~found.mated).sum())
        if self.fpirs is None and not nonmated:
            self.say('no FPIR without non-mated probes; name identities in nonmated for it')
            return []
        fpirs = self.supported(self.fpirs, DEFAULT_FPIRS, nonmated, 'FPIR')
        return tpir_at_fpir(found, fpirs, self.tpir_rank) if fpirs else []

    def _roles(self, images: Collected) -> tuple[Tensor, Tensor]:
        """Return the labels, new ones for unknown identities, and which images are enrolled."""
        labels, unknown = images.labels.clone(), images.labels < 0
        count = int(unknown.sum())
        labels[unknown] = int(labels.max().clamp(min=-1)) + 1 + torch.arange(count)
        if count:
            self.say(f'{count:,} images of unknown persons (gt_label below 0) are {self.unknown}')
        known = images.labels[~unknown].unique().tolist()
        classes = self.meta.get('classes')
        distractors = _resolved(self.distractors, known, classes, 'distractors')
        nonmated = self._nonmated(known, set(distractors.tolist()), classes)
        both = sorted(set(distractors.tolist()) & set(nonmated.tolist()))
        if both:
            raise ValueError(f'distractors and nonmated both name the identities {both}')
        gallery_only = torch.isin(labels, distractors)
        probes_only = torch.isin(labels, nonmated)
        if self.unknown == 'distractors':
            gallery_only |= unknown
        else:
            probes_only |= unknown
        chosen = self._chosen(images, labels, ~(gallery_only | probes_only))
        wrong = int((chosen & probes_only).sum())
        if wrong:
            raise ValueError(f'gallery names {wrong} images of identities that are nonmated')
        return labels, chosen | gallery_only

    def _nonmated(
        self, known: list[int], distractors: set[int], classes: Sequence[str] | None
    ) -> Tensor:
        """Return the labels of the identities that are not enrolled."""
        if not isinstance(self.nonmated, float):
            return _resolved(self.nonmated, known, classes, 'nonmated')
        rest = [label for label in known if label not in distractors]
        count = max(1, round(self.nonmated * len(rest)))
        return torch.tensor(rest[len(rest) - count :], dtype=torch.int64)

    def _chosen(self, images: Collected, labels: Tensor, open_to: Tensor) -> Tensor:
        """Return a mask of the images to enrol; 'first' chooses among those ``open_to`` it."""
        chosen = torch.zeros_like(open_to)
        if self.gallery != 'first':
            listed: Any = self.gallery
            if self.gallery == 'dataset':
                listed = self.meta.get('gallery')
                if listed is None:
                    raise ValueError(
                        "gallery='dataset' needs metainfo['gallery'], the sample_idx of the "
                        "images to enrol; the data set has none. gallery='first' needs nothing"
                    )
            chosen[images.rows(listed, 'gallery')] = True
            return chosen
        rows = open_to.nonzero().squeeze(1)
        rows = rows[labels[rows].argsort(stable=True)]
        _, sizes = labels[rows].unique_consecutive(return_counts=True)
        begins = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        chosen[rows[torch.arange(len(rows)) - begins < self.gallery_per_identity]] = True
        short = int((sizes <= self.gallery_per_identity).sum())
        if short:
            self.say(
                f'{short:,} of {len(sizes):,} identities have no more than '
                f'{self.gallery_per_identity} images: enrolled, but never searched',
                logging.WARNING,
            )
        return chosen

    def _write(
        self, folder: Path, figures: dict[str, float], rates: Tensor, points: list[OpenSetPoint]
    ) -> None:
        """Write the results as json, and plot the cumulative match characteristic."""
        write_json(
            folder / 'identification.json',
            {
                'figures': {name: plain(value) for name, value in figures.items()},
                'cmc': rates.tolist(),
                'open_set': [
                    {**point._asdict(), 'threshold': plain(point.threshold)} for point in points
                ],
            },
        )
        name = (
            f'{int(figures["mated_probes"]):,} mated searches of '
            f'{int(figures["gallery_identities"]):,} identities'
        )
        draw_cmc({name: rates.tolist()}, folder / 'cmc.png')


def _check_roles(gallery: Any, nonmated: Any, distractors: Any) -> None:
    """Raise ValueError unless the options that divide the images have their forms."""
    if isinstance(gallery, str) or np.ndim(gallery) != 1:
        if gallery not in ('first', 'dataset'):
            raise ValueError(
                f"gallery must be 'first', 'dataset' or a list of sample_idx, got {gallery!r}. "
                "For the first k images of each identity: gallery='first', "
                'gallery_per_identity=k'
            )
    if isinstance(nonmated, float):
        check_number('nonmated as a share', nonmated, 'in (0, 1)', above=0, below=1)
    elif isinstance(nonmated, (str, Mapping)) or np.ndim(nonmated) != 1:
        raise ValueError(
            'nonmated must be a list of labels or names, or a share of the identities such as '
            f'0.3, got {nonmated!r}'
        )
    if isinstance(distractors, (str, Mapping)) or np.ndim(distractors) != 1:
        raise ValueError(f'distractors must be a list of labels or names, got {distractors!r}')


def _checked_ranks(ranks: int | Sequence[int]) -> tuple[int, ...]:
    """Return the ranks of an option as a tuple; a single rank may be given without brackets."""
    given = tuple(ranks) if isinstance(ranks, Iterable) else (ranks,)
    if not given:
        raise ValueError('ranks is empty; the first rank is 1')
    for rank in given:
        check_whole('ranks', rank)
    return given


def _resolved(
    wanted: Sequence[int | str], known: list[int], classes: Sequence[str] | None, option: str
) -> Tensor:
    """Return the labels of identities that are given as labels or names.

    Raises:
        ValueError: if a name or a label is not among the evaluated images.
    """
    number = {name: label for label, name in enumerate(classes or ())}
    labels = [number.get(one, -1) if isinstance(one, str) else int(one) for one in wanted]
    absent = [one for one, label in zip(wanted, labels, strict=True) if label not in known]
    if absent:
        raise ValueError(
            f'{option}: no image of {len(absent)} identities was evaluated: {absent[:5]}; labels '
            f'are {known[0] if known else "none"} to {known[-1] if known else "none"}, names those '
            "of metainfo['classes']"
        )
    return torch.tensor(labels, dtype=torch.int64)
