"""Results of a finished run: its loss by iteration, and the quality of its detections.

Only files of a stock run are read: ``vis_data/scalars.json``, and the json that ``CocoMetric``
writes with ``outfile_prefix``. :mod:`mmdet_ext.plots.runs` draws the results.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = 100


class ReportError(ValueError):
    """File of a run that is absent or malformed; the message names it."""


@dataclass(frozen=True)
class TrainingCurve:
    """Curves that a run logged.

    Attributes:
        iterations: Iteration of each logged point, length N.
        losses: N values per name, 'loss' (their sum) first; NaN where a point lacks the name.
        val_name: Name of the validation metric, such as 'coco/bbox_mAP'; None without validation.
        val: (iteration, epoch or None, value) per validation.
    """

    iterations: list[int]
    losses: dict[str, list[float]]
    val_name: str | None
    val: list[tuple[int, int | None, float]]


@dataclass(frozen=True)
class Box:
    """Ground-truth box or detection.

    Attributes:
        bbox: (x, y, width, height) in pixels.
        name: Name of the class.
        score: Score of a detection; None for a ground-truth box.
        hit: Whether the box was matched.
    """

    bbox: tuple[float, float, float, float]
    name: str
    score: float | None
    hit: bool


@dataclass(frozen=True)
class ImageResult:
    """Image with its ground truth and its detections at the score threshold."""

    file_name: str
    truth: list[Box]
    found: list[Box]


@dataclass(frozen=True)
class ClassResult:
    """Result of one class: AP as COCO defines it, counts at the score threshold and IoU 0.5."""

    name: str
    boxes: int
    ap: float
    ap50: float
    ap75: float
    hits: int
    false: int

    @property
    def precision(self) -> float:
        """Share of correct detections at the threshold; NaN if there is no detection."""
        return self.hits / (self.hits + self.false) if self.hits + self.false else math.nan

    @property
    def recall(self) -> float:
        """Share of the ground-truth boxes found at the threshold."""
        return self.hits / self.boxes


@dataclass(frozen=True)
class Evaluation:
    """Comparison of detections with the ground truth.

    Attributes:
        score_thr: Score threshold of the counts and of ``images``.
        classes: One result per class that has boxes, length K.
        recall: The 101 recall points of COCO, from 0 to 1.
        precision50: Precision at those points and IoU 0.5, shape (K, 101).
        precision75: Precision at those points and IoU 0.75, shape (K, 101).
        images: All images, in the order of their ids.
    """

    score_thr: float
    classes: list[ClassResult]
    recall: np.ndarray
    precision50: np.ndarray
    precision75: np.ndarray
    images: list[ImageResult]

    def mean(self, name: str) -> float:
        """Compute the mean over the classes of 'ap', 'ap50' or 'ap75'."""
        return float(np.mean([getattr(result, name) for result in self.classes]))


def find_scalars(work_dir: Path) -> Path:
    """Find the scalars of the newest run in a work directory that logged a loss.

    A test also leaves a folder, which is newer but has no loss.

    Args:
        work_dir: Work directory of MMEngine's runner.

    Returns:
        Path of ``<timestamp>/vis_data/scalars.json``.

    Raises:
        ReportError: If there is none.
    """
    found = sorted(work_dir.glob('*/vis_data/scalars.json'), reverse=True)
    for path in found:
        if '"loss"' in path.read_text(encoding='utf-8'):
            return path
    raise ReportError(
        f'{work_dir} holds no <timestamp>/vis_data/scalars.json with a loss '
        f'({len(found)} scalars.json found); give the --work-dir of a training run'
    )


def read_scalars(path: Path) -> TrainingCurve:
    """Read a ``scalars.json``, which has one json object per line.

    Args:
        path: The file.

    Returns:
        Losses and validations by iteration; the validation of an epoch is at its last iteration.

    Raises:
        ReportError: If a line is no json object, or no line holds a loss.
    """
    records: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ReportError(f'{path}, line {number}: no json object: {line[:60]!r}') from error
    train = [record for record in records if 'loss' in record]
    if not train:
        raise ReportError(f'{path}: no line holds a loss ({len(records)} lines read)')
    names = sorted({key for record in train for key in record if 'loss' in key} - {'loss'})
    losses = {
        name: [float(record.get(name, math.nan)) for record in train] for name in ['loss', *names]
    }
    val_name, val = _validations(records, train)
    return TrainingCurve([int(record['step']) for record in train], losses, val_name, val)


def _validations(
    records: list[dict[str, Any]], train: list[dict[str, Any]]
) -> tuple[str | None, list[tuple[int, int | None, float]]]:
    names = {key for record in records for key in record if key.endswith(('mAP', '/auc', 'mIoU'))}
    if not names:
        return None, []
    name = 'coco/bbox_mAP' if 'coco/bbox_mAP' in names else min(names)
    steps = [(int(r['step']), float(r[name])) for r in records if name in r]
    if 'epoch' not in train[0]:
        return name, [(step, None, value) for step, value in steps]
    length = _epoch_length(train)
    return name, [(epoch * length, epoch, value) for epoch, value in steps]


def _epoch_length(train: list[dict[str, Any]]) -> int:
    """Infer the number of iterations per epoch.

    The logger starts to count anew in each epoch, so the first lines of two epochs are one epoch
    apart. A single epoch is assumed to end at its last logged iteration.
    """
    first: dict[int, int] = {}
    for record in train:
        first.setdefault(int(record['epoch']), int(record['step']))
    start, stop = min(first), max(first)
    if start == stop:
        return math.ceil(int(train[-1]['step']) / start)
    return round((first[stop] - first[start]) / (stop - start))


def evaluate(
    ann_file: Path,
    predictions: Path,
    classes: Sequence[str] | None = None,
    score_thr: float = 0.3,
) -> Evaluation:
    """Compare predictions with the ground truth, with pycocotools.

    Args:
        ann_file: COCO annotation json.
        predictions: COCO result json, a list of image_id, category_id, bbox (xywh), score.
        classes: Names of the classes to compare; None takes all that have boxes.
        score_thr: Detections with a lower score are left out of counts and images, but not of AP.

    Returns:
        The evaluation, with at most 100 detections per image and class.

    Raises:
        ReportError: If a file is absent or malformed, a class is unknown, or there are no boxes.
    """
    from pycocotools.coco import COCO

    content = _read_json(ann_file, dict)
    results = _read_json(predictions, list)
    for number, annotation in enumerate(content.get('annotations', []), start=1):
        # COCOeval takes the id 0 for "no match", and needs iscrowd and area.
        annotation['id'] = number
        annotation.setdefault('iscrowd', 0)
        annotation.setdefault('area', annotation['bbox'][2] * annotation['bbox'][3])
    names = _classes_with_boxes(content, ann_file, classes)
    truth = COCO()
    truth.dataset = content
    found = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found.dataset = {**content, 'annotations': _as_annotations(results, predictions, truth)}
        found.createIndex()
        return _summarise(truth, found, names, score_thr)


def _read_json(path: Path, kind: type) -> Any:
    """Read a json file whose content must be of a type."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ReportError(f'{path} cannot be read as json: {error}') from error
    if not isinstance(content, kind):
        raise ReportError(f'{path}: expected a json {kind.__name__}, got {type(content).__name__}')
    return content


def _classes_with_boxes(
    content: dict[str, Any], ann_file: Path, classes: Sequence[str] | None
) -> dict[int, str]:
    known = {entry['id']: entry['name'] for entry in content.get('categories', [])}
    unknown = sorted(set(classes or ()) - set(known.values()))
    if unknown:
        raise ReportError(f'{ann_file} has no class {unknown}; its classes are {[*known.values()]}')
    used = {entry['category_id'] for entry in content['annotations'] if not entry['iscrowd']}
    names = {
        key: name
        for key, name in known.items()
        if key in used and (classes is None or name in classes)
    }
    if not names:
        raise ReportError(f'{ann_file}: no box of the classes {classes or [*known.values()]}')
    return names


def _as_annotations(results: list[Any], predictions: Path, truth: Any) -> list[dict[str, Any]]:
    for number, entry in enumerate(results):
        absent = {'image_id', 'category_id', 'bbox', 'score'} - set(entry)
        if absent:
            raise ReportError(f'{predictions}, entry {number}: {sorted(absent)} absent')
        if entry['image_id'] not in truth.imgs:
            raise ReportError(
                f'{predictions}, entry {number}: image_id {entry["image_id"]!r} is not among the '
                f'{len(truth.imgs)} images of the annotations; are they of another set?'
            )
    return [
        {**entry, 'id': number, 'area': entry['bbox'][2] * entry['bbox'][3], 'iscrowd': 0}
        for number, entry in enumerate(results, start=1)
    ]


def _summarise(truth: Any, found: Any, names: dict[int, str], score_thr: float) -> Evaluation:
    from pycocotools.cocoeval import COCOeval

    coco_eval = COCOeval(truth, found, 'bbox')
    params = coco_eval.params
    params.catIds = sorted(names)
    params.maxDets = [MAX_DETECTIONS]
    params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
    params.iouThrs = IOU_THRESHOLDS
    coco_eval.evaluate()
    coco_eval.accumulate()
    precision = coco_eval.eval['precision'][:, :, :, 0, 0].transpose(2, 0, 1)  # (K, T, 101)
    images, counts = _match(coco_eval, truth, found, names, score_thr)
    classes = [
        ClassResult(
            names[key],
            counts[key][0],
            float(curve.mean()),
            float(curve[0].mean()),
            float(curve[5].mean()),
            *counts[key][1:],
        )
        for key, curve in zip(params.catIds, precision, strict=True)
    ]
    return Evaluation(score_thr, classes, params.recThrs, precision[:, 0], precision[:, 5], images)


def _match(
    coco_eval: Any, truth: Any, found: Any, names: dict[int, str], score_thr: float
) -> tuple[list[ImageResult], dict[int, list[int]]]:
    """Collect the boxes per image, matched at IoU 0.5, and (boxes, hits, false) per class.

    COCO matches detections from the highest score down. A detection below the score threshold
    therefore never changes the match of one above it.
    """
    images = {
        key: ImageResult(str(truth.imgs[key]['file_name']), [], []) for key in sorted(truth.imgs)
    }
    counts = {key: [0, 0, 0] for key in names}
    for entry in filter(None, coco_eval.evalImgs):
        image, key = images[entry['image_id']], entry['category_id']
        ignored = entry['dtIgnore'][0]
        for index, found_id in enumerate(entry['dtIds']):
            box = found.anns[found_id]
            if box['score'] < score_thr or ignored[index]:
                continue
            hit = bool(entry['dtMatches'][0, index])
            image.found.append(Box(tuple(box['bbox']), names[key], box['score'], hit))
            counts[key][1 if hit else 2] += 1
        for index, truth_id in enumerate(entry['gtIds']):
            if entry['gtIgnore'][index]:
                continue
            match = int(entry['gtMatches'][0, index])
            hit = match > 0 and found.anns[match]['score'] >= score_thr
            image.truth.append(Box(tuple(truth.anns[truth_id]['bbox']), names[key], None, hit))
            counts[key][0] += 1
    return [*images.values()], counts


def summary(evaluation: Evaluation | None, curve: TrainingCurve | None) -> dict[str, Any]:
    """Return all numbers that are drawn, as a dict ready for json, with None for NaN.

    Args:
        evaluation: Comparison with the ground truth, if any.
        curve: Curves of the training, if any.
    """
    report: dict[str, Any] = {}
    if evaluation is not None:
        report['mAP'] = evaluation.mean('ap')
        report['AP50'] = evaluation.mean('ap50')
        report['AP75'] = evaluation.mean('ap75')
        report['pictures'] = len(evaluation.images)
        report['score_thr'] = evaluation.score_thr
        report['classes'] = {
            result.name: {
                'boxes': result.boxes,
                'AP': result.ap,
                'AP50': result.ap50,
                'AP75': result.ap75,
                'hits': result.hits,
                'false': result.false,
                'precision': result.precision,
                'recall': result.recall,
            }
            for result in evaluation.classes
        }
        report['precision_by_recall'] = {
            'recall': evaluation.recall.tolist(),
            'IoU 0.5': {
                result.name: row.tolist()
                for result, row in zip(evaluation.classes, evaluation.precision50, strict=True)
            },
            'mean, IoU 0.5': evaluation.precision50.mean(axis=0).tolist(),
            'mean, IoU 0.75': evaluation.precision75.mean(axis=0).tolist(),
        }
    if curve is not None:
        report['loss_by_iteration'] = {'iteration': curve.iterations, **curve.losses}
        report['validation'] = [
            {'iteration': iteration, 'epoch': epoch, str(curve.val_name): value}
            for iteration, epoch, value in curve.val
        ]
    return dict(_rounded(report))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
