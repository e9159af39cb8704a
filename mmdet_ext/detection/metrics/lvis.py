"""LVIS metric: mmdet's LVISMetric on columns, without the package lvis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mmdet_ext.detection.metrics.coco import CocoMetric
from mmdet_ext.detection.metrics.coco_tables import rounded, table
from mmdet_ext.evaluation.annotations import Reading, read_annotations
from mmdet_ext.evaluation.columns import (
    LVIS_CAP,
    Detections,
    GroundTruth,
    Rows,
    capped,
    federated_only,
    without_categories,
)
from mmdet_ext.evaluation.protocol import Figures, Protocol
from mmdet_ext.registry import METRICS

#: Name of a figure -> its threshold, area, and frequency of its categories.
PRECISIONS: dict[str, tuple[float | None, str, str]] = {
    'AP': (None, 'all', 'rcf'),
    'AP50': (0.5, 'all', 'rcf'),
    'AP75': (0.75, 'all', 'rcf'),
    'APs': (None, 'small', 'rcf'),
    'APm': (None, 'medium', 'rcf'),
    'APl': (None, 'large', 'rcf'),
    'APr': (None, 'all', 'r'),
    'APc': (None, 'all', 'c'),
    'APf': (None, 'all', 'f'),
}
#: Name of a recall -> its area.
RECALLS = {
    f'AR{short}@{LVIS_CAP}': area
    for short, area in (('', 'all'), ('s', 'small'), ('m', 'medium'), ('l', 'large'))
}


@METRICS.register_module()
class LVISMetric(CocoMetric):
    """LVIS metric that evaluates columns with a fast backend.

    It replaces mmdet's LVISMetric in a config, with results of the same names and values, and
    needs no package lvis. An image counts for a category if it has boxes of it, or if the category
    is known to be absent. In an image whose boxes of a category are not exhaustive, a detection
    without a box does not count. Each image has at most 300 detections, of all categories together.

    It differs from mmdet's in two ways. 'proposal' compares boxes whatever their categories: mmdet
    sets an option that lvis does not have, and evaluates each category. Detected masks are small,
    medium or large by their own area: mmdet takes that of their boxes.

    Args:
        ann_file: annotations in LVIS's form.
        metric: 'bbox', 'segm', 'proposal', 'proposal_fast', or several of them.
        classwise: report the precision of each class, and log them as a table.
        proposal_nums: three numbers of proposals per image for 'proposal_fast'.
        iou_thrs: thresholds of 'proposal_fast'; LVIS's own are fixed.
        metric_items: names of the figures to report; None for all.
        format_only: only write the json files of the detections.
        outfile_prefix: prefix of these files, which are written if it is given.
        collect_device: as in MMEngine's BaseMetric.
        prefix: prefix of the names of the results.
        file_client_args: refused, as in mmdet.
        backend_args: arguments of MMEngine's file backend for ``ann_file``.
        backend: see `CocoMetric`.
        time_limit: see `CocoMetric`.

    Raises:
        ValueError: if there is no ``ann_file`` or it lacks LVIS's lists; see also `CocoMetric`.

    References:
        Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, CVPR 2019,
        section 2.
    """

    default_prefix: str | None = 'lvis'

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
        collect_device: str = 'cpu',
        prefix: str | None = None,
        file_client_args: Mapping[str, Any] | None = None,
        backend_args: Mapping[str, Any] | None = None,
        backend: Literal['auto', 'hotcoco', 'faster_coco_eval', 'pycocotools'] = 'auto',
        time_limit: float | Literal['auto'] | None = 'auto',
    ) -> None:
        if ann_file is None:
            raise ValueError('LVISMetric needs ann_file: data samples lack the lists of LVIS')
        super().__init__(
            ann_file,
            metric,
            classwise,
            proposal_nums,
            iou_thrs,
            metric_items,
            format_only,
            outfile_prefix,
            file_client_args,
            backend_args,
            collect_device,
            prefix,
            backend=backend,
            time_limit=time_limit,
        )
        if 'keypoints' in self.metrics:
            raise KeyError('metric should be one of bbox, segm, proposal, proposal_fast')

    def _read(self, path: str) -> Reading:
        return read_annotations(path, masks='segm' in self.metrics, federated=True)

    def _figures(
        self, metric: str, truth: GroundTruth, found: Detections, places: Rows
    ) -> dict[str, float]:
        """Evaluate one kind of metric by LVIS's rules, and return its figures by name."""
        proposals = metric == 'proposal'
        if proposals:
            found = capped(found, LVIS_CAP)
            truth, found = without_categories(truth, found)
        else:
            found = federated_only(truth, found)
        kind: Literal['segm', 'bbox'] = 'segm' if metric == 'segm' else 'bbox'
        protocol = Protocol(kind, max_dets=(LVIS_CAP,), federated=not proposals)
        evaluated = self._evaluated(metric, truth, found, protocol)
        self._say('\n' + '\n'.join(evaluated.lines()), named=False)
        if proposals:
            recalls = {name: evaluated.recall(None, area) for name, area in RECALLS.items()}
            return {
                name: float(f'{value:.3f}')
                for name, value in recalls.items()
                if self.metric_items is None or name in self.metric_items
            }
        values = self._per_class(evaluated, truth, places) if self.classwise else {}
        lists = truth.federated.frequency if truth.federated is not None else ()
        for name, (iou, area, groups) in PRECISIONS.items():
            if self.metric_items is None or name in self.metric_items:
                rows = [row for row, group in enumerate(lists) if group in groups]
                value = evaluated.precision(iou, area, None, rows)
                values[f'{metric}_{name}'] = float(f'{value:.3f}')
        return values

    def _per_class(self, evaluated: Figures, truth: GroundTruth, places: Rows) -> dict[str, float]:
        """Return the precision of each class, and log the table."""
        nan = float('nan')
        values = {
            truth.names[row]: evaluated.precision(None, 'all', None, [row], nan)
            for row in places.tolist()
        }
        cells = [(name, f'{value:0.3f}') for name, value in values.items()]
        self._say('\n' + table(('category', 'AP'), cells), named=False)
        return {f'{name}_precision': rounded(value) for name, value in values.items()}

    def _check_items(self) -> None:
        """Refuse names of figures that there are not."""
        for name in self.metric_items or ():
            if name not in PRECISIONS and name not in RECALLS:
                raise KeyError(f'metric item "{name}" is not supported')
