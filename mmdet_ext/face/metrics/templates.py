"""Metric of MMEngine that verifies pairs of templates, as IJB-B and IJB-C do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmengine.dist import get_world_size

from mmdet_ext.data.face.templates import TemplateProtocol, check_templates
from mmdet_ext.face.metrics.embedding_metric import (
    EmbeddingMetric,
    above_all,
    checked_rates,
    plain,
)
from mmdet_ext.face.metrics.operating_points import curve_for_json, rate_figures, warn_of_ties
from mmdet_ext.face.metrics.template_sums import PartialSums, TemplateSums
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.functional.scoring.templates import BLOCK, Pooling, count_template_pairs
from mmdet_ext.functional.scoring.verification import ScoreCounts
from mmdet_ext.plots.face import draw_roc, draw_score_histogram
from mmdet_ext.registry import METRICS
from mmdet_ext.utils.files import write_json

_NAME = 'templates'


@METRICS.register_module()
class TemplateVerificationMetric(EmbeddingMetric):
    r"""Metric that judges whether two templates show one person: 1:1 of IJB-B and IJB-C.

    A template holds images of media: photographs, and videos of which they are frames. With the
    embedding x of an image, the score s of its detector and the number n of images of its medium in
    the template:

    .. math:: t = \sum_{\text{media}} \frac{1}{n} \sum_{\text{images}} s x, \quad
              \text{similarity} = \frac{t_a \cdot t_b}{\lVert t_a \rVert \lVert t_b \rVert}

    A mean over the media gives the same as their sum, because t is normalised. Mirror images are
    added before, by ``FaceDataPreprocessor(flip_at_test=True)`` and the head, and not here.

    It reports these results, all floats, after ``prefix`` and ``templates/``: ``auc``; ``eer`` and
    ``eer_threshold``; ``tar@far=1e-04`` and ``threshold@far=1e-04`` for each FAR; and the counts
    ``genuine_pairs``, ``impostor_pairs``, ``templates``, ``media``, ``images``,
    ``zero_embeddings`` and ``zero_templates``. The TAR is that of the lowest threshold whose FAR is
    at most the bound; InsightFace takes the point whose FAR is nearest, also above it.

    Images are added to their templates as they come, and pairs are scored by blocks, so that memory
    holds the templates, not the images, and no table of pairs x D.

    Args:
        protocol: 'dataset' for ``metainfo['templates']`` (FaceTemplatesDataset); or a mapping with
            ``image`` (R,), the ``sample_idx``, ``template`` (R,), ``medium`` (R,), perhaps
            ``score`` (R,), ``pairs`` (K, 2) and ``same`` (K,), for any data set.
        pooling: 'length' adds embeddings as they are, so that a longer one weighs more, as one of
            better quality should (MagFace, AdaFace); 'equal' scales each to length 1 before.
        detector_scores: whether to multiply by the scores of the detector; None does so if the
            protocol has them.
        fars: bounds on the false acceptance rate; one may be given without brackets. A bound below
            1 / impostor pairs is refused, not extrapolated. None takes those of 1e-1 to 1e-6 that
            the pairs can show, and logs which are left out.
        block: pairs that are scored at once; it bounds the memory.
        out_dir: folder for ``templates.json`` (results, ROC with thresholds, histogram),
            ``templates_roc.png`` and ``templates_similarities.png``, which each evaluation
            overwrites; None writes none.
        collect_device: as in MMEngine's BaseMetric.
        prefix: prefix of the names of the results.
        collect_dir: as in MMEngine's BaseMetric.

    Raises:
        ValueError: if an option has none of these forms; when evaluating, if the protocol is absent
            or does not hold together, an image of a template was not evaluated, embeddings are not
            finite, a kind of pairs is absent, or the pairs cannot show a FAR asked for.

    References:
        C. Whitelam et al.: IARPA Janus Benchmark-B face dataset. CVPR Workshops, 2017.
        B. Maze et al.: IARPA Janus Benchmark - C: Face dataset and protocol. ICB, 2018.
    """

    def __init__(
        self,
        protocol: Literal['dataset'] | Mapping[str, Any] = 'dataset',
        pooling: Pooling = 'length',
        detector_scores: bool | None = None,
        fars: float | Sequence[float] | None = None,
        block: int = BLOCK,
        out_dir: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(out_dir, collect_device, prefix, collect_dir)
        if protocol != 'dataset' and not isinstance(protocol, Mapping):
            raise ValueError(
                "protocol must be 'dataset', or a mapping of image, template, medium, pairs and "
                f'same, got {protocol!r}'
            )
        check_one_of('pooling', pooling, Pooling)
        check_one_of('detector_scores', detector_scores, (True, False, None))
        check_number('block', block, least=1)
        self.protocol, self.pooling, self.detector_scores = protocol, pooling, detector_scores
        self.block, self.fars = block, checked_rates(fars, 'fars')
        self._checked: tuple[Mapping[str, Any], TemplateProtocol] | None = None
        self._sums: TemplateSums | None = None

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Add the embeddings of a batch to their templates.

        Args:
            data_batch: not used.
            data_samples: data samples of the batch, as dicts.

        Raises:
            KeyError: if a data sample has no ``embedding`` or no ``sample_idx``.
            ValueError: if an embedding is not 1-D, embeddings differ in size, two images have one
                ``sample_idx``, or there is no usable protocol.
        """
        super().process(data_batch, data_samples)
        rows: list[Any] = list(self.results)
        self.results.clear()
        if self._sums is None:
            self._sums = self._new_sums()
        self._sums.add([row[:4] for row in rows])

    def evaluate(self, size: int) -> dict[str, float]:
        """Exchange the sums of all ranks, and compute the results.

        Args:
            size: number of images of the data set.
        """
        # One entry per rank, also where a rank had no image: MMEngine takes as many from each.
        self.results = [None if self._sums is None else self._sums.state]
        try:
            found: dict[str, float] = super().evaluate(max(size, get_world_size()))
        finally:
            self._sums = None
            self.results.clear()
        return found

    def compute_metrics(self, results: list[PartialSums | None]) -> dict[str, float]:
        """Compute the results from the sums of all ranks."""
        parts = [part for part in results if part is not None]
        if not parts:
            raise ValueError(f'{type(self).__name__}: no image was evaluated')
        protocol, merged = self._known_protocol(), self._new_sums()
        merged.merge(parts)
        templates, zeros, unused = merged.finished()
        if unused:
            self.say(f'{unused:,} evaluated images are in no template', logging.WARNING)
        empty = int((templates == 0).all(1).sum())
        if zeros or empty:
            self.say(
                f'{zeros:,} embeddings and {empty:,} of {len(templates):,} templates are all zero: '
                'similarities of such templates count as 0',
                logging.WARNING,
            )
        counts = count_template_pairs(
            templates, torch.from_numpy(protocol.pairs), torch.from_numpy(protocol.same), self.block
        )
        media = len(np.unique(np.stack([protocol.template, protocol.medium]), axis=1).T)
        figures = rate_figures(self, counts, self.fars) | {
            'templates': float(len(templates)),
            'media': float(media),
            'images': float(len(np.unique(protocol.image))),
            'zero_embeddings': float(zeros),
            'zero_templates': float(empty),
        }
        warn_of_ties(self, counts)
        self.write_files(lambda folder: self._write(folder, counts, figures))
        return above_all({f'{_NAME}/{name}': value for name, value in figures.items()})

    def _new_sums(self) -> TemplateSums:
        """Return sums without an image."""
        protocol = self._known_protocol()
        if self.detector_scores and protocol.score is None:
            raise ValueError(
                'detector_scores=True, but the protocol has no score. Give FaceTemplatesDataset a '
                'list with a column of scores, or leave detector_scores out'
            )
        return TemplateSums(protocol, self.pooling, self.detector_scores is not False)

    def _known_protocol(self) -> TemplateProtocol:
        """Return the checked protocol of the option or of the data set."""
        table = self.protocol if isinstance(self.protocol, Mapping) else self.meta.get('templates')
        if table is None:
            raise ValueError(
                "protocol='dataset' needs metainfo['templates'] of the data set, as "
                'FaceTemplatesDataset has it; for any other, give the protocol as a mapping'
            )
        if self._checked is None or self._checked[0] is not table:
            self._checked = table, check_templates(table)
        return self._checked[1]

    def _write(self, folder: Path, counts: ScoreCounts, figures: dict[str, float]) -> None:
        """Write the results as json, and the plots."""
        curves = curve_for_json(counts)
        write_json(
            folder / 'templates.json',
            {
                'pooling': self.pooling,
                'figures': {name: plain(value) for name, value in figures.items()},
                **curves,
            },
        )
        name = f'AUC {figures["auc"]:.4f}, EER {figures["eer"]:.2%}'
        draw_roc({name: (curves['roc']['far'], curves['roc']['tar'])}, folder / 'templates_roc.png')
        histogram = curves['histogram']
        draw_score_histogram(
            histogram['edges'],
            histogram['genuine'],
            histogram['impostors'],
            folder / 'templates_similarities.png',
            {'equal errors': figures['eer_threshold']},
        )
