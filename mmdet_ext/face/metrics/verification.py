"""Verification of faces as a metric of MMEngine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from mmdet_ext.functional.scoring.accuracy import best_accuracy, fold_accuracy
from mmdet_ext.functional.scoring.all_pairs import BLOCK, ExtremePairs, Progress, count_all_pairs
from mmdet_ext.functional.scoring.similarity import GRID, pair_similarities
from mmdet_ext.functional.scoring.verification import (
    ScoreCounts,
    count_scores,
    equal_error_rate,
    roc_auc,
    roc_curve,
    tar_at_far,
)
from mmdet_ext.plots.face import FacePair, draw_hardest_pairs, draw_roc, draw_score_histogram
from mmdet_ext.registry import METRICS
from mmdet_ext.utils.files import write_json

DEFAULT_FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ROC_POINTS = 2000
BINS = 200
_PROGRESS_FROM = 10**9


@dataclass(frozen=True)
class _Evaluated:
    """Similarities of the pairs, counted, and the hardest of them as rows of the images."""

    counts: ScoreCounts
    impostors: ExtremePairs
    genuine: ExtremePairs
    accuracy: dict[str, float]


@METRICS.register_module()
class FaceVerificationMetric(EmbeddingMetric):
    """Are two images of one person? By the cosine of their embeddings, higher being more alike.

    Figures (all floats, behind ``prefix``): ``auc``; ``eer`` and ``eer_threshold``;
    ``tar@far=1e-02`` and ``threshold@far=1e-02`` of each FAR; ``genuine_pairs``,
    ``impostor_pairs`` and ``zero_embeddings``, the counts. A threshold that accepts nobody is
    given as 1.000001, above any cosine.

    With the pairs of the data set, by LFW's protocol: ``accuracy``, ``accuracy_std`` and
    ``accuracy_se`` over the folds, each at the threshold that is best on the others;
    ``accuracy_threshold``, the mean of these.

    With all pairs there is no such protocol. ``accuracy_best`` is the best that one threshold
    reaches on these very pairs. As nearly all are impostor pairs, it is high for any network:
    with n persons, refusing all is right in about (n - 1) / n of the pairs.
    ``balanced_accuracy_best`` weighs both kinds alike. Compare by AUC and TAR instead. Images
    without a known person (``gt_label`` below 0) are like nobody else.

    Args:
        pairs: 'dataset' for ``metainfo['pairs']`` (FacePairsDataset), 'all' for all pairs of the
            evaluated images, genuine where ``gt_label`` is equal.
        fars: bounds on the false acceptance rate, or one. What is below 1 / impostor pairs is
            refused, not extrapolated. None takes those of 1e-1 to 1e-6 that the pairs can show,
            and says which it leaves out.
        folds: contiguous folds, where the data set has pairs without ``fold``.
        similarity: 'cosine', the only one.
        block: embeddings a side of one matrix product, for all pairs; memory is bounded by it.
        hardest: pairs of each kind that are kept for ``verification.json`` and the sheet.
        out_dir: folder to write ``verification.json`` (figures, ROC with thresholds, histogram,
            hardest pairs), ``roc.png``, ``similarities.png`` and, where image files are there,
            ``hardest_pairs.png`` to; None writes none. Each evaluation overwrites them.
        collect_device: as MMEngine's BaseMetric.
        prefix: of the figures' names.
        collect_dir: as MMEngine's BaseMetric.

    Raises:
        ValueError: if an option is none of the above; when evaluating, if embeddings are not
            finite, pairs name images that were not evaluated, either kind of pairs is absent, or
            the pairs cannot show a FAR asked for.

    References:
        Huang et al., Labeled Faces in the Wild, UMass Amherst TR 07-49, 2007, section IV.
    """

    def __init__(
        self,
        pairs: Literal['dataset', 'all'] = 'dataset',
        fars: float | Sequence[float] | None = None,
        folds: int = 10,
        similarity: Literal['cosine'] = 'cosine',
        block: int = BLOCK,
        hardest: int = 20,
        out_dir: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(out_dir, collect_device, prefix, collect_dir)
        if pairs not in ('dataset', 'all'):
            raise ValueError(f"pairs must be 'dataset' or 'all', got {pairs!r}")
        if similarity != 'cosine':
            raise ValueError(f"similarity must be 'cosine', got {similarity!r}")
        for name, value, least in (
            ('folds', folds, 2),
            ('block', block, 1),
            ('hardest', hardest, 0),
        ):
            if value < least:
                raise ValueError(f'{name} is {value}; it must be at least {least}')
        self.pairs, self.folds, self.block, self.hardest = pairs, folds, block, hardest
        self.fars = checked_rates(fars, 'fars')

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """All figures of the images collected."""
        images = self.collected(results)
        found = self._of_all(images) if self.pairs == 'all' else self._of_dataset(images)
        genuine, impostors = found.counts.totals()
        eer, eer_threshold = equal_error_rate(found.counts)
        figures = {
            **found.accuracy,
            'auc': roc_auc(found.counts),
            'eer': eer,
            'eer_threshold': eer_threshold,
        }
        fars = self.supported(self.fars, DEFAULT_FARS, impostors, 'FAR')
        for point in tar_at_far(found.counts, fars):
            figures[f'tar@far={rate_name(point.bound)}'] = point.tar
            figures[f'threshold@far={rate_name(point.bound)}'] = point.threshold
        figures |= {
            'genuine_pairs': float(genuine),
            'impostor_pairs': float(impostors),
            'zero_embeddings': float(images.zeros),
        }
        self._warn_of_ties(found.counts)
        self.write_files(lambda folder: self._write(folder, images, found, figures))
        return above_all(figures)

    def _of_dataset(self, images: Collected) -> _Evaluated:
        pairs = (self.dataset_meta or {}).get('pairs')
        if pairs is None:
            raise ValueError(
                "pairs='dataset' needs metainfo['pairs'] of the data set, as FacePairsDataset has "
                "it; for any other, set pairs='all'"
            )
        index = images.rows(pairs['index'], "metainfo['pairs']")
        same = torch.as_tensor(pairs['same']).bool()
        if index.ndim != 2 or index.shape[1] != 2 or same.shape != index.shape[:1]:
            raise ValueError(
                "metainfo['pairs'] must have index (K, 2) and same (K,), got "
                f'{tuple(index.shape)} and {tuple(same.shape)}'
            )
        similarities = pair_similarities(images.embeddings, index)
        fold = pairs.get('fold')
        folds = fold_accuracy(
            similarities, same, self.folds if fold is None else torch.as_tensor(fold)
        )
        return _Evaluated(
            count_scores(similarities, same),
            _extreme(similarities, index, ~same, self.hardest, most=True),
            _extreme(similarities, index, same, self.hardest, most=False),
            {
                'accuracy': folds.mean,
                'accuracy_std': folds.std,
                'accuracy_se': folds.standard_error,
                'accuracy_threshold': sum(folds.thresholds) / len(folds.thresholds),
            },
        )

    def _of_all(self, images: Collected) -> _Evaluated:
        labels, unknown = images.labels.clone(), images.labels < 0
        if unknown.any():
            count = int(unknown.sum())
            self.say(
                f'{count:,} images of unknown persons (gt_label below 0) are taken as of '
                'one person each'
            )
            labels[unknown] = int(labels.max()) + 1 + torch.arange(count)
        if len(labels) < 2:
            raise ValueError(f'pairs need at least 2 images, got {len(labels)}')
        found = count_all_pairs(
            images.embeddings,
            labels,
            hardest=self.hardest,
            block=self.block,
            progress=self._progress(len(labels)),
        )
        best, threshold = best_accuracy(found.counts)
        balanced, balanced_threshold = best_accuracy(found.counts, balanced=True)
        return _Evaluated(
            found.counts,
            found.impostors,
            found.genuine,
            {
                'accuracy_best': best,
                'accuracy_best_threshold': threshold,
                'balanced_accuracy_best': balanced,
                'balanced_accuracy_best_threshold': balanced_threshold,
            },
        )

    def _warn_of_ties(self, counts: ScoreCounts) -> None:
        """Say it if most pairs are equally alike to what is resolved."""
        pairs = counts.genuine + counts.impostors
        place = int(pairs.argmax())
        most, total = int(pairs[place]), int(pairs.sum())
        if most > 1 and 2 * most > total:
            self.say(
                f'{most:,} of {total:,} pairs have the same similarity, {counts.scores[place]:.7f} '
                f'(steps of {1 / GRID:.1g} are told apart): most embeddings are alike, and the '
                'figures tell little',
                logging.WARNING,
            )

    def _progress(self, count: int) -> Progress | None:
        """Tells each tenth of a long evaluation."""
        if count * (count - 1) // 2 < _PROGRESS_FROM:
            return None
        told = 0

        def progress(done: int, total: int) -> None:
            nonlocal told
            if done * 10 // total > told:
                told = done * 10 // total
                self.say(f'{done:,} of {total:,} pairs')

        return progress

    def _write(
        self, folder: Path, images: Collected, found: _Evaluated, figures: dict[str, float]
    ) -> None:
        curve = roc_curve(found.counts, ROC_POINTS)
        edges, genuine, impostors = _histogram(found.counts)
        write_json(
            folder / 'verification.json',
            {
                'pairs': self.pairs,
                'pictures': len(images.labels),
                'figures': {name: plain(value) for name, value in figures.items()},
                'roc': {
                    'thresholds': [plain(value) for value in curve.thresholds.tolist()],
                    'far': curve.far.tolist(),
                    'tar': curve.tar.tolist(),
                    'all_points': len(found.counts.scores) + 1,
                },
                'histogram': {'edges': edges, 'genuine': genuine, 'impostors': impostors},
                'hardest_impostors': _listed(images, found.impostors),
                'hardest_genuine': _listed(images, found.genuine),
            },
        )
        name = f'AUC {figures["auc"]:.4f}, EER {figures["eer"]:.2%}'
        draw_roc({name: (curve.far.tolist(), curve.tar.tolist())}, folder / 'roc.png')
        draw_score_histogram(
            edges,
            genuine,
            impostors,
            folder / 'similarities.png',
            {'equal errors': figures['eer_threshold']},
        )
        impostor_pairs, genuine_pairs = (
            _drawn(images, extreme) for extreme in (found.impostors, found.genuine)
        )
        files = {path for pair in impostor_pairs + genuine_pairs for path in pair.paths}
        if any(path is not None and Path(path).is_file() for path in files):
            unread = draw_hardest_pairs(impostor_pairs, genuine_pairs, folder / 'hardest_pairs.png')
            if unread:
                self.say(f'{unread} images of the hardest pairs could not be read', logging.WARNING)


def _extreme(
    similarities: Tensor, index: Tensor, chosen: Tensor, count: int, *, most: bool
) -> ExtremePairs:
    """The most or least similar of the chosen pairs, ties in the order of the list."""
    values = similarities[chosen]
    order = values.argsort(descending=most, stable=True)[:count]
    return ExtremePairs(index[chosen][order], values[order])


def _histogram(counts: ScoreCounts) -> tuple[list[float], list[int], list[int]]:
    """Edges of BINS bins over [-1, 1], and the pairs of each kind in them."""
    place = ((counts.scores.double() + 1) * (BINS / 2)).long().clamp_(max=BINS - 1)
    genuine, impostors = (
        torch.zeros(BINS, dtype=torch.int64).index_add_(0, place, kind).tolist()
        for kind in (counts.genuine, counts.impostors)
    )
    return torch.linspace(-1, 1, BINS + 1, dtype=torch.float64).tolist(), genuine, impostors


def _listed(images: Collected, extreme: ExtremePairs) -> list[dict[str, Any]]:
    """The pairs for json."""
    return [
        {
            'sample_idx': images.sample_idx[[one, two]].tolist(),
            'gt_label': images.labels[[one, two]].tolist(),
            'similarity': round(value, 12),
            'img_path': [images.paths[one], images.paths[two]],
        }
        for (one, two), value in zip(
            extreme.pairs.tolist(), extreme.similarity.tolist(), strict=True
        )
    ]


def _drawn(images: Collected, extreme: ExtremePairs) -> list[FacePair]:
    """The pairs for the sheet, named by folder and file."""
    drawn = []
    for (one, two), value in zip(extreme.pairs.tolist(), extreme.similarity.tolist(), strict=True):
        paths = images.paths[one], images.paths[two]
        names = [str(Path(*Path(path).parts[-2:])) if path else '' for path in paths]
        drawn.append(FacePair(paths, value, (names[0], names[1])))
    return drawn
