"""Files of detections as mmdet's CocoMetric writes them, for servers that evaluate submissions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mmdet_ext.detection.metrics.coco_images import ImageResult
from mmdet_ext.evaluation.columns import GroundTruth, Rows
from mmdet_ext.utils.files import whole_file, write_text


def write_results(
    prefix: str, images: Sequence[ImageResult], truth: GroundTruth, labelled: Rows
) -> list[Path]:
    """Write ``<prefix>.bbox.json``, and where there are masks ``<prefix>.segm.json``.

    An image is converted when it is written, so that the memory of one image is enough.

    Returns:
        The files.
    """
    ids = [truth.category_ids[row] for row in labelled.tolist()]
    kinds = ['bbox', 'segm'] if images and images[0].masks is not None else ['bbox']
    files = []
    for kind in kinds:
        path = Path(f'{prefix}.{kind}.json')
        with whole_file(path) as part, part.open('w', encoding='utf-8') as file:
            file.write('[')
            between = ''
            for image in images:
                for entry in _entries(image, ids, kind == 'segm'):
                    file.write(between + json.dumps(entry))
                    between = ', '
            file.write(']')
        files.append(path)
    return files


def _entries(image: ImageResult, ids: Sequence[int], masks: bool) -> Iterator[dict[str, Any]]:
    """Yield the detections of an image as COCO's entries, with keys in mmdet's order."""
    scores = image.scores if not masks or image.mask_scores is None else image.mask_scores
    rows = zip(image.boxes.tolist(), scores.tolist(), image.labels.tolist(), strict=True)
    for row, ((left, top, right, bottom), score, label) in enumerate(rows):
        entry = {
            'image_id': image.img_id,
            'bbox': [left, top, right - left, bottom - top],
            'score': score,
            'category_id': ids[label],
        }
        if masks:
            counts = (image.masks or [])[row].decode()
            entry['segmentation'] = {'size': list(image.mask_size), 'counts': counts}
        yield entry


def write_truth(prefix: str, truth: GroundTruth) -> Path:
    """Write the ground truth of data samples to ``<prefix>.gt.json``.

    Returns:
        The file.
    """
    rows = zip(
        truth.image.tolist(),
        truth.category.tolist(),
        truth.boxes.tolist(),
        truth.area.tolist(),
        truth.crowd.tolist(),
        truth.masks or [None] * len(truth),
        strict=True,
    )
    annotations: list[dict[str, Any]] = []
    for number, (image, category, box, area, crowd, mask) in enumerate(rows, start=1):
        annotation = {
            'id': number,
            'image_id': truth.image_ids[image],
            'bbox': box,
            'iscrowd': int(crowd),
            'category_id': truth.category_ids[category],
            'area': area,
        }
        if mask is not None:
            annotation['segmentation'] = _as_text(mask)
        annotations.append(annotation)
    content = {
        'info': {
            'date_created': str(datetime.now()),
            'description': 'Ground truth of data samples, in the form of COCO.',
        },
        'images': [
            {'id': name, 'width': width, 'height': height, 'file_name': ''}
            for name, (height, width) in zip(truth.image_ids, truth.sizes.tolist(), strict=True)
        ],
        'categories': [
            {'id': number, 'name': name}
            for number, name in zip(truth.category_ids, truth.names, strict=True)
        ],
        'licenses': None,
        'annotations': annotations,
    }
    path = Path(f'{prefix}.gt.json')
    write_text(path, json.dumps(content))
    return path


def _as_text(mask: Any) -> Any:
    if isinstance(mask, dict) and isinstance(mask['counts'], bytes):
        return {**mask, 'counts': mask['counts'].decode()}
    return mask
