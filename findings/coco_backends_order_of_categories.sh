#!/usr/bin/env bash
# Per-class AP of a COCO file whose categories do not ascend by id goes to the wrong class.
#
# Versions:  pycocotools 2.0.11, faster-coco-eval 1.8.0, hotcoco 1.3.0, numpy 2.4.6
# Input:     one image with a box of 'dog' (id 7) and one of 'cat' (id 3), listed in this order. The
#            dog is found, the cat is not.
# Seen:      getCatIds() is [7, 3] in pycocotools and faster-coco-eval, the order of the file, and
#            [3, 7] in hotcoco. With params.catIds = [7, 3], pycocotools and faster-coco-eval sort it
#            when they evaluate, so that the columns of the table are cat, dog: AP 0, 1. hotcoco keeps
#            the order: dog, cat, AP 1, 0.
# Matters:   code that pairs the columns with its own list of ids (mmdet's CocoMetric with classwise)
#            names them wrongly with pycocotools; a map from labels to getCatIds() changes with the
#            backend. The mean is the same in all, so that nothing shows it.
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
import pycocotools.coco
import pycocotools.cocoeval

EVALUATORS = {
    'pycocotools': (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    'faster-coco-eval': (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
    'hotcoco': (hotcoco.COCO, hotcoco.COCOeval),
}
DOG, CAT = 7, 3


def box(number, category, left):
    place = dict(id=number, image_id=1, category_id=category, bbox=[left, 10.0, 30.0, 30.0])
    return dict(place, area=900.0, iscrowd=0)


path = Path(sys.argv[1]) / 'truth.json'
content = dict(
    images=[dict(id=1, file_name='1.jpg', width=100, height=100)],
    annotations=[box(1, DOG, 5.0), box(2, CAT, 55.0)],
    categories=[dict(id=DOG, name='dog'), dict(id=CAT, name='cat')],
)
path.write_text(json.dumps(content))
found = [dict(image_id=1, category_id=DOG, bbox=[5.0, 10.0, 30.0, 30.0], score=0.9)]
seen = {}
for name, (dataset, evaluation) in EVALUATORS.items():
    with contextlib.redirect_stdout(io.StringIO()):
        truth = dataset(str(path))
        run = evaluation(truth, truth.loadRes([dict(each) for each in found]), 'bbox')
        run.params.catIds = [DOG, CAT]
        run.evaluate()
        run.accumulate()
    columns = run.eval['precision'][:, :, :, 0, -1].mean((0, 1)).round(4).tolist()
    seen[name] = (list(truth.getCatIds()), [int(each) for each in run.params.catIds], columns)
    print(f'{name:17} getCatIds {seen[name][0]}, catIds after {seen[name][1]}, AP {seen[name][2]}')
expected = {
    'pycocotools': ([7, 3], [3, 7], [0.0, 1.0]),
    'faster-coco-eval': ([7, 3], [3, 7], [0.0, 1.0]),
    'hotcoco': ([3, 7], [7, 3], [1.0, 0.0]),
}
if seen != expected:
    sys.exit(f'the behaviour has changed; expected {expected}')
print('as described')
PYTHON
