"""Tests of the conversion from VOC to COCO: values, reports of dropped boxes, errors."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from mmdet_ext.data.coco.voc import convert_voc
from mmdet_ext.data.coco.voc_folder import VocError
from tests._helpers.tools import load_tool
from tests.data.coco.voc_builder import Voc, converted_boxes, load_split

convert_voc_tool = load_tool('data/convert_voc.py')


def test_whole_json_of_a_small_folder(voc: Voc, out: Path) -> None:
    voc.sample('b', ('dog', (10, 20, 30, 50)), ('cat', (0, 0, 100, 80)))
    voc.sample('a', ('cat', (1.5, 2, 4, 4.25)))
    voc.sample('c')
    voc.split('train', 'b', 'c')
    voc.split('val', 'a')
    train, val = convert_voc(voc.root, out)
    assert load_split(out, 'train') == {
        'info': {'description': 'converted from Pascal VOC, split train'},
        'images': [
            {'id': 1, 'file_name': 'b.jpg', 'width': 100, 'height': 80},
            {'id': 2, 'file_name': 'c.jpg', 'width': 100, 'height': 80},
        ],
        'annotations': [
            {
                'id': 1,
                'image_id': 1,
                'category_id': 2,
                'bbox': [10, 20, 20, 30],
                'area': 600,
                'iscrowd': 0,
            },
            {
                'id': 2,
                'image_id': 1,
                'category_id': 1,
                'bbox': [0, 0, 100, 80],
                'area': 8000,
                'iscrowd': 0,
            },
        ],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
    }
    assert converted_boxes(out, 'val') == [('a.jpg', 'cat', [1.5, 2, 2.5, 2.25])]
    assert (train.images, train.images_without_boxes, train.boxes) == (2, 1, 2)
    assert train.class_boxes == {'cat': 1, 'dog': 1} and val.class_boxes == {'cat': 1, 'dog': 0}
    assert not (train.dropped_images or train.dropped_boxes or train.notes)
    assert sorted(path.name for path in out.iterdir()) == [
        'instances_train.json',
        'instances_val.json',
    ]


def test_everything_dropped_is_counted_by_reason(voc: Voc, out: Path) -> None:
    voc.sample(
        'a',
        ('cat', (5, 5, 5, 5)),
        ('cat', (5, 5, 5, 9)),
        ('cat', (9, 5, 5, 9)),
        ('cat', (100, 0, 120, 10)),
        ('cat', (-9, -9, 0, 0)),
        ('cat', (1, 2, 'x', 4)),
        ('cat', (1, 2, 3)),
        ('cat', (1, 2, 'nan', 4)),
        ('', (1, 2, 3, 4)),
        ('dog', (1, 1, 2, 2)),
        ('cat', (-5, 70, 10, 90)),
    )
    voc.image('no_xml.jpg')
    voc.sample('bad_xml')
    voc.raw_xml('bad_xml', '<annotation><object>')
    voc.sample('other_xml')
    voc.raw_xml('other_xml', '<html></html>')
    voc.xml('no_image', ('cat', (1, 1, 2, 2)))
    voc.sample('cut', ('cat', (1, 1, 2, 2)))
    cut = voc.root / 'JPEGImages' / 'cut.jpg'
    cut.write_bytes(cut.read_bytes()[:2000])
    voc.sample('text', ('cat', (1, 1, 2, 2)))
    (voc.root / 'JPEGImages' / 'text.jpg').write_text('words')
    voc.split('train', 'a', 'no_xml', 'bad_xml', 'other_xml', 'no_image', 'cut', 'text', 'a')
    (report,) = convert_voc(voc.root, out, classes=['cat'])
    assert converted_boxes(out) == [('a.jpg', 'cat', [0, 70, 10, 10])]
    assert report.dropped_boxes == {
        'zero area': ['a: 5,5,5,5', 'a: 5,5,5,9'],
        'inverted': ['a: 9,5,5,9'],
        'outside the picture': ['a: 100,0,120,10', 'a: -9,-9,0,0'],
        'malformed object': [
            "a: object 6, bndbox/xmax is 'x'",
            'a: object 7, no bndbox/ymax',
            "a: object 8, bndbox/xmax is 'nan'",
            'a: object 9, no name',
        ],
        'class not asked for': ['a: 1,1,2,2 dog'],
    }
    assert report.notes == {'clipped to the image': ['a: -5,70,10,90']}
    unparsable = report.dropped_images.pop('xml unparsable')
    assert unparsable[0].startswith('bad_xml: no element found')
    assert unparsable[1:] == ['other_xml: begins with <html>, not <annotation>']
    assert report.dropped_images == {
        'xml missing': ['no_xml'],
        'image missing': ['no_image'],
        'image unreadable': ['cut: truncated JPEG (no end marker)', 'text: not an image'],
        'image listed twice': ['a'],
    }


def test_inclusive_corners_are_pixel_numbers_from_one(voc: Voc, out: Path) -> None:
    voc.sample('a', ('cat', (1, 1, 100, 80)), ('cat', (7, 9, 7, 10)), ('cat', (8, 9, 7, 10)))
    voc.split('train', 'a')
    (report,) = convert_voc(voc.root, out, inclusive=True)
    assert [box for *_, box in converted_boxes(out)] == [[0, 0, 100, 80], [6, 8, 1, 2]]
    assert report.dropped_boxes == {'zero area': ['a: 8,9,7,10']}
    assert not report.notes


@pytest.mark.parametrize(
    ('difficult', 'crowds', 'dropped', 'notes'),
    [
        ('keep', [0, 0], {}, {'difficult, kept': ['b: 3,3,4,4']}),
        ('crowd', [0, 1], {}, {'difficult, as crowd': ['b: 3,3,4,4']}),
        ('drop', [0], {'difficult': ['b: 3,3,4,4']}, {}),
    ],
)
def test_difficult_boxes(
    voc: Voc, out: Path, difficult: str, crowds: list[int], dropped: dict, notes: dict
) -> None:
    voc.sample('a', ('cat', (1, 1, 2, 2)))
    voc.sample('b', ('cat', (3, 3, 4, 4)), difficult=1)
    voc.split('train', 'a', 'b')
    (report,) = convert_voc(voc.root, out, difficult=difficult)
    assert [item['iscrowd'] for item in load_split(out, 'train')['annotations']] == crowds
    assert (report.dropped_boxes, report.notes) == (dropped, notes)


def test_unknown_treatment_of_difficult_boxes_is_refused(voc: Voc, out: Path) -> None:
    with pytest.raises(VocError, match="difficult is 'ignore'; expected one of .'keep', 'crowd'"):
        convert_voc(voc.root, out, difficult='ignore')


def test_the_size_comes_from_the_image_itself(voc: Voc, out: Path) -> None:
    for image_id, size in (('a', '0 0'), ('b', None), ('c', '50 40'), ('d', 'wide high')):
        voc.sample(image_id, ('cat', (1, 1, 90, 70)), size=size)
    voc.split('train', 'a', 'b', 'c', 'd')
    (report,) = convert_voc(voc.root, out)
    assert {(image['width'], image['height']) for image in load_split(out, 'train')['images']} == {
        (100, 80)
    }
    assert report.notes == {
        'size missing in the xml': [
            'a: 0x0, true 100x80',
            'b: none, true 100x80',
            'd: widexhigh, true 100x80',
        ],
        'size of another scale in the xml': ['c: 50x40, true 100x80'],
    }
    assert report.boxes == 4


def test_nothing_is_written_on_an_error(voc: Voc, out: Path, monkeypatch) -> None:
    voc.sample('a', ('cat', (1, 1, 2, 2)))
    voc.split('train', 'a')
    voc.split('val', 'a')
    convert_voc(voc.root, out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    voc.xml('a', ('cat', (3, 3, 9, 9)))
    write = Path.write_text

    def full_disk(path: Path, *args: object, **options: object) -> int:
        if 'val' in path.name:
            raise OSError('no space left')
        return write(path, *args, **options)

    monkeypatch.setattr(Path, 'write_text', full_disk)
    with pytest.raises(OSError, match='no space left'):
        convert_voc(voc.root, out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_tool_reports_bad_input(voc: Voc, out: Path, capsys) -> None:
    def error(*args: object) -> str:
        assert convert_voc_tool.main([*map(str, args), '--out', str(out)]) == 2
        return capsys.readouterr().err

    voc.sample('a', ('cat', (1, 1, 1, 1)))
    voc.split('train', 'a')
    root = voc.root
    assert error(root / 'absent') == f'error: VOC folder {root / "absent"} is not there\n'
    assert error(root.parent) == (
        f'error: {root.parent} is not of VOC form: looked for the folders Annotations and '
        f'JPEGImages, found voc/; did you mean {root}?\n'
    )
    assert error(root, '--splits', 'train', 'test') == (
        f'error: no split test in ImageSets of {root}; there are: train\n'
    )
    assert error(root, '--classes', 'cat', 'dog') == 'error: class dog never occurs; found: cat\n'
    assert error(root, '--classes', 'cat', 'cat') == 'error: classes names one twice: cat, cat\n'
    message = error(root)
    assert message.startswith(f'error: no boxes left in {root}, so nothing was written\n')
    assert re.search(r'zero area +1  a: 1,1,1,1', message)
    assert not out.exists()


def test_table_shows_five_examples(voc: Voc, out: Path, capsys) -> None:
    voc.sample('a', ('cat', (1, 1, 2, 2)), *[('cat', (x, 1, x, 2)) for x in range(6)])
    voc.split('train', 'a')
    assert convert_voc_tool.main([str(voc.root), '--out', str(out)]) == 0
    assert capsys.readouterr().out == (
        'train (train.txt) -> instances_train.json\n'
        '  images                         1\n'
        '    of them without boxes        0\n'
        '  boxes                          1\n'
        '    cat                          1\n'
        '  images dropped                 0\n'
        '  boxes dropped                  6\n'
        '    zero area                    6  a: 0,1,0,2; a: 1,1,1,2; a: 2,1,2,2; a: 3,1,3,2; '
        'a: 4,1,4,2; ...\n'
        '  notes                          0\n'
    )


def test_bccd(shared_data: Path, out: Path) -> None:
    root = shared_data / 'bccd'
    reports = {report.split: report for report in convert_voc(root, out)}
    assert {
        split: (report.images, report.images_without_boxes, report.class_boxes)
        for split, report in reports.items()
    } == {
        'test': (72, 0, {'Platelets': 69, 'RBC': 805, 'WBC': 71}),
        'train': (205, 0, {'Platelets': 209, 'RBC': 2381, 'WBC': 214}),
        'trainval': (292, 0, {'Platelets': 292, 'RBC': 3348, 'WBC': 301}),
        'val': (87, 0, {'Platelets': 83, 'RBC': 967, 'WBC': 87}),
    }
    first, second = 'BloodImage_00338: 504,337,504,337', 'BloodImage_00343: 181,329,181,329'
    assert {split: report.dropped_boxes for split, report in reports.items()} == {
        'test': {},
        'train': {'zero area': [second]},
        'val': {'zero area': [first]},
        'trainval': {'zero area': [first, second]},
    }
    assert not any(report.dropped_images or report.notes for report in reports.values())
    for split in reports:
        assert Counter(
            (name, kind, *box) for name, kind, box in converted_boxes(out, split)
        ) == Counter(parse_plainly(root, split))


def parse_plainly(root: Path, split: str) -> list[tuple]:
    """Read the boxes of a split with regular expressions alone."""
    found = []
    for image_id in (root / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split():
        text = (root / 'Annotations' / f'{image_id}.xml').read_text()
        names = re.findall(r'<name>(\w+)</name>', text)
        corners = [
            list(map(int, re.findall(rf'<{tag}>(\d+)</{tag}>', text)))
            for tag in ('xmin', 'ymin', 'xmax', 'ymax')
        ]
        found += [
            (f'{image_id}.jpg', name, x0, y0, x1 - x0, y1 - y0)
            for name, x0, y0, x1, y1 in zip(names, *corners, strict=True)
            if x0 != x1
        ]
    return found
