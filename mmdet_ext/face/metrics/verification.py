"""Metric of MMEngine that verifies pairs of faces."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mmdet_ext.face.metrics.embedding_metric import (
    Collected,
    EmbeddingMetric,
    above_all,
    checked_rates,
    plain,
)
from mmdet_ext.face.metrics.joined_sets import (
    ImagesOfSet,
    Row,
    images_by_set,
    joined_rows,
    means_over_sets,
    pairs_of,
    pairs_of_set,
    refuse_images_of_no_set,
)
from mmdet_ext.face.metrics.operating_points import (
    ROC_POINTS,
    curve_for_json,
    grid_figures,
    rate_figures,
    warn_of_ties,
)
from mmdet_ext.face.metrics.verification_files import extreme_pairs, json_pairs, sheet_pairs
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.functional.scoring.accuracy import best_accuracy, fold_accuracy
from mmdet_ext.functional.scoring.all_pairs import BLOCK, ExtremePairs, Progress, count_all_pairs
from mmdet_ext.functional.scoring.similarity import pair_similarities
from mmdet_ext.functional.scoring.verification import ScoreCounts, count_scores, roc_curve
from mmdet_ext.plots.face import draw_hardest_pairs, draw_roc, draw_score_histogram
from mmdet_ext.registry import METRICS
from mmdet_ext.utils.files import write_json

_PROGRESS_FROM = 10**9


@dataclass(frozen=True)
class _Evaluated:
    """Results of one set."""

    figures: dict[str, float]
    counts: ScoreCounts


@dataclass(frozen=True)
class _Scored:
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

    If one loader joins several FacePairsDatasets by ``ConcatDataset``, each set is evaluated by its
    own pairs and reported after its name, as ``lfw/accuracy``. ``mean/accuracy``, ``mean/auc``,
    ``mean/eer`` and ``mean/tar@...`` are the means over the sets.

    There is no such protocol for all pairs. ``accuracy_best`` is the highest accuracy that one
    threshold reaches on these very pairs. Because nearly all pairs are impostor pairs, it is high
    for any network: with n identities, refusing all pairs is right for about (n - 1) / n of them.
    ``balanced_accuracy_best`` gives both kinds of pairs the same weight. Compare networks by AUC
    and TAR instead. An image without a known identity (``gt_label`` below 0) is of an identity of
    its own.

    Args:
        pairs: 'dataset' for ``metainfo['pairs']`` (FacePairsDataset), 'all' for all pairs of the
            evaluated images, where pairs with equal ``gt_label`` are genuine. Of joined data sets,
            labels are different identities, unless both name the same folder of images.
        fars: bounds on the false acceptance rate; one may be given without brackets. A bound below
            1 / impostor pairs is refused, not extrapolated. None takes those of 1e-1 to 1e-6 that
            the pairs can show, and logs which are left out.
        folds: number of contiguous folds, if the pairs of the data set have no ``fold``.
        insightface: whether to add InsightFace's figures of the pairs of the data set, beside the
            exact ones: ``insightface_accuracy``, ``insightface_accuracy_std``,
            ``insightface_tar``, ``insightface_tar_std`` and ``insightface_far``, at a FAR of 1e-3
            and with ``folds`` contiguous folds. See `grid_verification` for how they differ.
        similarity: 'cosine', the only measure so far.
        block: rows and columns of one matrix product, for all pairs; it bounds the memory.
        hardest: number of pairs of each kind for ``verification.json`` and the sheet of pairs.
        out_dir: folder for ``verification.json`` (results, ROC with thresholds, histogram, hardest
            pairs), ``roc.png``, ``similarities.png`` and, if the image files exist,
            ``hardest_pairs.png``. Several sets have a folder each, beside ``verification.json`` and
            ``roc.png`` of all. Each evaluation overwrites them. None writes none.
        collect_device: as in MMEngine's BaseMetric.
        prefix: prefix of the names of the results.
        collect_dir: as in MMEngine's BaseMetric.

    Raises:
        ValueError: if an option has none of these forms; when evaluating, if embeddings are not
            finite, pairs name images that were not evaluated, a kind of pairs is absent, the pairs
            cannot show a FAR asked for, or the images are not those of the pairs.

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
        insightface: bool = False,
    ) -> None:
        super().__init__(out_dir, collect_device, prefix, collect_dir)
        check_one_of('pairs', pairs, ('dataset', 'all'))
        check_one_of('similarity', similarity, ('cosine',))
        check_number('folds', folds, least=2)
        check_number('block', block, least=1)
        check_number('hardest', hardest, least=0)
        self.pairs, self.folds, self.block, self.hardest = pairs, folds, block, hardest
        self.fars, self.insightface = checked_rates(fars, 'fars'), insightface
        if insightface and pairs == 'all':
            raise ValueError("insightface=True needs pairs='dataset': its protocol has folds")

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Compute the results of the collected images."""
        sets = images_by_set(results)
        if len(sets) > 1 and self.pairs == 'dataset':
            return above_all(self._of_sets(sets))
        pairs = None if self.pairs == 'all' else pairs_of(sets, self.meta)
        return above_all(self._evaluated(self._joined(sets), pairs, self.out_dir).figures)

    def _of_sets(self, sets: Sequence[ImagesOfSet]) -> dict[str, float]:
        """Evaluate each of several sets of pairs, and take the means over them."""
        refuse_images_of_no_set(sets)
        found = {}
        for images in sets:
            folder = None if self.out_dir is None else self.out_dir / images.name
            with self.about(images.name):
                found[images.name] = self._evaluated(images.rows, pairs_of_set(images), folder)
        figures = {
            f'{name}/{key}': value
            for name, one in found.items()
            for key, value in one.figures.items()
        }
        figures |= means_over_sets([one.figures for one in found.values()])
        self.write_files(lambda folder: self._write_summary(folder, found, figures))
        return figures

    def _joined(self, sets: Sequence[ImagesOfSet]) -> list[Row]:
        """Return the results of all images, numbered anew if they are of several sets."""
        if len(sets) < 2:
            return sets[0].rows if sets else []
        rows, doubles = joined_rows(sets)
        self.say(
            f'all pairs of the images of {len(sets)} data sets: labels of different data sets are '
            'different identities, unless they name one folder'
        )
        if doubles:
            self.say(f'{doubles:,} images are files of another set too, and count once')
        return rows

    def _evaluated(
        self,
        rows: Sequence[Row],
        pairs: Mapping[str, Any] | None,
        folder: Path | None,
    ) -> _Evaluated:
        """Evaluate listed pairs, or all pairs if ``pairs`` is None."""
        images = self.collected(rows)
        found = self._of_all(images) if pairs is None else self._of_listed(images, pairs)
        figures = {
            **found.accuracy,
            **rate_figures(self, found.counts, self.fars),
            'zero_embeddings': float(images.zeros),
        }
        warn_of_ties(self, found.counts)
        self.write_files(lambda place: self._write(place, images, found, figures), folder)
        return _Evaluated(figures, found.counts)

    def _of_listed(self, images: Collected, pairs: Mapping[str, Any]) -> _Scored:
        """Evaluate the pairs of a list."""
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
        return _Scored(
            count_scores(similarities, same),
            extreme_pairs(similarities, index, ~same, self.hardest, most=True),
            extreme_pairs(similarities, index, same, self.hardest, most=False),
            {
                'accuracy': folds.mean,
                'accuracy_std': folds.std,
                'accuracy_se': folds.standard_error,
                'accuracy_threshold': sum(folds.thresholds) / len(folds.thresholds),
                **(grid_figures(similarities, same, self.folds) if self.insightface else {}),
            },
        )

    def _of_all(self, images: Collected) -> _Scored:
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
        return _Scored(
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

    def _write_summary(
        self, folder: Path, sets: Mapping[str, _Evaluated], figures: dict[str, float]
    ) -> None:
        """Write the results of several sets as json, and plot their curves together."""
        write_json(
            folder / 'verification.json',
            {
                'pairs': self.pairs,
                'sets': list(sets),
                'figures': {name: plain(value) for name, value in figures.items()},
            },
        )
        curves = {}
        for name, one in sets.items():
            curve = roc_curve(one.counts, ROC_POINTS)
            curves[f'{name}: AUC {one.figures["auc"]:.4f}'] = curve.far.tolist(), curve.tar.tolist()
        draw_roc(curves, folder / 'roc.png')

    def _write(
        self, folder: Path, images: Collected, found: _Scored, figures: dict[str, float]
    ) -> None:
        """Write the results as json, and the plots."""
        curves = curve_for_json(found.counts)
        write_json(
            folder / 'verification.json',
            {
                'pairs': self.pairs,
                'pictures': len(images.labels),
                'figures': {name: plain(value) for name, value in figures.items()},
                **curves,
                'hardest_impostors': json_pairs(images, found.impostors),
                'hardest_genuine': json_pairs(images, found.genuine),
            },
        )
        name = f'AUC {figures["auc"]:.4f}, EER {figures["eer"]:.2%}'
        draw_roc({name: (curves['roc']['far'], curves['roc']['tar'])}, folder / 'roc.png')
        histogram = curves['histogram']
        draw_score_histogram(
            histogram['edges'],
            histogram['genuine'],
            histogram['impostors'],
            folder / 'similarities.png',
            {'equal errors': figures['eer_threshold']},
        )
        impostor_pairs, genuine_pairs = (
            sheet_pairs(images, extreme) for extreme in (found.impostors, found.genuine)
        )
        files = {path for pair in impostor_pairs + genuine_pairs for path in pair.paths}
        if any(path is not None and Path(path).is_file() for path in files):
            unread = draw_hardest_pairs(impostor_pairs, genuine_pairs, folder / 'hardest_pairs.png')
            if unread:
                self.say(f'{unread} images of the hardest pairs could not be read', logging.WARNING)
