"""Proposals: a search, windows, the file for mmdet, and reports."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from mmdet_ext.data.proposals import (
    find_proposals,
    grid_windows,
    selective_search,
    sorted_boxes,
    write_proposals,
)
from mmdet_ext.data.reports import LayoutError


class FakeSearch:
    """Stand-in for OpenCV's search, whose boxes come in another order in each run."""

    runs = 0
    seen: list[Any] = []

    def setBaseImage(self, image: Any) -> None:
        self.seen.append(image.shape)

    def __getattr__(self, name: str) -> Any:
        return lambda: self.seen.append(name)

    def process(self) -> Any:
        FakeSearch.runs += 1
        boxes = np.array(
            [[0, 0, 500, 250], [10, 20, 100, 50], [10, 20, 100, 50], [30, 20, 50, 100]]
        )
        return np.roll(boxes, FakeSearch.runs, axis=0).astype(np.int32)


@pytest.fixture
def contrib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-in where opencv-contrib has its search."""
    monkeypatch.setattr(FakeSearch, 'seen', [])
    module = SimpleNamespace(
        segmentation=SimpleNamespace(createSelectiveSearchSegmentation=FakeSearch)
    )
    monkeypatch.setattr(cv2, 'ximgproc', module, raising=False)


IMAGE = np.zeros((50, 100, 3), np.uint8)


@pytest.mark.usefixtures('contrib')
def test_a_search_gives_corners_in_px_of_the_image_in_one_order() -> None:
    first, second = (selective_search(IMAGE) for _ in range(2))
    # The search sees 500 x 250 px, five times the image.
    assert first.tolist() == [[0, 0, 100, 50], [2, 4, 22, 14], [6, 4, 16, 24]]
    assert (first == second).all() and first.dtype == np.float32
    assert FakeSearch.seen[:2] == [(250, 500, 3), 'switchToSelectiveSearchFast']


@pytest.mark.usefixtures('contrib')
@pytest.mark.parametrize(
    ('search', 'call'),
    [('quality', 'switchToSelectiveSearchQuality'), ('single', 'switchToSingleStrategy')],
)
def test_a_search_combines_what_is_asked_for(search: Any, call: str) -> None:
    selective_search(IMAGE, search, width=80)
    assert FakeSearch.seen == [(40, 80, 3), call]
    with pytest.raises(ValueError, match="search must be one of .*'fast'.*, got 'best'"):
        selective_search(IMAGE, 'best')  # type: ignore[arg-type]


def test_a_search_without_contrib_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, 'ximgproc', raising=False)
    with pytest.raises(ModuleNotFoundError, match='opencv-contrib-python-headless'):
        selective_search(IMAGE)


def test_the_order_does_not_depend_on_that_of_the_input() -> None:
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 6, (60, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 4, (60, 2))], 1)
    found = sorted_boxes(boxes)
    for _ in range(3):
        assert (sorted_boxes(rng.permutation(boxes)) == found).all()
    area = np.prod(found[:, 2:] - found[:, :2], axis=1)
    assert (area > 0).all() and (np.diff(area) <= 0).all()
    assert len(np.unique(found, axis=0)) == len(found)


def test_windows_cover_the_image_and_stay_inside() -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    boxes = grid_windows(image, least=16)
    assert boxes[0].tolist() == [0, 0, 90, 60]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 90).all() and (boxes[:, 3] <= 60).all()
    small = boxes[np.isclose(boxes[:, 2:] - boxes[:, :2], 16, atol=1e-3).all(1)]
    covered = np.zeros((60, 90), bool)
    for x1, y1, x2, y2 in small.round().astype(int):
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    with pytest.raises(ValueError, match='least must be at least 1, got 0'):
        grid_windows(image, 0)


def test_an_object_of_ordinary_shape_overlaps_a_window_by_half(shapes_root: Path) -> None:
    found = find_proposals(
        shapes_root / 'annotations' / 'instances_train.json',
        shapes_root / 'images' / 'train',
        lambda image: grid_windows(image, 8),
    )
    assert found.ground_truth > 10 and found.found > 0.8 * found.ground_truth
    assert f'{found.found / found.ground_truth:.1%} are found at IoU 0.5' in str(found)


def dataset(folder: Path, names: list[str]) -> Path:
    """Write images of 40 x 30 px, each with a box of 20 x 20 px and a crowd."""
    for name in names:
        (folder / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / 'images' / name), np.zeros((30, 40, 3), np.uint8))
    boxes = [
        dict(id=2 * k + crowd, image_id=k, category_id=1, bbox=[0, 0, 20, 20], iscrowd=crowd)
        for k in range(len(names))
        for crowd in (0, 1)
    ]
    images = [dict(id=k, file_name=name) for k, name in enumerate(names)]
    content = dict(images=images, annotations=boxes, categories=[dict(id=1, name='a')])
    (folder / 'ann.json').write_text(json.dumps(content))
    return folder / 'ann.json'


@pytest.mark.parametrize(('side', 'count'), [(15, 2), (14, 0)])
def test_boxes_that_a_proposal_overlaps_by_half_are_counted(
    tmp_path: Path, side: int, count: int
) -> None:
    # 15 x 15 of 20 x 20 px is an IoU of 0.5625, 14 x 14 one of 0.49.
    ann_file = dataset(tmp_path, ['a.png', 'b.png'])
    box = np.array([[5, 5, 5 + side, 5 + side]], np.float32)
    found = find_proposals(ann_file, tmp_path / 'images', lambda image: box)
    assert (found.ground_truth, found.found) == (2, count)
    assert sorted(found.boxes) == ['images/a.png', 'images/b.png']


def test_threads_do_not_change_the_result(shapes_root: Path) -> None:
    ann_file = shapes_root / 'annotations' / 'instances_train.json'
    one, many = (
        find_proposals(ann_file, shapes_root / 'images' / 'train', grid_windows, workers)
        for workers in (1, 3)
    )
    assert list(one.boxes) == list(many.boxes) and str(one) == str(many)
    assert all(np.array_equal(one.boxes[name], many.boxes[name]) for name in one.boxes)


def test_an_image_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    ann_file = dataset(tmp_path, ['a.png', 'b.png', 'c.png'])
    (tmp_path / 'images' / 'a.png').unlink()
    (tmp_path / 'images' / 'b.png').write_bytes(b'no image')
    found = find_proposals(ann_file, tmp_path / 'images', grid_windows)
    assert list(found.boxes) == ['images/c.png']
    assert 'Left out: 1 No such file' in str(found) and '1 image cannot be decoded' in str(found)
    (tmp_path / 'images' / 'c.png').unlink()
    with pytest.raises(LayoutError, match='has no image of .*ann.json to read: 2 No such file'):
        find_proposals(ann_file, tmp_path / 'images', grid_windows)


def test_two_images_of_one_name_for_mmdet_are_refused(tmp_path: Path) -> None:
    ann_file = dataset(tmp_path, ['x/cam/1.png', 'y/cam/1.png'])
    with pytest.raises(LayoutError, match=r"two images are 'cam/1.png' for mmdet.*y/cam/1.png"):
        find_proposals(ann_file, tmp_path / 'images', grid_windows)


def test_the_file_is_a_plain_pickle(tmp_path: Path) -> None:
    boxes = {'a/1.png': np.array([[0, 0, 4, 4]], np.float32)}
    write_proposals(boxes, tmp_path / 'deep' / 'p.pkl')
    content = pickle.loads((tmp_path / 'deep' / 'p.pkl').read_bytes())
    assert list(content) == ['a/1.png'] and list(content['a/1.png']) == ['bboxes']
    assert content['a/1.png']['bboxes'].tolist() == [[0, 0, 4, 4]]
    with pytest.raises(LayoutError, match=r'must end in .pkl, got .*p.json'):
        write_proposals(boxes, tmp_path / 'p.json')
