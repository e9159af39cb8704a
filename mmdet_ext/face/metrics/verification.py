"""Metric of MMEngine that verifies pairs of faces."""

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
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
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
    """Counted similarities of the pairs, the hardest pairs, and the accuracies."""

    counts: ScoreCounts
    impostors: ExtremePairs
    genuine: ExtremePairs
    accuracy: dict[str, float]


@METRICS.register_module()
class FaceVerificationMetric(EmbeddingMetric):
    """Metric that judges whether two images show one identity, by the cosine of the embeddings.

    It reports these results, all floats, after ``prefix``: ``auc``; ``eer`` and ``eer_threshold``;
    ``tar@far=1e-02`` and ``threshold@far=1e-02`` for each FAR; and the counts ``genuine_pairs``,
    ``impostor_pairs`` and ``zero_embeddings``. A threshold that accepts nothing is reported as
    1.000001, above any cosine.

    For the pairs of the data set, it follows the protocol of LFW and adds ``accuracy``,
    ``accuracy_std`` and ``accuracy_se`` over the folds, each fold at the threshold that is best on
    the others, and ``accuracy_threshold``, the mean of these thresholds.

    There is no such protocol for all pairs. ``accuracy_best`` is the highest accuracy that one
    threshold reaches on these very pairs. Because nearly all pairs are impostor pairs, it is high
    for any network: with n identities, refusing all pairs is right for about (n - 1) / n of them.
    ``balanced_accuracy_best`` gives both kinds of pairs the same weight. Compare networks by AUC
    and TAR instead. An image without a known identity (``gt_label`` below 0) is of an identity of
    its own.

    Args:
        pairs: 'dataset' for ``metainfo['pairs']`` (FacePairsDataset), 'all' for all pairs of the
            evaluated images, where pairs with equal ``gt_label`` are genuine.
        fars: bounds on the false acceptance rate; one may be given without brackets. A bound below
            1 / impostor pairs is refused, not extrapolated. None takes those of 1e-1 to 1e-6 that
            the pairs can show, and logs which are left out.
        folds: number of contiguous folds, if the pairs of the data set have no ``fold``.
        similarity: 'cosine', the only measure so far.
        block: rows and columns of one matrix product, for all pairs; it bounds the memory.
        hardest: number of pairs of each kind for ``verification.json`` and the sheet of pairs.
        out_dir: folder for ``verification.json`` (results, ROC with thresholds, histogram, hardest
            pairs), ``roc.png``, ``similarities.png`` and, if the image files exist,
            ``hardest_pairs.png``. Each evaluation overwrites them. None writes none.
        collect_device: as in MMEngine's BaseMetric.
        prefix: prefix of the names of the results.
        collect_dir: as in MMEngine's BaseMetric.

    Raises:
        ValueError: if an option has none of these forms; when evaluating, if embeddings are not
            finite, pairs name images that were not evaluated, a kind of pairs is absent, or the
            pairs cannot show a FAR asked for.

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
        check_one_of('pairs', pairs, ('dataset', 'all'))
        check_one_of('similarity', similarity, ('cosine',))
        check_number('folds', folds, least=2)
        check_number('block', block, least=1)
        check_number('hardest', hardest, least=0)
        self.pairs, self.folds, self.block, self.hardest = pairs, folds, block, hardest
        self.fars = checked_rates(fars, 'fars')

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Compute the results of the collected images."""
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
        """Evaluate the pairs of the data set."""
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
        """Evaluate all pairs of images."""
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
        """Warn if most pairs have the same similarity."""
        pairs = counts.genuine + counts.impostors
        place = int(pairs.argmax())
        most, total = int(pairs[place]), int(pairs.sum())
        if most > 1 and 2 * most > total:
            self.say(
                f'{most:,} of {total:,} pairs have the same similarity, {counts.scores[place]:.7f} '
                f'(steps of {1 / GRID:.1g} are distinguished): most embeddings are alike, and the '
                'results say little',
                logging.WARNING,
            )

    def _progress(self, count: int) -> Progress | None:
        """Return a callback that logs each tenth of a long evaluation; None for a short one."""
        if count * (count - 1) // 2 < _PROGRESS_FROM:
            return None
        logged = 0

        def progress(done: int, total: int) -> None:
            nonlocal logged
            if done * 10 // total > logged:
                logged = done * 10 // total
                self.say(f'{done:,} of {total:,} pairs')

        return progress

    def _write(
        self, folder: Path, images: Collected, found: _Evaluated, figures: dict[str, float]
    ) -> None:
        """Write the results as json, and the plots."""
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
                'hardest_impostors': _json_pairs(images, found.impostors),
                'hardest_genuine': _json_pairs(images, found.genuine),
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
            _sheet_pairs(images, extreme) for extreme in (found.impostors, found.genuine)
        )
        files = {path for pair in impostor_pairs + genuine_pairs for path in pair.paths}
        if any(path is not None and Path(path).is_file() for path in files):
            unread = draw_hardest_pairs(impostor_pairs, genuine_pairs, folder / 'hardest_pairs.png')
            if unread:
                self.say(f'{unread} images of the hardest pairs could not be read', logging.WARNING)


def _extreme(
    similarities: Tensor, index: Tensor, chosen: Tensor, count: int, *, most: bool
) -> ExtremePairs:
    """Return the most or least similar of the chosen pairs, ties in the order of the list."""
    values = similarities[chosen]
    order = values.argsort(descending=most, stable=True)[:count]
    return ExtremePairs(index[chosen][order], values[order])


def _histogram(counts: ScoreCounts) -> tuple[list[float], list[int], list[int]]:
    """Count the pairs of each kind in BINS bins over [-1, 1], and return edges and counts."""
    place = ((counts.scores.double() + 1) * (BINS / 2)).long().clamp_(max=BINS - 1)
    genuine, impostors = (
        torch.zeros(BINS, dtype=torch.int64).index_add_(0, place, kind).tolist()
        for kind in (counts.genuine, counts.impostors)
    )
    return torch.linspace(-1, 1, BINS + 1, dtype=torch.float64).tolist(), genuine, impostors


def _json_pairs(images: Collected, extreme: ExtremePairs) -> list[dict[str, Any]]:
    """Describe pairs for json."""
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


def _sheet_pairs(images: Collected, extreme: ExtremePairs) -> list[FacePair]:
    """Describe pairs for the sheet; images are named by folder and file."""
    drawn = []
    for (one, two), value in zip(extreme.pairs.tolist(), extreme.similarity.tolist(), strict=True):
        paths = images.paths[one], images.paths[two]
        names = [str(Path(*Path(path).parts[-2:])) if path else '' for path in paths]
        drawn.append(FacePair(paths, value, (names[0], names[1])))
    return drawn
