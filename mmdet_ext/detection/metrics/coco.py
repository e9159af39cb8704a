"""COCO metric with a fast backend: mmdet's CocoMetric in a fraction of its time and memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger

from mmdet_ext.detection.metrics.coco_files import write_results, write_truth
from mmdet_ext.detection.metrics.coco_images import ImageResult, detections_of, reading_of
from mmdet_ext.detection.metrics.coco_tables import (
    HEADERS,
    ITEMS,
    KEYPOINT_ITEMS,
    USUAL,
    class_row,
    item_of,
    rounded,
    table,
)
from mmdet_ext.evaluation.annotations import Reading, read_annotations
from mmdet_ext.evaluation.columns import (
    Detections,
    GroundTruth,
    Rows,
    check_detections,
    without_categories,
)
from mmdet_ext.evaluation.protocol import PERSON_SIGMAS, Figures, Protocol
from mmdet_ext.evaluation.recalls import proposal_recalls
from mmdet_ext.evaluation.running import Outcome, choose_backend, evaluate
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.registry import METRICS

#: COCO's thresholds of the overlap.
IOU_THRS = tuple(np.linspace(0.5, 0.95, 10).tolist())
KINDS = ('bbox', 'segm', 'proposal', 'proposal_fast', 'keypoints')


@METRICS.register_module()
class CocoMetric(BaseMetric):  # type: ignore[misc]
    """COCO metric that evaluates columns with a fast backend.

    It replaces mmdet's CocoMetric in a config: the same options give results of the same names and
    values, to the last digit. Detections are kept as arrays and go to the backend as columns, not
    as a dictionary each and not through json; the figures are read off the backend's tables here,
    as the headlines of backends differ. The backend runs in a process of its own. If it does not
    return within a bound of its work, it is ended and pycocotools takes over, which the log says.

    It differs from mmdet's where that fails or is wrong:

    - without a single detection, figures are 0 instead of absent;
    - images that the ground truth lacks, scores of NaN and boxes that are not finite are refused
      by name; ``ignore`` flags, absent ``iscrowd`` or ``area``, and repeated ids are reported;
    - per-class figures have the name of their class also where the file's categories do not
      ascend by id;
    - with a list for ``iou_thrs``, mAP_50 and mAP_75 are read at their thresholds (mmdet: -1, and
      an error with NumPy 2).

    Args:
        ann_file: annotations in COCO's form; None takes the ground truth of the data samples.
        metric: 'bbox', 'segm', 'proposal', 'proposal_fast', 'keypoints', or several of them.
        classwise: report the figures of each class, and log them as a table.
        proposal_nums: three numbers of detections per image. The names of figures stay those of
            100, 300 and 1000, as in mmdet.
        iou_thrs: thresholds of the overlap in (0, 1]; None for 0.5, 0.55, ..., 0.95.
        metric_items: names of the figures to report; None for the usual ones.
        format_only: only write the json files of the detections.
        outfile_prefix: prefix of these files, which are written if it is given.
        file_client_args: refused, as in mmdet.
        backend_args: arguments of MMEngine's file backend for ``ann_file``.
        collect_device: as in MMEngine's BaseMetric.
        prefix: prefix of the names of the results.
        sort_categories: order the categories by id, as for mmdet's Objects365V1Dataset.
        use_mp_eval: taken for mmdet's sake; the backend decides about its threads.
        backend: 'hotcoco', 'faster_coco_eval' or 'pycocotools'; 'auto' for the first of these that
            is installed.
        time_limit: seconds after which a backend counts as stuck; 'auto' for a bound that grows
            with boxes and detections; None runs it in this process, without a limit.
        sigmas: sigma of each keypoint; None for COCO's 17 of a person.

    Attributes:
        outcomes: of the last evaluation, by metric, the tables of precision and recall, and what
            the backend took for them.

    Raises:
        FileNotFoundError: if there is no ``ann_file``.
        ImportError: if the backend is not installed.
        KeyError: if there is no such metric, or no figure of a name in ``metric_items``.
        RuntimeError: if ``file_client_args`` is given.
        ValueError: if an option is out of range; when evaluating, if the results do not belong to
            the ground truth or cannot be ranked.

    References:
        Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014.
    """

    default_prefix: str | None = 'coco'

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | Sequence[str] = 'bbox',
        classwise: bool = False,
        proposal_nums: Sequence[int] = (100, 300, 1000),
        iou_thrs: float | Sequence[float] | None = None,
        metric_items: Sequence[str] | None = None,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        file_client_args: Mapping[str, Any] | None = None,
        backend_args: Mapping[str, Any] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        sort_categories: bool = False,
        use_mp_eval: bool = False,
        backend: Literal['auto', 'hotcoco', 'faster_coco_eval', 'pycocotools'] = 'auto',
        time_limit: float | Literal['auto'] | None = 'auto',
        sigmas: Sequence[float] | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.metrics = [metric] if isinstance(metric, str) else list(metric)
        for name in self.metrics:
            if name not in KINDS:
                raise KeyError(f'metric should be one of {", ".join(KINDS)}, but got {name}.')
        if file_client_args is not None:
            raise RuntimeError('file_client_args is no longer used, give backend_args instead')
        if format_only and outfile_prefix is None:
            raise ValueError('format_only only writes files: it needs outfile_prefix, their prefix')
        if time_limit is not None and time_limit != 'auto':
            check_number('time_limit', float(time_limit), above=0)
        self.proposal_nums = _numbers(proposal_nums)
        self.iou_thrs = _thresholds(iou_thrs)
        self.metric_items = None if metric_items is None else list(metric_items)
        self._check_items()
        self.classwise, self.format_only = classwise, format_only
        self.outfile_prefix, self.sort_categories = outfile_prefix, sort_categories
        self.backend, self.time_limit = choose_backend(backend), time_limit
        self.sigmas = PERSON_SIGMAS if sigmas is None else tuple(float(each) for each in sigmas)
        self.outcomes: dict[str, Outcome] = {}
        self._reading: Reading | None = None
        if ann_file is not None:
            args = None if backend_args is None else dict(backend_args)
            with get_local_path(ann_file, backend_args=args) as path:
                self._reading = self._read(str(path))
            self._report(self._reading)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep the columns of a batch.

        Args:
            data_batch: not used.
            data_samples: data samples of the batch, with ``pred_instances``.

        Raises:
            ValueError: if a data sample lacks boxes, scores, labels, or the ground truth.
        """
        with_truth = self._reading is None
        masks = 'segm' in self.metrics or self.outfile_prefix is not None
        self.results += [
            ImageResult.of_sample(sample, with_truth, masks) for sample in data_samples
        ]

    def compute_metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """Evaluate all images, and log the tables.

        Raises:
            KeyError: if 'segm' is asked for and the results have no masks.
            ValueError: if the results do not belong to the ground truth, or cannot be ranked.
        """
        # MMEngine hands plain tuples on.
        images = [ImageResult(*each) for each in results]
        if not images:
            raise ValueError(f'{type(self).__name__}: no image was evaluated')
        reading = self._reading or reading_of(images, self._classes())
        whole = reading.truth
        labelled = self._labelled(reading)
        if self.outfile_prefix is not None:
            files = write_results(self.outfile_prefix, images, whole, labelled)
            files += [write_truth(self.outfile_prefix, whole)] if self._reading is None else []
            self._say(f'results are saved in {", ".join(map(str, files))}')
        if self.format_only:
            return {}
        figures: dict[str, float] = {}
        for metric in self.metrics:
            if metric == 'proposal_fast':
                figures.update(self._fast_recalls(images, whole))
                continue
            chosen = np.sort(labelled)
            # Rows of categories that the data set does not use go, and the others keep their order.
            truth = whole.of_categories(chosen)
            places = np.searchsorted(chosen, labelled)
            found = detections_of(images, truth, places, metric == 'segm')
            check_detections(found, truth)
            figures.update(self._figures(metric, truth, found, places))
        return figures

    def _figures(
        self, metric: str, truth: GroundTruth, found: Detections, places: Rows
    ) -> dict[str, float]:
        """Evaluate one kind of metric, and return its figures by name."""
        if metric == 'proposal':
            truth, found = without_categories(truth, found)
        protocol = self._protocol(metric, truth, found)
        evaluated = self._evaluated(metric, truth, found, protocol)
        self._say('\n' + '\n'.join(evaluated.lines()), named=False)
        values: dict[str, float] = {}
        if metric == 'proposal':
            for name in self.metric_items or USUAL[metric]:
                values[name] = float(f'{item_of(evaluated, ITEMS, name):.3f}')
            return values
        if self.classwise:
            values.update(self._per_class(evaluated, truth, places))
        items = KEYPOINT_ITEMS if metric == 'keypoints' else ITEMS
        for name in self.metric_items or USUAL[metric]:
            values[f'{metric}_{name}'] = rounded(item_of(evaluated, items, name))
        head = (item_of(evaluated, items, name) for name in USUAL[metric])
        self._say(f'{metric}_mAP_copypaste: ' + ' '.join(f'{x:.3f}' for x in head), named=False)
        return values

    def _evaluated(
        self, metric: str, truth: GroundTruth, found: Detections, protocol: Protocol
    ) -> Figures:
        """Fill the tables with the backend, and log what it did."""
        self._say(
            f'evaluating {metric}: {len(found):,} detections and {len(truth):,} boxes of '
            f'{len(truth.image_ids):,} images, with {self.backend}'
        )
        if not len(found):
            self._say(f'{metric}: there is no detection, so that figures are 0', logging.WARNING)
        outcome = evaluate(truth, found, protocol, self.backend, self.time_limit, self._say)
        self._say(f'{metric} evaluated by {outcome}')
        self.outcomes[metric] = outcome
        return Figures(outcome.scores, protocol)

    def _protocol(self, metric: str, truth: GroundTruth, found: Detections) -> Protocol:
        """Return the protocol of a metric.

        Raises:
            ValueError: if keypoints are absent, or their number is not that of the sigmas.
        """
        if metric == 'segm':
            return Protocol('segm', self.iou_thrs, self.proposal_nums)
        if metric != 'keypoints':
            return Protocol('bbox', self.iou_thrs, self.proposal_nums)
        if truth.keypoints is None or (found.keypoints is None and len(found)):
            lacking = 'ground truth' if truth.keypoints is None else 'predictions'
            raise ValueError(f"metric='keypoints': the {lacking} have none (the former: ann_file)")
        for what, points in (('annotations', truth.keypoints), ('predictions', found.keypoints)):
            if points is not None and len(points) and points.shape[1] != len(self.sigmas):
                raise ValueError(
                    f"metric='keypoints': the {what} have {points.shape[1]} keypoints and there "
                    f'are {len(self.sigmas)} sigmas; give sigmas, one for each keypoint'
                )
        return Protocol('keypoints', self.iou_thrs, (20,), sigmas=self.sigmas)

    def _per_class(self, evaluated: Figures, truth: GroundTruth, places: Rows) -> dict[str, float]:
        """Return the precision of each class in the order of labels, and log the table."""
        values, rows = {}, []
        for row in places.tolist():
            figures = class_row(evaluated, row)
            values[f'{truth.names[row]}_precision'] = rounded(figures[0])
            rows.append((truth.names[row], *(f'{rounded(value)}' for value in figures)))
        self._say('\n' + table(HEADERS, rows), named=False)
        return values

    def _fast_recalls(self, images: Sequence[ImageResult], truth: GroundTruth) -> dict[str, float]:
        """Return the recalls of the best boxes of each image, whatever their labels."""
        corners = truth.boxes.copy()
        corners[:, 2:] += corners[:, :2]
        counted = ~(truth.crowd | truth.flagged)
        found = {image.img_id: image for image in images}
        boxes, proposals = [], []
        order = np.argsort(truth.image, kind='stable')
        bounds = np.searchsorted(truth.image[order], np.arange(len(truth.image_ids) + 1))
        for row, name in enumerate(truth.image_ids):
            mine = order[bounds[row] : bounds[row + 1]]
            boxes.append(corners[mine[counted[mine]]])
            image = found.get(name)
            if image is None:
                proposals.append(np.zeros((0, 4)))
            else:
                proposals.append(image.boxes[np.argsort(-image.scores, kind='stable')])
        recalls = proposal_recalls(boxes, proposals, self.proposal_nums, self.iou_thrs)
        values = {
            f'AR@{number}': float(row.mean())
            for number, row in zip(self.proposal_nums, recalls, strict=True)
        }
        self._say('\n' + '\n'.join(f'{key}\t{value:.4f}' for key, value in values.items()))
        return values

    def _read(self, path: str) -> Reading:
        return read_annotations(
            path, masks='segm' in self.metrics, keypoints='keypoints' in self.metrics
        )

    def _report(self, reading: Reading) -> None:
        for note in reading.notes:
            self._say(note, logging.WARNING)

    def _classes(self) -> list[str]:
        """Return the names of the classes.

        Raises:
            ValueError: if the data set has none.
        """
        meta = self.dataset_meta if isinstance(self.dataset_meta, Mapping) else {}
        classes = meta.get('classes')
        if not classes:
            raise ValueError(
                f"{type(self).__name__} needs the data set's metainfo['classes'], got {classes!r}"
            )
        return [classes] if isinstance(classes, str) else [str(name) for name in classes]

    def _labelled(self, reading: Reading) -> Rows:
        """Return the row of the category of each label, in the order of mmdet's CocoDataset.

        That is the order of the file, or with ``sort_categories`` the order of ids.

        Raises:
            ValueError: if the file has none of the classes.
        """
        names, wanted = reading.truth.names, self._classes()
        order = np.sort(reading.file_order) if self.sort_categories else reading.file_order
        rows = order[[names[row] in wanted for row in order.tolist()]] if len(order) else order
        absent = [name for name in wanted if name not in names]
        if not len(rows):
            raise ValueError(
                f"the ground truth has none of the data set's {len(wanted)} classes "
                f'({", ".join(wanted[:5])}, ...); it has: {", ".join(names[:5])}, ...'
            )
        if absent:
            self._say(
                f'{len(absent)} classes are not in the ground truth, and labels count those that '
                f'are: {", ".join(absent[:10])}',
                logging.WARNING,
            )
        return rows

    def _check_items(self) -> None:
        """Refuse names of figures that there are not."""
        kinds = {'keypoints' if name == 'keypoints' else 'boxes' for name in self.metrics}
        for name in self.metric_items or ():
            for kind in kinds:
                if name not in (KEYPOINT_ITEMS if kind == 'keypoints' else ITEMS):
                    raise KeyError(f'metric item "{name}" is not supported')

    def _say(self, message: str, level: int = logging.INFO, named: bool = True) -> None:
        start = f'{type(self).__name__}: ' if named else ''
        MMLogger.get_current_instance().log(level, start + message)


def _numbers(proposal_nums: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of detections, ascending."""
    numbers = tuple(sorted(int(number) for number in proposal_nums))
    if len(numbers) != 3 or numbers[0] < 1:
        raise ValueError(
            f'proposal_nums must be three numbers from 1 up, got {list(proposal_nums)}; COCO '
            'reports the recall at each of them'
        )
    return numbers


def _thresholds(iou_thrs: float | Sequence[float] | None) -> tuple[float, ...]:
    """Return the thresholds of the overlap."""
    if iou_thrs is None:
        return IOU_THRS
    values = np.atleast_1d(np.asarray(iou_thrs, np.float64)).tolist()
    for value in values:
        check_number('iou_thrs', value, above=0, most=1)
    return tuple(values)
