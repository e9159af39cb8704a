"""Data that the tests of hosts share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from mmdet_ext.data.synthetic.faces import make_faces


@pytest.fixture(scope='session')
def faces_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a few images of faces."""
    root = tmp_path_factory.mktemp('faces')
    make_faces(root)
    return root


@pytest.fixture(autouse=True)
def host_scope(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test in the scope of its module's host."""
    host = getattr(request.module, 'HOST', None)
    with DefaultScope.overwrite_default_scope(None if host is None else host.scope):
        yield


@pytest.fixture(scope='session')
def boxes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images of rectangles with their boxes and masks, as ``train`` and ``test``.

    The file has six classes; boxes are of the first three.
    """
    root = tmp_path_factory.mktemp('boxes')
    rng = np.random.default_rng(0)
    for part in ('train', 'test'):
        (root / part).mkdir()
        images, annotations = [], []
        for number in range(1, 5):
            image = rng.integers(0, 60, (96, 96, 3), dtype=np.uint8)
            for label in range(3):
                x, y = (int(corner) for corner in rng.integers(0, 44, 2))
                w, h = (int(side) for side in rng.integers(14, 50, 2))
                image[y : y + h, x : x + w, label] = 200
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=number,
                        category_id=label + 1,
                        bbox=[x, y, w, h],
                        area=w * h,
                        iscrowd=0,
                        segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                    )
                )
            cv2.imwrite(str(root / part / f'{number}.png'), image)
            images.append(dict(id=number, file_name=f'{number}.png', height=96, width=96))
        categories = [dict(id=number + 1, name=name) for number, name in enumerate('abcdef')]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / f'{part}.json').write_text(json.dumps(content))
    return root
