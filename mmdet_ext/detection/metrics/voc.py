"""Pascal VOC's metric for any data set with classes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmdet_ext.detection.metrics.coco_images import as_array
from mmdet_ext.detection.metrics.coco_tables import rounded, table
from mmdet_ext.evaluation.recalls import proposal_recalls
from mmdet_ext.evaluation.voc import VOCImage, class_precisions
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.registry import METRICS


@METRICS.register_module()
class VOCAPMetric(BaseMetric):  # type: ignore[misc]
    """Average precision and recall as Pascal VOC defines them, for any data set with classes.

    The ground truth is that of the data samples, ``gt_instances``; boxes of ``ignored_instances``
    are difficult: nobody has to find them, and who finds them is not wrong. Results are, with the
    prefix 'pascal_voc':

    - for 'mAP' ``AP50`` for each threshold, the mean over classes that have boxes, and ``mAP``, the
      mean over thresholds;
    - for 'recall' ``recall@100@0.5``, the share of all boxes that the 100 best detections of each
      image cover, whatever their classes, and ``AR@100``, the mean over several thresholds.

    It has the figures of mmdet's VOCMetric with ``pixel_widths``, and differs from it in two ways:
    there the recall is of the detections of class 0 alone, and widths always count the last pixel.

    Args:
        iou_thrs: thresholds of the IoU, in (0, 1].
        metric: 'mAP', 'recall', or both.
        eval_mode: 'area' under the curve, as VOC from 2010 on, or '11points', as before.
        pixel_widths: a box goes from its first to its last pixel, and its width is right - left +
            1, as in VOC's development kit; else it is right - left.
        proposal_nums: numbers of detections per image for the recall.
        classwise: also report the figures per class, as ``<class>_AP50``.
        collect_device: as in MMEngine's BaseMetric.
        prefix: prefix of the names of the results.

    Raises:
        ValueError: if an option is out of range; when evaluating, if the data set names no
            classes, or a data sample has no ground truth or scores that cannot be ranked.

    References:
        Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010, section 4.2;
        A Retrospective, IJCV 2015, section 4.1.3.
    """

    default_prefix: str | None = 'pascal_voc'

    def __init__(
        self,
        iou_thrs: float | Sequence[float] = 0.5,
        metric: str | Sequence[str] = 'mAP',
        eval_mode: Literal['area', '11points'] = 'area',
        pixel_widths: bool = False,
        proposal_nums: Sequence[int] = (100, 300, 1000),
        classwise: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.iou_thrs = [float(each) for each in np.atleast_1d(np.asarray(iou_thrs, np.float64))]
        for threshold in self.iou_thrs:
            check_number('iou_thrs', threshold, above=0, most=1)
        self.metrics = [metric] if isinstance(metric, str) else list(metric)
        for name in self.metrics:
            check_one_of('metric', name, ('mAP', 'recall'))
        check_one_of('eval_mode', eval_mode, ('area', '11points'))
        self.eval_mode, self.pixel_widths, self.classwise = eval_mode, pixel_widths, classwise
        self.proposal_nums = [int(number) for number in proposal_nums]
        for number in self.proposal_nums:
            check_number('proposal_nums', number, least=1)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep boxes and detections of a batch.

        Args:
            data_batch: not used.
            data_samples: data samples of the batch, with ``pred_instances`` and ``gt_instances``.

        Raises:
            ValueError: if a data sample has no ground truth, or scores or boxes that are NaN.
        """
        self.results += [_image(sample) for sample in data_samples]

    def compute_metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """Compute the figures, and log the table of each threshold.

        Raises:
            ValueError: if no image was evaluated, a label has no class, or the data set names no
                classes.
        """
        # MMEngine hands plain tuples on.
        images = [VOCImage(*each) for each in results]
        classes = self._classes()
        if not images:
            raise ValueError('VOCAPMetric: no image was evaluated')
        highest = max((int(image.labels.max(initial=-1)) for image in images), default=-1)
        if highest >= len(classes):
            raise ValueError(
                f'a box has the label {highest}, and the data set has {len(classes)} classes'
            )
        if not any(len(image.found) for image in images):
            self._say('there is no detection, so that figures are 0', logging.WARNING)
        figures: dict[str, float] = {}
        if 'mAP' in self.metrics:
            figures.update(self._precisions(images, classes))
        if 'recall' in self.metrics:
            figures.update(self._recalls(images))
        return figures

    def _precisions(self, images: Sequence[VOCImage], classes: Sequence[str]) -> dict[str, float]:
        """Return the mean average precision of each threshold, and of all."""
        figures, means = {'mAP': 0.0}, []
        for threshold in self.iou_thrs:
            rows = class_precisions(
                images, len(classes), threshold, self.eval_mode, self.pixel_widths
            )
            there = [row.average for row in rows if row.boxes]
            mean = float(np.mean(there)) if there else 0.0
            means.append(mean)
            name = f'AP{int(threshold * 100):02d}'
            figures[name] = rounded(mean)
            cells = [
                (label, f'{row.boxes}', f'{row.detections}', _cell(row.recall), _cell(row.average))
                for label, row in zip(classes, rows, strict=True)
            ]
            cells.append(('mean', '', '', '', _cell(mean)))
            heads = ('class', 'boxes', 'detections', 'recall', 'AP')
            self._say(f'IoU {threshold:g}, {self.eval_mode}\n{table(heads, cells)}')
            if self.classwise:
                for label, row in zip(classes, rows, strict=True):
                    figures[f'{label}_{name}'] = rounded(row.average)
        figures['mAP'] = sum(means) / len(means)
        return figures

    def _recalls(self, images: Sequence[VOCImage]) -> dict[str, float]:
        """Return the recall of the best detections, over the boxes of all classes."""
        boxes = [image.boxes[~image.difficult] for image in images]
        found = [image.found[np.argsort(-image.scores, kind='stable')] for image in images]
        recalls = proposal_recalls(
            boxes, found, self.proposal_nums, self.iou_thrs, self.pixel_widths
        )
        figures = {
            f'recall@{number}@{threshold}': float(recalls[row, column])
            for row, number in enumerate(self.proposal_nums)
            for column, threshold in enumerate(self.iou_thrs)
        }
        if len(self.iou_thrs) > 1:
            means = recalls.mean(1).tolist()
            figures |= {f'AR@{n}': mean for n, mean in zip(self.proposal_nums, means, strict=True)}
        return figures

    def _classes(self) -> list[str]:
        meta = self.dataset_meta if isinstance(self.dataset_meta, Mapping) else {}
        classes = meta.get('classes')
        if not classes:
            raise ValueError(
                f"VOCAPMetric needs the data set's metainfo['classes'], got {classes!r}"
            )
        return [classes] if isinstance(classes, str) else [str(name) for name in classes]

    def _say(self, message: str, level: int = logging.INFO) -> None:
        MMLogger.get_current_instance().log(level, f'{type(self).__name__}: {message}')


def _image(sample: Mapping[str, Any]) -> VOCImage:
    """Take boxes and detections out of a data sample."""
    name = sample.get('img_id', sample.get('img_path'))
    pred = sample['pred_instances']
    lacking = [each for each in ('bboxes', 'scores', 'labels') if each not in pred]
    if lacking or 'gt_instances' not in sample:
        what = (
            f'pred_instances has no {", ".join(lacking)}' if lacking else 'it has no gt_instances'
        )
        raise ValueError(
            f'image {name!r}: {what}; VOCAPMetric ranks detections by score and compares them with '
            'boxes that the test pipeline loads (LoadAnnotations, after Resize)'
        )
    truth, ignored = sample['gt_instances'], sample.get('ignored_instances', {})
    boxes, labels = as_array(truth['bboxes']), as_array(truth['labels'])
    difficult = np.zeros(len(labels), np.bool_)
    if 'bboxes' in ignored and 'labels' in ignored:
        more = as_array(ignored['labels'])
        boxes = np.concatenate([boxes, as_array(ignored['bboxes']).reshape(-1, 4)])
        labels = np.concatenate([labels, more])
        difficult = np.append(difficult, np.ones(len(more), np.bool_))
    found, scores = as_array(pred['bboxes']), as_array(pred['scores'])
    if np.isnan(scores).any() or not np.isfinite(found).all():
        raise ValueError(
            f'image {name!r}: a score is NaN or a box is not finite, so that detections cannot be '
            'ranked; has the training diverged?'
        )
    return VOCImage(
        boxes.reshape(-1, 4),
        labels.astype(np.int64),
        difficult,
        found.reshape(-1, 4),
        as_array(pred['labels']).astype(np.int64),
        scores,
    )


def _cell(value: float) -> str:
    return '-' if math.isnan(value) else f'{value:.3f}'
