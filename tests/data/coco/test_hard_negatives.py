"""Hard negatives: which detections are false alarms, and how crops avoid known objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmdet_ext.data.coco.hard_negatives import (
    Options,
    Source,
    coco_sources,
    find_backgrounds,
    image_sources,
    mine,
    strongest,
    without_known,
    write_hard_negatives,
)
from mmdet_ext.data.reports import LayoutError, Tally

NONE = np.zeros((0, 4))


def detector(boxes: Any, scores: Any, labels: Any) -> Any:
    found = np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(labels)
    return lambda image: found


def image(height: int = 300, width: int = 400) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def covered(region: np.ndarray, known: np.ndarray) -> float:
    sides = np.minimum(region[2:], known[:, 2:]) - np.maximum(region[:2], known[:, :2])
    return float(sides.clip(0).prod(1).max(initial=0))


def test_a_crop_never_reaches_into_a_known_object() -> None:
    rng = np.random.default_rng(0)
    options, size = Options(crop=120, least=16), (400, 300)
    found = cut = 0
    for _ in range(500):
        low = rng.uniform((0, 0), (340, 240), (6, 2))
        boxes = np.concatenate([low, low + rng.uniform(8, 60, (6, 2))], 1)
        box, known = boxes[0], boxes[1:]
        region = without_known(box, known, size, options)
        if covered(box, known) > 0:
            assert region is None
            continue
        found += 1
        if region is None:
            continue
        assert covered(region, known) == 0
        assert (region >= 0).all() and (region[2:] <= size).all()
        assert (region[2:] - region[:2] >= 16).all()
        # The alarm is in it, up to a part of a pixel.
        assert (region[:2] < box[:2] + 1).all() and (region[2:] > box[2:] - 1).all()
        cut += (region[2:] - region[:2]).min() < 120
    assert found > 200 and cut > 100


@pytest.mark.parametrize(
    ('box', 'expected'),
    [
        ((40, 40, 60, 60), (0, 0, 100, 100)),
        ((0, 0, 10, 10), (0, 0, 100, 100)),
        ((390, 290, 400, 300), (300, 200, 400, 300)),
        ((100, 100, 200, 160), (50, 30, 250, 230)),
        ((0, 0, 400, 300), (0, 0, 400, 300)),
    ],
)
def test_the_square_around_an_alarm_stays_in_the_image(box: Any, expected: Any) -> None:
    options = Options(crop=100, context=2.0)
    found = without_known(np.array(box, float), NONE, (400, 300), options)
    assert found.tolist() == list(expected)


def test_what_touches_an_object_is_no_false_alarm() -> None:
    known = np.array([[100.0, 100.0, 150.0, 150.0]])
    boxes = [[90, 90, 110, 110], [200, 100, 230, 130], [215, 110, 240, 150], [20, 20, 40, 40]]
    tally = Tally()
    detect = detector(boxes, [0.9, 0.8, 0.7, 0.2], [0, 1, 0, 0])
    (found,) = find_backgrounds(
        image(), Source(Path('a.png'), known), detect, Options(crop=64), tally
    )
    assert found.score == 0.8 and found.label == 1 and found.box == (200, 100, 230, 130)
    assert covered(np.array(found.region), known) == 0
    assert str(tally) == (
        '1 detections that touch a known object (a.png at 90,90); '
        '1 false alarms within the crop of another (a.png at 215,110)'
    )


def test_an_image_without_objects_is_taken_whole_or_cropped() -> None:
    detect = detector([[20, 20, 40, 40], [300, 200, 330, 230]], [0.5, 0.9], [0, 1])
    source = Source(Path('a.png'), NONE)
    (whole,) = find_backgrounds(image(), source, detect, Options(), Tally())
    assert whole.region is None and whole.score == 0.9 and whole.size == (400, 300)
    two = find_backgrounds(image(), source, detect, Options(crop=64, whole=False), Tally())
    assert [each.score for each in two] == [0.9, 0.5] and all(each.region for each in two)
    assert not find_backgrounds(image(), source, detect, Options(score=0.95), Tally())
    nothing = detector(NONE, [], [])
    assert not find_backgrounds(image(), source, nothing, Options(), Tally())


def test_files_are_written_with_their_crops_and_read_again(tmp_path: Path) -> None:
    folder, out = tmp_path / 'images', tmp_path / 'out'
    folder.mkdir()
    pixels = image()
    for name in ('a.png', 'b.PNG', 'c.png'):
        cv2.imwrite(str(folder / name), pixels)
    (folder / 'c.png').write_bytes(b'no image')
    known = {'a.png': [[100, 100, 50, 50]], 'b.PNG': []}
    sources = [
        Source(folder / name, np.array([[x, y, x + w, y + h] for x, y, w, h in boxes]))
        if boxes
        else Source(folder / name, NONE)
        for name, boxes in [*known.items(), ('c.png', [])]
    ]
    tally = Tally()
    detect = detector([[200, 100, 230, 130]], [0.8], [1])
    found = [each for part in mine(sources, detect, Options(crop=64), tally) for each in part]
    assert 'images that cannot be read (c.png' in str(tally)
    path = write_hard_negatives(found, ('cat', 'dog'), out)
    content = json.loads(path.read_text('utf-8'))
    assert content['annotations'] == []
    assert [each['name'] for each in content['categories']] == ['cat', 'dog']
    crop, whole = content['images']
    (alarm,) = crop['false_alarms']
    left, top, right, bottom = alarm.pop('region')
    assert alarm == {'class': 'dog', 'score': 0.8, 'box': [200, 100, 230, 130]}
    assert (crop['width'], crop['height'], crop['source']) == (400, 300, 'a.png')
    stored = cv2.imread(str(out / crop['file_name']))
    part = np.s_[top:bottom, left:right]
    np.testing.assert_array_equal(stored[part], pixels[part])
    # Around it there is one colour.
    stored[part] = stored[-1, -1]
    assert len(np.unique(stored.reshape(-1, 3), axis=0)) == 1
    assert whole['file_name'] == '../images/b.PNG' and 'source' not in whole
    tight = json.loads(write_hard_negatives(found, ('cat', 'dog'), out, tight=True).read_text())
    assert (tight['images'][0]['width'], tight['images'][0]['height']) == (
        right - left,
        bottom - top,
    )
    stored = cv2.imread(str(out / tight['images'][0]['file_name']))
    np.testing.assert_array_equal(stored, pixels[part])
    assert [each.path.name for each in strongest(found, 1)] == ['a.png']
    assert [each.path.name for each in image_sources(folder)] == ['a.png', 'b.PNG', 'c.png']


def test_every_box_of_a_coco_file_is_known(tmp_path: Path) -> None:
    (tmp_path / 'a.png').touch()
    content = {
        'images': [{'id': 7, 'file_name': 'a.png'}],
        'annotations': [
            {'image_id': 7, 'bbox': [1, 2, 3, 4], 'iscrowd': 1},
            {'image_id': 7, 'bbox': [5, 5, 2, 2], 'ignore': 1},
            {'image_id': 9, 'bbox': [5, 5, 2, 2]},
        ],
    }
    (source,) = coco_sources(content, tmp_path)
    assert source.known.tolist() == [[1, 2, 4, 6], [5, 5, 7, 7]]
    for box in (None, [1, 2, 3], [1, 2, float('nan'), 4]):
        content['annotations'][1]['bbox'] = box
        with pytest.raises(LayoutError, match=r'annotations\[1\] has the bbox'):
            coco_sources(content, tmp_path)
    content['images'][0]['file_name'] = 'b.png'
    content['annotations'] = []
    with pytest.raises(LayoutError, match='1 of 1 images are missing'):
        coco_sources(content, tmp_path)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'score': 0}, 'score must be above 0'),
        ({'score': float('nan')}, 'score must be above 0'),
        ({'most': 0}, 'most must be at least 1'),
        ({'least': 0}, 'least must be from 1 to crop'),
        ({'least': 400}, 'least must be from 1 to crop, 320, got 400'),
        ({'context': 0.5}, 'context must be at least 1'),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        Options(**options)


def test_scores_that_are_no_numbers_and_empty_folders_are_refused(tmp_path: Path) -> None:
    detect = detector([[1, 1, 9, 9]], [float('nan')], [0])
    with pytest.raises(LayoutError, match='scores or boxes that are no numbers'):
        find_backgrounds(image(), Source(Path('a.png'), NONE), detect, Options(), Tally())
    with pytest.raises(LayoutError, match='has no image'):
        image_sources(tmp_path)
    with pytest.raises(LayoutError, match='is no folder'):
        image_sources(tmp_path / 'absent')
