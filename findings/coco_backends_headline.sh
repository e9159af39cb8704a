#!/usr/bin/env bash
# With mmdet's maxDets, the first figure of three COCO evaluators is not the same figure.
#
# Versions:  pycocotools 2.0.11, faster-coco-eval 1.8.0, hotcoco 1.3.0, numpy 2.4.6
# Input:     one image with one box; 100 wrong detections of the score 0.9, and the right one of the
#            score 0.1. maxDets is [100, 300, 1000], as in mmdet's CocoMetric.
# Seen:      pycocotools reports AP 0: it reads the headline at 100 detections per image, and all other
#            figures at 1000. faster-coco-eval and hotcoco read the headline at 1000: AP 0.0099, the
#            figure of 1 right detection among 101. The tables of precision are equal.
# Matters:   the mAP of a detector with more than 100 detections per image (crowds, LVIS, dense heads
#            with a high max_per_img) depends on the evaluator, by a figure that has one name.
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
from pathlib import Path

import faster_coco_eval
import hotcoco
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval

EVALUATORS = {
    'pycocotools': (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    'faster-coco-eval': (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
    'hotcoco': (hotcoco.COCO, hotcoco.COCOeval),
}
path = Path(sys.argv[1]) / 'truth.json'
box = dict(id=1, image_id=1, category_id=1, bbox=[10.0, 10.0, 40.0, 40.0], area=1600.0, iscrowd=0)
image = dict(id=1, file_name='1.jpg', width=100, height=100)
content = dict(images=[image], annotations=[box], categories=[dict(id=1, name='cell')])
path.write_text(json.dumps(content))
wrong = dict(image_id=1, category_id=1, bbox=[60.0, 60.0, 20.0, 20.0], score=0.9)
right = dict(wrong, bbox=box['bbox'], score=0.1)
seen, tables = {}, {}
for name, (dataset, evaluation) in EVALUATORS.items():
    with contextlib.redirect_stdout(io.StringIO()):
        truth = dataset(str(path))
        found = [dict(wrong) for _ in range(100)] + [dict(right)]
        run = evaluation(truth, truth.loadRes(found), 'bbox')
        run.params.maxDets = [100, 300, 1000]
        run.evaluate()
        run.accumulate()
        run.summarize()
    tables[name] = np.asarray(run.eval['precision'])
    seen[name] = (round(float(run.stats[0]), 4), round(float(run.stats[1]), 4))
    print(f'{name:17} AP {seen[name][0]}, AP50 {seen[name][1]}')
same = [bool(np.allclose(table, tables['pycocotools'])) for table in tables.values()]
print('tables of precision equal:', all(same))
expected = {
    'pycocotools': (0.0, 0.0099),
    'faster-coco-eval': (0.0099, 0.0099),
    'hotcoco': (0.0099, 0.0099),
}
if seen != expected or not all(same):
    sys.exit(f'the behaviour has changed; expected {expected}')
print('as described')
PYTHON
