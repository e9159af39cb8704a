"""Tests of rewrite_coco: a file that every program reads alike, or a named reason why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmdet_ext.data.coco.normal_form import evaluation_faults
from tests._helpers.tools import load_tool

main = load_tool('data/rewrite_coco.py').main


@pytest.fixture
def source(shapes_root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return a file with text for numbers and wrong sizes, and the folder of its images."""
    images = shutil.copytree(shapes_root / 'images' / 'val', tmp_path / 'images')
    content = json.loads((shapes_root / 'annotations' / 'instances_val.json').read_text())
    for number, box in enumerate(content['annotations']):
        box.update(id=number, iscrowd='0', bbox=[str(side) for side in box['bbox']])
        del box['area']
    content['annotations'].append({'id': 900, 'image_id': 99, 'category_id': 1, 'bbox': None})
    content['images'][0].update(width=-1, height=-1)
    content['images'][1].update(width='72', height='96')
    (tmp_path / 'val.json').write_text(json.dumps(content))
    return tmp_path / 'val.json', images


def test_values_and_sizes_are_written_as_they_are_meant(
    source: tuple[Path, Path],
    shapes_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / 'new' / 'val.json'
    assert main([str(source[0]), '--images', str(source[1]), '--out', str(out)]) == 0
    expected = json.loads((shapes_root / 'annotations' / 'instances_val.json').read_text())
    written: dict[str, Any] = json.loads(out.read_text())
    assert written['images'] == expected['images']
    assert written['categories'] == expected['categories']
    keys = ('image_id', 'category_id', 'bbox')
    assert [[box[key] for key in keys] for box in written['annotations']] == [
        [box[key] for key in keys] for box in expected['annotations']
    ]
    for number, box in enumerate(written['annotations'], start=1):
        assert (box['id'], box['iscrowd']) == (number, 0)
        assert box['area'] == box['bbox'][2] * box['bbox'][3]
    assert not evaluation_faults(written)
    count = len(expected['annotations'])
    printed = capsys.readouterr().out
    assert 'annotations left out: 1 without a usable bbox (' in printed
    assert f"{count} iscrowd that is no number (annotations[0] has '0', " in printed
    assert '1 images, size missing (000001.jpg: -1x-1, true 96x72)' in printed
    assert '1 images, width and height swapped (000002.jpg: 72x96, true 96x72)' in printed
    assert printed.endswith(f'{out}\n')


def test_without_images_stated_sizes_stay(
    source: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'new.json'
    assert main([str(source[0]), '--out', str(out)]) == 0
    sizes = [(i['width'], i['height']) for i in json.loads(out.read_text())['images']]
    assert sizes == [(-1, -1), (72, 96), (96, 72), (96, 72)]
    assert '1 images, size missing (000001.jpg: -1x-1); --images fills' in capsys.readouterr().out


def test_bad_input_is_named_and_nothing_is_written(
    source: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, (path, images) = tmp_path / 'new.json', source
    assert main([str(tmp_path / 'no.json'), '--out', str(out)]) == 2
    assert 'cannot be read as json' in capsys.readouterr().err
    content = json.loads(path.read_text())
    content['images'][2].update(width=192, height=144)
    for box in content['annotations']:
        if box['image_id'] == content['images'][2]['id']:
            box['bbox'] = [2 * float(side) for side in box['bbox']]
    path.write_text(json.dumps(content))
    assert main([str(path), '--images', str(images), '--out', str(out)]) == 2
    error = capsys.readouterr().err
    assert 'boxes of 1 images are drawn at the stated size, not at that of the file: ' in error
    assert '000003.jpg: 192x144, true 96x72. Resize or turn' in error
    assert not out.exists()


@pytest.mark.parametrize('area', [0, -3, float('nan'), None])
def test_an_area_that_is_none_becomes_that_of_the_box(
    source: tuple[Path, Path], tmp_path: Path, area: float | None
) -> None:
    content = json.loads(source[0].read_text())
    content['annotations'][0].update(area=area)
    source[0].write_text(json.dumps(content))
    out = tmp_path / 'out.json'
    assert main([str(source[0]), '--out', str(out)]) == 0
    box = json.loads(out.read_text())['annotations'][0]
    assert box['area'] == box['bbox'][2] * box['bbox'][3] > 0


def test_a_folder_without_the_images_is_refused(
    source: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out.json'
    assert main([str(source[0]), '--images', str(tmp_path / 'none'), '--out', str(out)]) == 2
    assert 'none of its images can be read' in capsys.readouterr().err
    assert not out.exists()
