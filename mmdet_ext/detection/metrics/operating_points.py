"""Metric of operating points: the threshold to use, and what it costs in false detections."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.fileio import load
from mmengine.logging import MMLogger, print_log

from mmdet_ext.analysis.detection.columns import (
    ImageRows,
    TruthSet,
    detections_of_rows,
    restricted,
    truth_of_coco,
    truth_of_rows,
)
from mmdet_ext.analysis.detection.operating_points import (
    OVERALL,
    PointOptions,
    operating_points,
    summary_table,
)
from mmdet_ext.analysis.detection.points import FROC_FPPI, Protocol
from mmdet_ext.detection.metrics.samples import annotated_rows, predicted_rows
from mmdet_ext.plots.detection.operating_points import draw_operating_points
from mmdet_ext.registry import METRICS
from mmdet_ext.utils.files import write_json

LOG_FOLDER = 'log'


@METRICS.register_module()
class OperatingPointMetric(BaseMetric):  # type: ignore[misc]
    """Metric of what a detector does at one threshold of the score, for any data set of mmdet.

    Mean precision does not say whether a detector can be used: a project asks for false detections
    per image (FPPI), for the precision at a recall, and for one threshold. Detections are matched
    as COCO does, crowds and ignored boxes included. Over all classes together, and per class:

    - precision TP / (TP + FP), recall TP / boxes, F1 and FPPI at given thresholds;
    - the threshold with the highest F1, and the one that reaches a wished precision, recall or
      FPPI, or that none does;
    - recall at given FPPI (FROC), precision at given recalls, and the log-average miss rate;
    - intervals of all of these by resampling the images.

    The results are, for an IoU of 0.5, ``F1_50`` with ``threshold_50``, ``precision_50``,
    ``recall_50`` and ``FPPI_50`` at its threshold, the miss rate ``MR_50``, and for a wish that is
    reached such as a precision of 0.9 ``threshold@precision0.9_50`` and ``recall@precision0.9_50``.
    The log shows a table, ``operating_points.json`` holds all figures, and
    ``operating_points.png`` shows precision-recall, F1 by threshold and FROC.

    Args:
        ann_file: annotations in COCO's form; None takes the ground truth of the data samples.
        iou_thresholds: thresholds of the IoU, above 0 and at most 1.
        score_thresholds: scores at which to report.
        precision: precisions to reach, from 0 to 1.
        recall: recalls to reach, from 0 to 1.
        fppi: false detections per image not to exceed.
        froc_fppi: false detections per image at which the recall is reported.
        recalls: recalls at which the precision is reported.
        miss_rate: 'dollar' for FPPI of 0.01 to 1 as Dollar et al.; 'crowdhuman' for the values of
            mmdet's CrowdHumanMetric.
        max_per_image: largest number of detections per class and image; None counts all.
        classwise: also report the figures per class, as ``<class>/F1_50``.
        resamples: number of resamples of the images, 0 for no intervals.
        confidence: share of the resamples within an interval.
        seed: seed of the resamples.
        out_dir: folder for the files, which each evaluation overwrites. 'log' is the folder of the
            run's log, if there is one; None writes none.
        collect_device: as in MMEngine's BaseMetric.
        prefix: prefix of the names of the results.
        collect_dir: as in MMEngine's BaseMetric.

    Raises:
        ValueError: if an option is out of range; when evaluating, if the data set names no
            classes, there is no ground truth, a score is not finite, or images are of another set.

    References:
        Dollar et al., Pedestrian Detection: An Evaluation of the State of the Art, PAMI 2012,
        section 3; Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014.
    """

    default_prefix: str | None = 'points'

    def __init__(
        self,
        ann_file: str | None = None,
        iou_thresholds: Sequence[float] = (0.5,),
        score_thresholds: Sequence[float] = (0.3, 0.5),
        precision: Sequence[float] = (),
        recall: Sequence[float] = (),
        fppi: Sequence[float] = (),
        froc_fppi: Sequence[float] = FROC_FPPI,
        recalls: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95),
        miss_rate: Protocol = 'dollar',
        max_per_image: int | None = None,
        classwise: bool = False,
        resamples: int = 200,
        confidence: float = 0.95,
        seed: int = 0,
        out_dir: str | None = LOG_FOLDER,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if max_per_image is not None and max_per_image < 1:
            raise ValueError(f'max_per_image must be 1 or more, or None, got {max_per_image}')
        self.options = PointOptions(
            iou_thresholds=tuple(iou_thresholds),
            score_thresholds=tuple(score_thresholds),
            wishes=tuple(
                [('precision', value) for value in precision]
                + [('recall', value) for value in recall]
                + [('fppi', value) for value in fppi]
            ),
            fppi=tuple(froc_fppi),
            recalls=tuple(recalls),
            miss_rate=miss_rate,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )
        self.max_per_image, self.classwise, self.out_dir = max_per_image, classwise, out_dir
        self.ann_file = ann_file
        self._content = None if ann_file is None else load(ann_file)
        self.report: dict[str, Any] = {}

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep the boxes of a batch.

        Args:
            data_batch: not used.
            data_samples: data samples of the batch, with ``pred_instances``.

        Raises:
            ValueError: if a data sample lacks detections or ground truth.
        """
        for sample in data_samples:
            truth = annotated_rows(sample) if self._content is None else None
            self.results.append((predicted_rows(sample), truth))

    def compute_metrics(
        self, results: Sequence[tuple[ImageRows, ImageRows | None]]
    ) -> dict[str, float]:
        """Compute the report of all images, log its table, and write the files.

        Raises:
            ValueError: if no image was evaluated, or the results do not fit the ground truth.
        """
        if not results:
            raise ValueError('OperatingPointMetric: no image was evaluated')
        # A batch of several processes may repeat an image, to be full.
        rows = {row.image_id: (row, truth) for row, truth in results}
        data = self._truth([truth for _, truth in rows.values() if truth is not None], list(rows))
        found = detections_of_rows(
            [row for row, _ in rows.values()], data, max_per_image=self.max_per_image
        )
        self.report = operating_points(data, found, self.options)
        self._say(f'operating points\n{summary_table(self.report)}')
        self._write()
        return self._figures()

    def _truth(self, rows: Sequence[ImageRows], image_ids: Sequence[Any]) -> TruthSet:
        """Return the ground truth of the images that were evaluated."""
        classes = self._classes()
        if self._content is None:
            return truth_of_rows(rows, classes)
        names = [str(entry['name']) for entry in self._content.get('categories', ())]
        unknown = [name for name in classes if name not in names]
        if unknown:
            raise ValueError(
                f'OperatingPointMetric: {self.ann_file} has no class {unknown}; its classes are '
                f'{names}'
            )
        # mmdet numbers labels in the order of the file.
        wanted = [name for name in names if name in classes]
        whole = truth_of_coco(self._content, wanted, str(self.ann_file))
        data = restricted(whole, image_ids)
        left_out = len(whole.image_ids) - len(data.image_ids)
        if left_out:
            self._say(
                f'{left_out:,} of {len(whole.image_ids):,} images of {self.ann_file} were not '
                'evaluated and do not count',
                logging.WARNING,
            )
        return data

    def _classes(self) -> list[str]:
        meta = self.dataset_meta if isinstance(self.dataset_meta, Mapping) else {}
        classes = meta.get('classes')
        if not classes:
            raise ValueError(
                f"OperatingPointMetric needs the data set's metainfo['classes'], got {classes!r}"
            )
        return [classes] if isinstance(classes, str) else [str(name) for name in classes]

    def _figures(self) -> dict[str, float]:
        """Return the figures by name, without those that are undefined."""
        figures: dict[str, float | None] = {}
        for table in self.report['iou_thresholds']:
            entries = {OVERALL: table[OVERALL]} | (table['classes'] if self.classwise else {})
            for name, entry in entries.items():
                head = '' if name == OVERALL else f'{name}/'
                for key, value in _named(entry).items():
                    figures[f'{head}{key}_{round(100 * table["iou"])}'] = value
        return {name: value for name, value in figures.items() if value is not None}

    def _write(self) -> None:
        """Write the files; an error is logged, and the results remain."""
        folder = _log_folder() if self.out_dir == LOG_FOLDER else self.out_dir
        if folder is None:
            return
        folder = Path(folder)
        try:
            write_json(folder / 'operating_points.json', self.report)
            draw_operating_points(self.report, folder / 'operating_points.png')
        except Exception as error:  # files and plotting libraries raise many types
            self._say(
                f'files could not be written to {folder} ({type(error).__name__}: {error}); the '
                'figures are not affected',
                logging.WARNING,
            )
        else:
            self._say(f'operating_points.json and operating_points.png written to {folder}')

    def _say(self, message: str, level: int = logging.INFO) -> None:
        print_log(f'{type(self).__name__}: {message}', logger='current', level=level)


def _named(entry: Mapping[str, Any]) -> dict[str, float | None]:
    """Name the figures of one class: those at the best F1, the miss rate, and each wish."""
    best, *wished = entry['chosen']
    figures: dict[str, float | None] = {'F1': best.get('f1', 0.0 if entry['boxes'] else None)}
    for key in ('threshold', 'precision', 'recall'):
        figures[key] = best.get(key)
    figures['FPPI'] = best.get('fppi')
    figures['MR'] = entry['log_average_miss_rate']
    for point in wished:
        wish, _, value = point['wish'].split(' ')
        gained = 'precision' if wish == 'recall' else 'recall'
        for key in ('threshold', gained):
            figures[f'{key}@{wish}{value}'] = point.get(key)
    return figures


def _log_folder() -> Path | None:
    """Return the folder that the run's log is written to; None if no log is written."""
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            return Path(handler.baseFilename).parent
    return None
