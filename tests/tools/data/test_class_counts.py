"""Tests of class_counts: COCO files and VOC folders, from the command line to the loss."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmdet_ext.detection.datasets.coco import CocoDataset
from mmdet_ext.losses.class_counts import resolve_counts
from tests._helpers.tools import load_tool

main = load_tool('data/class_counts.py').main


def coco(path: Path, boxes: list[dict[str, Any]], names: tuple[str, ...], images: int = 3) -> Path:
    """Write a COCO file of ``images`` images, with category ids from 1."""
    path.write_text(
        json.dumps(
            {
                'images': [
                    {'id': k, 'file_name': f'{k}.jpg', 'width': 9, 'height': 9}
                    for k in range(images)
                ],
                'categories': [{'id': k, 'name': name} for k, name in enumerate(names, start=1)],
                'annotations': [
                    {'id': k, 'image_id': 0, 'bbox': [0, 0, 5, 5], **box}
                    for k, box in enumerate(boxes)
                ],
            }
        )
    )
    return path


BOXES = [
    {'category_id': 2},
    {'category_id': 2, 'image_id': 1},
    {'category_id': 2, 'iscrowd': 1},
    {'category_id': 1, 'ignore': True},
    {'category_id': 1},
    {'category_id': 3, 'image_id': 2},
    {'category_id': 3, 'bbox': [0, 0, 5, 0.5]},
    {'category_id': 3, 'bbox': None},
    {'category_id': 7},
]


def run(out: Path, *arguments: object) -> dict[str, Any]:
    assert main([*map(str, arguments), '--out', str(out)]) == 0
    return dict(json.loads(out.read_text()))


def test_a_coco_file_is_counted_and_tabulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = coco(tmp_path / 'train.json', BOXES, ('cat', 'dog', 'cow')), tmp_path / 'c.json'
    assert run(out, source) == {
        'classes': ['cat', 'dog', 'cow'],
        'counts': [1, 2, 1],
        'ignored': [0, 1, 0],
        'images': 3,
        'images_without_boxes': 0,
        'sources': [str(source.resolve())],
        'left_out': {'unusable': 2, "marked 'ignore'": 1, 'a side below 1 px': 1},
    }
    assert resolve_counts(out) == [1.0, 2.0, 1.0]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == [
        'class',
        'boxes',
        'ignored',
        'share',
        'inverse_log',
        'inverse_frequency',
        'effective_number',
    ]
    # 1 / ln(1.1 + 1 / 2), 4 / (3 * 2), and close to 3 / 4 over the mean of 1, 1 / 2, 1.
    assert printed[2].split() == ['dog', '2', '1', '50.00%', '2.128', '0.667', '0.600']
    header = (tmp_path / 'c.png').read_bytes()[:24]
    assert header[:4] == b'\x89PNG' and min(struct.unpack('>II', header[16:24])) > 200


#: Boxes that training leaves out or ignores, per reason, beside plain ones. Images have 9 px.
ODD_BOXES: dict[str, list[dict[str, Any]]] = {
    '': [
        {'category_id': 1},
        {'category_id': 1, 'bbox': [-3, 7, 5, 5]},  # partly inside
        {'category_id': 2, 'bbox': [0, 0, 1, 1]},
        {'category_id': 2, 'bbox': [0, 0, 5, 5], 'area': 0.25},
        {'category_id': 3, 'iscrowd': 1},
    ],
    "marked 'ignore'": [
        {'category_id': 1, 'ignore': 1},
        {'category_id': 2, 'ignore': True, 'iscrowd': 1},
    ],
    'inverted': [{'category_id': 2, 'bbox': [5, 5, -4, 4]}],
    'a side below 1 px': [
        {'category_id': 2, 'bbox': [0, 0, 5, 0.5]},
        {'category_id': 3, 'bbox': [0, 0, 0, 5], 'iscrowd': 1},
    ],
    'an area of 0': [{'category_id': 1, 'area': 0}, {'category_id': 3, 'area': 0, 'iscrowd': 1}],
    'outside the picture': [
        {'category_id': 1, 'bbox': [30, 30, 5, 5]},
        {'category_id': 2, 'bbox': [-6, 0, 6, 5]},  # touches the edge
        {'category_id': 2, 'bbox': [0, 9, 5, 5], 'iscrowd': 1},
    ],
    'unusable': [
        {'category_id': 7},
        {'category_id': 1, 'image_id': 99},
        {'category_id': 1, 'bbox': [0, 0, float('nan'), 5]},
    ],
}


def test_counts_equal_those_of_the_data_set(tmp_path: Path) -> None:
    boxes = [{'area': 25, 'iscrowd': 0, **box} for group in ODD_BOXES.values() for box in group]
    names = ('cat', 'dog', 'cow')
    source = coco(tmp_path / 'train.json', boxes, names)
    found = run(tmp_path / 'c.json', source)
    dataset = CocoDataset(
        ann_file=str(source),
        data_prefix={'img': ''},
        metainfo={'classes': names},
        pipeline=[],
        bad_images='unchecked',
    )
    seen = Counter(
        (box['bbox_label'], box['ignore_flag'])
        for k in range(len(dataset))
        for box in dataset.get_data_info(k)['instances']
    )
    assert found['counts'] == [seen[k, 0] for k in range(3)] == [2, 2, 0]
    assert found['ignored'] == [seen[k, 1] for k in range(3)] == [0, 0, 1]
    assert found['left_out'] == {
        reason: len(group) for reason, group in ODD_BOXES.items() if reason
    }


def as_text(boxes: list[dict[str, Any]], flags: dict[bool, Any]) -> list[dict[str, Any]]:
    """Write numbers of usable boxes as text, and their flags as other values."""
    changed = []
    for box in boxes:
        text = {key: flags[bool(box[key])] for key in ('iscrowd', 'ignore') if key in box}
        if box.get('bbox'):
            text['bbox'] = [str(side) for side in box['bbox']]
        if 'area' in box:
            text['area'] = f'{box["area"]}'
        changed.append({**box, **text})
    return changed


@pytest.mark.parametrize(
    'flags',
    [{True: '1', False: '0'}, {True: 'true', False: 'false'}, {True: True, False: None}],
    ids=['digits', 'words', 'null'],
)
def test_flags_and_numbers_may_be_text(tmp_path: Path, flags: dict[bool, Any]) -> None:
    boxes = [{'iscrowd': 0, 'ignore': 0, **box} for group in ODD_BOXES.values() for box in group]
    names = ('cat', 'dog', 'cow')
    expected = run(tmp_path / 'c.json', coco(tmp_path / 'train.json', boxes, names))
    source = coco(tmp_path / 'train.json', as_text(boxes, flags), names)
    assert run(tmp_path / 'c.json', source) == expected
    assert expected['ignored'] == [0, 0, 1]


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change a file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ('size', 'shown'),
    [
        ((-1, -1), '-1x-1'),
        ((0, 0), '0x0'),
        ((None, None), 'none'),
        (('', 9), 'x9'),
        ((9, float('nan')), '9xnan'),
    ],
)
def test_boxes_of_images_without_a_size_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: Any, shown: str
) -> None:
    boxes = [{'category_id': 1, 'bbox': [30, 30, 5, 5]}, {'category_id': 1, 'bbox': [-6, 0, 6, 5]}]
    source = coco(tmp_path / 'train.json', [*boxes, {'category_id': 1, 'image_id': 1}], ('cat',))
    changed(source, lambda c: c['images'][0].update(zip(('width', 'height'), size, strict=True)))
    found = run(tmp_path / 'c.json', source)
    assert found['counts'] == [2] and found['left_out'] == {'outside the picture': 1}
    note = f'note: {source}: 1 images, size missing (0.jpg: {shown}); boxes of these images count'
    assert note in capsys.readouterr().out


def test_sizes_that_are_swapped_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [{'category_id': 1, 'bbox': [2, 25, 5, 5]}, {'category_id': 1, 'bbox': [2, 2, 5, 5]}]
    source = coco(tmp_path / 'train.json', boxes, ('cat',))
    changed(source, lambda c: c['images'][0].update(width=40, height=9))
    found = run(tmp_path / 'c.json', source)
    assert found['left_out'] == {'outside the picture': 1}
    note = '1 images whose boxes fit width and height if these are swapped (0.jpg: 40x9)'
    assert note in capsys.readouterr().out


def test_records_of_any_form_are_counted_as_unusable(tmp_path: Path) -> None:
    odd = [{'category_id': 1, 'image_id': [1]}, {'category_id': {}}, {'bbox': 'wide'}]
    source = coco(tmp_path / 'train.json', [{'category_id': 1}, *odd], ('cat',))
    changed(source, lambda c: c['annotations'].extend([None, 3, []]))
    assert run(tmp_path / 'c.json', source)['left_out'] == {'unusable': 6}


def test_an_absent_size_is_no_error(tmp_path: Path) -> None:
    source = coco(tmp_path / 'train.json', [{'category_id': 1}], ('cat',))
    changed(source, lambda c: [image.pop('height') for image in c['images']])
    assert run(tmp_path / 'c.json', source)['counts'] == [1]


def test_oddities_are_printed_and_do_not_reach_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [{'category_id': 1, 'bbox': [5, 5, 8, 8]}] * 5
    source = coco(tmp_path / 'train.json', boxes, ('cat',))
    changed(source, lambda c: c['images'][2].update(file_name='1.jpg'))
    assert 'notes' not in run(tmp_path / 'c.json', source)
    printed = capsys.readouterr().out
    assert f'note: {source}: 5 boxes that leave their image, and fit as corners x1, y1' in printed
    assert '1 files under several image ids (1.jpg: ids 1, 2)' in printed
    clean = coco(tmp_path / 'clean.json', [{'category_id': 1}], ('cat',))
    run(tmp_path / 'c.json', clean)
    assert 'note:' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c['annotations'][0].update(iscrowd='maybe'), "has iscrowd 'maybe'. Write 0 or"),
        (lambda c: [a.update(category_id='1') for a in c['annotations']], 'of different kinds'),
        (lambda c: [a.update(image_id='0') for a in c['annotations']], 'of different kinds'),
        (lambda c: c['images'][1].update(id='1'), "ids of 'images' are of two kinds"),
        (lambda c: [a.update(bbox=[0.1, 0.1, 0.5, 0.5]) for a in c['annotations']], 'in fractions'),
    ],
    ids=['flag', 'category', 'image', 'mixed', 'fractions'],
)
def test_values_that_cannot_be_meant_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, message: str
) -> None:
    source = changed(coco(tmp_path / 'a.json', [{'category_id': 1}] * 3, ('cat',)), change)
    assert main([str(source), '--out', str(tmp_path / 'c.json')]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'c.json').exists()


def test_a_few_boxes_in_fractions_are_named_as_such(tmp_path: Path) -> None:
    boxes = [{'category_id': 1}, {'category_id': 1, 'bbox': [0.1, 0.1, 0.5, 0.5]}]
    found = run(tmp_path / 'c.json', coco(tmp_path / 'a.json', boxes, ('cat',)))
    assert found['left_out'] == {'within 0..1, as in fractions of the image': 1}


def test_classes_keep_the_given_order_and_others_are_left_out(tmp_path: Path) -> None:
    source = coco(tmp_path / 'train.json', BOXES[:6], ('cat', 'dog', 'cow'))
    found = run(tmp_path / 'c.json', source, '--classes', 'cow', 'cat')
    assert found['classes'] == ['cow', 'cat'] and found['counts'] == [1, 1]
    assert found['left_out'] == {"marked 'ignore'": 1, 'class dog': 3}


def test_files_add_up_by_name_and_a_repeated_file_counts_once(tmp_path: Path) -> None:
    one = coco(tmp_path / 'a.json', BOXES[:2], ('cat', 'dog'))
    other = coco(tmp_path / 'b.json', BOXES[:1], ('cow', 'cat'), images=1)
    found = run(tmp_path / 'c.json', one, other, one)
    assert found['classes'] == ['cat', 'dog', 'cow'] and found['counts'] == [1, 2, 0]
    assert found['images'] == 4 and found['images_without_boxes'] == 1


def voc(root: Path) -> Path:
    """Write a VOC folder of three images; the lists overlap, and image c is in none."""
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    for name, objects in {
        'a': (('cat', 0, 5), ('dog', 1, 5)),
        'b': (('cat', 0, 0), ('cat', 0, 5)),
        'c': (),
    }.items():
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(root / f'JPEGImages/{name}.png')
        items = ''.join(
            f'<object><name>{kind}</name><difficult>{hard}</difficult><bndbox><xmin>1</xmin>'
            f'<ymin>1</ymin><xmax>{1 + side}</xmax><ymax>6</ymax></bndbox></object>'
            for kind, hard, side in objects
        )
        (root / f'Annotations/{name}.xml').write_text(f'<annotation>{items}</annotation>')
    for split, ids in {'train': 'a', 'val': 'b', 'trainval': 'a\nb'}.items():
        (root / f'ImageSets/Main/{split}.txt').write_text(ids)
    return root


def test_a_voc_folder_counts_each_image_once(tmp_path: Path) -> None:
    root, out = voc(tmp_path / 'voc'), tmp_path / 'c.json'
    found = run(out, root)
    assert found['classes'] == ['cat', 'dog'] and found['counts'] == [2, 0]
    assert found['ignored'] == [0, 1] and found['images'] == 2
    assert found['left_out'] == {'zero area': 1}
    assert run(out, root, '--splits', 'train')['counts'] == [1, 0]


def test_wrong_input_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = coco(tmp_path / 'train.json', BOXES, ('cat', 'dog', 'cow'))
    empty = coco(tmp_path / 'empty.json', BOXES[2:3], ('cat', 'dog'))
    other = tmp_path / 'list.json'
    other.write_text('[]')
    out = tmp_path / 'out' / 'c.json'
    for arguments, message in (
        ([tmp_path / 'no.json'], 'cannot be read as json'),
        ([other], 'is not a COCO detection file'),
        ([empty], 'no box of cat, dog is left to count'),
        ([source, '--classes', 'cat', 'horse'], 'class horse is in none of the files'),
        ([source, '--classes', 'cat', 'cat'], 'classes names one twice'),
        ([tmp_path], 'A folder must be of VOC form'),
        ([voc(tmp_path / 'voc'), '--splits', 'tset'], 'no split tset'),
    ):
        assert main([*map(str, arguments), '--out', str(out)]) == 2
        assert message in capsys.readouterr().err
    assert main([str(source), '--out', str(tmp_path / 'c.png')]) == 2
    assert not out.parent.exists() and not (tmp_path / 'c.png').exists()


def test_many_unequal_classes_are_drawn(tmp_path: Path) -> None:
    names = tuple(f'class {k}' for k in range(80))
    boxes = [{'category_id': k} for k in range(1, 80) for _ in range(1 if k > 2 else 200)]
    found = run(tmp_path / 'c.json', coco(tmp_path / 'train.json', boxes, names))
    assert found['counts'] == [200, 200, *[1] * 77, 0]
    assert (tmp_path / 'c.png').stat().st_size > 10_000


def test_bccd(shared_data: Path, tmp_path: Path) -> None:
    """Count the boxes of BCCD, where two of the 4155 red cells have no area."""
    found = run(tmp_path / 'c.json', shared_data / 'bccd')
    counts = dict(zip(found['classes'], found['counts'], strict=True))
    assert counts == {'Platelets': 361, 'RBC': 4155 - 2, 'WBC': 372}
    assert found['left_out'] == {'zero area': 2} and found['images'] == 364
