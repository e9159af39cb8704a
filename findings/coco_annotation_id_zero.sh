#!/usr/bin/env bash
# A perfect detector gets mAP 0.76 where the annotation ids of a COCO file begin at 0.
#
# Versions:  pycocotools 2.0.11, faster-coco-eval 1.8.0, hotcoco 1.3.0, numpy 2.4.6
# Input:     4 images with 2 boxes each; the detections are these boxes, with falling scores. The file is
#            written twice, with annotation ids from 1 and from 0. COCO's format asks for an integer
#            and excludes neither; exporters that number with enumerate() begin at 0.
# Seen:      ids from 1: mAP 1.0 and AR@100 1.0 in all three.
#            ids from 0: pycocotools and faster-coco-eval agree on mAP 0.7624 and AR@100 0.875: they keep
#            the id of the matched box as the mark of a match, and 0 also means "no match", so that the
#            first box counts as missed and its detection as wrong. faster-coco-eval warns of it,
#            pycocotools says nothing, and hotcoco gives the detector its 1.0.
# Matters:   mmdet's CocoMetric evaluates with pycocotools. One box of a class is lost in this way, so a
#            small validation set or a rare class suffers most.
# Fails if any of these figures changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pycocotools==2.0.11 faster-coco-eval==1.8.0 hotcoco==1.3.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import contextlib
import io
import json
import sys
import warnings
from pathlib import Path

import faster_coco_eval
import hotcoco
import pycocotools.coco
import pycocotools.cocoeval

EVALUATORS = {
    'pycocotools': (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    'faster-coco-eval': (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
    'hotcoco': (hotcoco.COCO, hotcoco.COCOeval),
}


def write(first_id):
    corners = [(image, x) for image in range(1, 5) for x in (5.0, 55.0)]
    boxes = [
        dict(id=number, image_id=image, category_id=1, bbox=[x, 10.0, 30.0, 30.0], area=900.0, iscrowd=0)
        for number, (image, x) in enumerate(corners, start=first_id)
    ]
    images = [dict(id=i, file_name=f'{i}.jpg', width=100, height=100) for i in range(1, 5)]
    path = Path(sys.argv[1]) / f'from_{first_id}.json'
    content = dict(images=images, annotations=boxes, categories=[dict(id=1, name='cell')])
    path.write_text(json.dumps(content))
    found = [
        dict(image_id=box['image_id'], category_id=1, bbox=box['bbox'], score=0.9 - 0.01 * place)
        for place, box in enumerate(boxes)
    ]
    return str(path), found


def evaluate(name, first_id):
    dataset, evaluation = EVALUATORS[name]
    path, found = write(first_id)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        truth = dataset(path)
        run = evaluation(truth, truth.loadRes(found), 'bbox')
        run.evaluate()
        run.accumulate()
        run.summarize()
    said = any('id 0' in str(each.message) for each in warned)
    return round(float(run.stats[0]), 4), round(float(run.stats[8]), 4), said


expected = {
    ('pycocotools', 1): (1.0, 1.0, False),
    ('pycocotools', 0): (0.7624, 0.875, False),
    ('faster-coco-eval', 1): (1.0, 1.0, False),
    ('faster-coco-eval', 0): (0.7624, 0.875, True),
    ('hotcoco', 1): (1.0, 1.0, False),
    ('hotcoco', 0): (1.0, 1.0, False),
}
seen = {key: evaluate(*key) for key in expected}
for (name, first_id), (precision, recall, said) in seen.items():
    print(f'{name:17} ids from {first_id}: mAP {precision}, AR@100 {recall}, warns: {said}')
if seen != expected:
    sys.exit(f'the behaviour has changed; expected {expected}')
print('as described')
PYTHON
