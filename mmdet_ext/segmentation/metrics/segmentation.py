"""Metric of MMEngine for semantic segmentation: IoU, accuracies and the confusion of classes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.functional.scoring.confusion import ClassScores, class_scores, present_mean
from mmdet_ext.plots.confusion import draw_confusion
from mmdet_ext.registry import METRICS
from mmdet_ext.segmentation.metrics.labels import ImageCounts
from mmdet_ext.utils.files import write_json

#: Values of ``iou_metrics`` -> columns that each gives, as mmseg names them.
COLUMNS = {
    'mIoU': ('IoU', 'Acc'),
    'mDice': ('Dice', 'Acc'),
    'mFscore': ('Fscore', 'Precision', 'Recall'),
}
LOG_FOLDER = 'log'


@METRICS.register_module()
class SegmentationMetric(BaseMetric):  # type: ignore[misc]
    """Metric of semantic segmentation from exact counts, with the confusion matrix as a figure.

    It replaces mmseg's IoUMetric in a config: options of the same names give results of the same
    names and values, in per cent with two decimals. Counts are integers, which no image is too
    large for. The results are:

    - ``aAcc``, the share of correct pixels, and ``fwIoU``, the IoU weighed by the share of each
      class;
    - for 'mIoU' ``mIoU`` and ``mAcc``, the means over the classes of TP / (TP + FN + FP) and of
      TP / (TP + FN);
    - for 'mDice' ``mDice``, of 2 TP / (2 TP + FN + FP), and ``mAcc``;
    - for 'mFscore' ``mFscore``, ``mPrecision`` and ``mRecall``.

    A class without a value takes no part in a mean, and the log names it: a class absent from
    ground truth and predictions has no IoU, one absent from the ground truth no accuracy. As in
    mmseg, a class has no F-score where its precision or recall is undefined or both are 0, so
    that ``mFscore`` rises where a class is never found; ``mDice`` counts it as 0.

    The log shows the figures per class. ``segmentation.json`` holds them without rounding, with the
    confusion matrix, and ``confusion_matrix.png`` shows that.

    Args:
        ignore_index: label of pixels that do not count.
        iou_metrics: 'mIoU', 'mDice', 'mFscore', or several of them.
        nan_to_num: number that a class without a value gets in the means; None leaves it out.
        beta: weight of recall in the F-score, above 0.
        classwise: also report the figures per class, as ``IoU_<class>``.
        out_dir: folder for the files, which each evaluation overwrites. 'log' is the folder of the
            run's log, if there is one; None writes none.
        collect_device: as in MMEngine's BaseMetric.
        prefix: prefix of the names of the results.
        collect_dir: as in MMEngine's BaseMetric.

    Raises:
        NotADirectoryError: if ``out_dir``, or a folder that it is in, is a file.
        ValueError: if an option is out of range; when evaluating, if the data set names no classes,
            a prediction differs in size from its ground truth, or a value is no class.

    References:
        Everingham et al., The PASCAL Visual Object Classes Challenge: A Retrospective, IJCV 2015,
        section 4.1.4. Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR
        2015, section 5.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        iou_metrics: str | Sequence[str] = ('mIoU',),
        nan_to_num: float | None = None,
        beta: float = 1,
        classwise: bool = False,
        out_dir: str | None = LOG_FOLDER,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        names = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        for name in names:
            check_one_of('iou_metrics', name, tuple(COLUMNS))
        check_number('beta', beta, above=0, finite=True)
        if nan_to_num is not None:
            check_number('nan_to_num', nan_to_num, finite=True)
        self.ignore_index, self.nan_to_num = ignore_index, nan_to_num
        self.beta, self.classwise, self.out_dir = beta, classwise, out_dir
        self._columns = list(dict.fromkeys(c for name in names for c in COLUMNS[name]))
        if out_dir not in (None, LOG_FOLDER):
            # The folder is not created here, so that a metric that never evaluates leaves none.
            path = Path(str(out_dir))
            there = next(part for part in (path, *path.parents) if part.exists())
            if not there.is_dir():
                raise NotADirectoryError(f'out_dir {str(out_dir)!r}: {there} is no folder')

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Count the pixels of a batch.

        Args:
            data_batch: not used.
            data_samples: data samples of the batch, with ``pred_sem_seg`` and ``gt_sem_seg``.

        Raises:
            KeyError: if a data sample lacks one of the two.
            ValueError: if the data set names no classes, the two differ in size, or a value is no
                class.
        """
        count = len(self._classes())
        self.results += [
            ImageCounts.of_sample(sample, count, self.ignore_index) for sample in data_samples
        ]

    def compute_metrics(self, results: Sequence[ImageCounts]) -> dict[str, float]:
        """Compute the results of all images, log those per class, and write the files.

        Raises:
            ValueError: if no image was evaluated, or no pixel counts.
        """
        classes = self._classes()
        confusion = torch.zeros(len(classes) ** 2, dtype=torch.int64)
        ignored = 0
        # MMEngine hands plain tuples on.
        for place, count, without in results:
            confusion.index_add_(0, place, count)
            ignored += without
        confusion = confusion.view(len(classes), len(classes))
        if not confusion.any():
            raise ValueError(
                f'SegmentationMetric: no pixel counts, {len(results)} images were evaluated and '
                f'{ignored:,} pixels are ignored (ignore_index={self.ignore_index})'
            )
        scores = class_scores(confusion, self.beta)
        means, per_class = self._figures(scores)
        self._explain(confusion, per_class)
        self._say(f'figures per class\n{_table(classes, per_class)}')
        exact = {
            'classes': classes,
            'images': len(results),
            'pixels': int(confusion.sum()),
            'ignored_pixels': ignored,
            'figures': {name: _plain(value) for name, value in means.items()},
            'per_class': {
                name: {key: _plain(float(values[k])) for key, values in per_class.items()}
                for k, name in enumerate(classes)
            },
            'confusion': confusion.tolist(),
        }
        self._write(exact, classes, confusion)
        figures = {name: round(value, 2) for name, value in means.items()}
        if self.classwise:
            for k, name in enumerate(classes):
                for key in self._columns:
                    figures[f'{key}_{name}'] = round(float(per_class[key][k]), 2)
        return figures

    def _figures(self, scores: ClassScores) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Return the means, and the figures per class with their share, all in per cent."""
        columns = {
            'IoU': scores.iou,
            'Acc': scores.recall,
            'Dice': scores.dice,
            'Fscore': scores.f_score,
            'Precision': scores.precision,
            'Recall': scores.recall,
        }
        per_class = {name: 100 * columns[name] for name in self._columns}
        means = {'aAcc': 100 * float(scores.accuracy), 'fwIoU': 100 * float(scores.weighted_iou)}
        for name, values in per_class.items():
            if self.nan_to_num is not None:
                values = values.nan_to_num(nan=100 * self.nan_to_num)
            means[f'm{name}'] = float(present_mean(values))
        return means, {**per_class, 'share': 100 * scores.share}

    def _explain(self, confusion: Tensor, per_class: Mapping[str, Tensor]) -> None:
        """Name the classes that are left out of a mean."""
        classes = self._classes()
        labelled, predicted = confusion.sum(1) > 0, confusion.sum(0) > 0
        kinds = {
            'absent from ground truth and predictions': ~labelled & ~predicted,
            'absent from the ground truth, but predicted (IoU 0)': ~labelled & predicted,
        }
        for kind, chosen in kinds.items():
            if chosen.any():
                means = ', '.join(
                    f'm{name}'
                    for name, values in per_class.items()
                    if name != 'share' and values[chosen].isnan().any()
                )
                counted = 'left out of' if self.nan_to_num is None else 'nan_to_num in'
                self._say(f'{kind}: {_names(classes, chosen)}; {counted} {means or "no mean"}')
        if 'Fscore' in per_class:
            lost = per_class['Fscore'].isnan() & labelled
            if lost.any() and self.nan_to_num is None:
                self._say(
                    f'never right: {_names(classes, lost)}, left out of mFscore as by mmseg, which '
                    'is higher for it; mDice counts them as 0',
                    logging.WARNING,
                )

    def _classes(self) -> list[str]:
        """Return the names of the classes.

        Raises:
            ValueError: if the data set has none.
        """
        meta = self.dataset_meta if isinstance(self.dataset_meta, Mapping) else {}
        classes = meta.get('classes')
        if not classes or isinstance(classes, str) or not isinstance(classes, Iterable):
            raise ValueError(
                "SegmentationMetric needs the data set's metainfo['classes'], the names of the "
                f'classes in the order of their labels; got {classes!r}'
            )
        return [str(name) for name in classes]

    def _write(self, exact: Mapping[str, Any], classes: list[str], confusion: Tensor) -> None:
        """Write the files; an error is logged, and the results remain."""
        folder = _log_folder() if self.out_dir == LOG_FOLDER else self.out_dir
        if folder is None:
            return
        folder = Path(folder)
        try:
            write_json(folder / 'segmentation.json', exact)
            draw_confusion(classes, confusion.numpy(), folder / 'confusion_matrix.png')
        except Exception as error:  # files and plotting libraries raise many types
            self._say(
                f'files could not be written to {folder} ({type(error).__name__}: {error}); the '
                'figures are not affected',
                logging.WARNING,
            )
        else:
            self._say(f'segmentation.json and confusion_matrix.png written to {folder}')

    def _say(self, message: str, level: int = logging.INFO) -> None:
        print_log(f'{type(self).__name__}: {message}', logger='current', level=level)


def _log_folder() -> Path | None:
    """Return the folder that the run's log is written to; None if no log is written."""
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            return Path(handler.baseFilename).parent
    return None


def _table(classes: Sequence[str], per_class: Mapping[str, Tensor]) -> str:
    """Format the figures per class, one line per class, in per cent with two decimals."""
    width = max(len('class'), *map(len, classes))
    lines = [f'{"class":<{width}}' + ''.join(f'{name:>11}' for name in per_class)]
    for k, name in enumerate(classes):
        values = (float(column[k]) for column in per_class.values())
        cells = ''.join(f'{"-" if math.isnan(value) else f"{value:.2f}":>11}' for value in values)
        lines.append(f'{name:<{width}}{cells}')
    return '\n'.join(lines)


def _names(classes: Sequence[str], chosen: Tensor) -> str:
    return ', '.join(name for name, one in zip(classes, chosen.tolist(), strict=True) if one)


def _plain(value: float) -> float | None:
    """Return a number for json, which has no NaN."""
    return value if math.isfinite(value) else None
