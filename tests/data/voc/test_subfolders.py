"""Tests of VOC folders with subfolders: a relative path is an image's identity."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mmdet_ext.data.coco.voc import convert_voc
from tests.data.coco.voc_builder import Voc, converted_boxes, load_split

BOXES: dict[str, tuple[int, ...]] = {
    'f0': (1, 1, 11, 11),
    'cam1/f0': (2, 2, 22, 22),
    'cam2/f0': (3, 3, 33, 33),
}


@pytest.fixture
def cameras(voc: Voc) -> Voc:
    """Make a folder with three images of one name, each with a box of its own."""
    for seed, (image_id, box) in enumerate(BOXES.items()):
        voc.image(f'{image_id}.jpg', seed=seed)
        voc.xml(image_id, ('cat', box), filename='f0.jpg')
    return voc


def files(out: Path, split: str = 'train') -> list[str]:
    return [image['file_name'] for image in load_split(out, split)['images']]


def boxes(out: Path, split: str = 'train') -> dict[str, list[float]]:
    return {name: box for name, _, box in converted_boxes(out, split)}


def expected(*ids: str) -> dict[str, list[float]]:
    return {f'{name}.jpg': [n := BOXES[name][0], n, 10 * n, 10 * n] for name in ids}


def test_without_a_list_all_subfolders_are_read(cameras: Voc, out: Path) -> None:
    reports = convert_voc(cameras.root, out)
    assert sum(report.images for report in reports) == 3
    assert {**boxes(out, 'train'), **boxes(out, 'val')} == expected('f0', 'cam1/f0', 'cam2/f0')


@pytest.mark.parametrize(
    'entry',
    [
        'cam1/f0',
        'cam1\\f0',
        './cam1/f0',
        '.\\cam1\\f0.jpg',
        'cam1//f0.JPG',
        '"cam1/f0.jpg"',
        'JPEGImages/cam1/f0.jpg',
        'VOC2007/JPEGImages/cam1/f0',
        '../JPEGImages/cam1/f0.jpg',
        '/home/me/VOC2007/JPEGImages/cam1/f0.jpg',
        'C:\\VOC2007\\JPEGImages\\cam1\\f0.jpg',
        'Annotations/cam1/f0.xml',
        '/home/me/cam1/f0.jpg',
        'JPEGImages/cam1/f0.jpg Annotations/cam1/f0.xml',
    ],
)
def test_entries_of_lists_are_relative_paths(cameras: Voc, out: Path, entry: str) -> None:
    cameras.split('train', entry)
    (report,) = convert_voc(cameras.root, out)
    assert boxes(out) == expected('cam1/f0') and not report.dropped_images
    assert load_split(out, 'train')['images'][0]['file_name'] == 'cam1/f0.jpg'


@pytest.mark.parametrize(
    'entry', ['cam3/f0', 'cam1/f1', 'cam1/cam2/f0', 'x/cam1/f0', '/home/me/f0.jpg', '/x/cam3/f0']
)
def test_an_absent_image_is_missing_and_never_another(cameras: Voc, out: Path, entry: str) -> None:
    cameras.split('train', 'cam2/f0', entry)
    (report,) = convert_voc(cameras.root, out)
    assert boxes(out) == expected('cam2/f0')
    assert report.dropped_images == {'image and xml missing': [entry.strip('/').split('.')[0]]}


def test_the_top_image_does_not_stand_for_a_missing_one_of_a_subfolder(voc: Voc, out: Path) -> None:
    voc.sample('f0', ('cat', (1, 1, 9, 9)))
    voc.sample('f1', ('cat', (1, 1, 9, 9)))
    voc.xml('cam1/f0', ('cat', (2, 2, 9, 9)), filename='f0.jpg')
    voc.split('train', 'cam1/f0', 'f1')
    (report,) = convert_voc(voc.root, out)
    assert files(out) == ['f1.jpg']
    assert report.dropped_images == {'image missing': ['cam1/f0']}


def test_a_plain_name_of_one_subfolder_is_taken_and_noted(voc: Voc, out: Path) -> None:
    voc.sample('a', ('cat', (1, 1, 9, 9)))
    voc.image('cam1/f0.jpg')
    voc.xml('cam1/f0', ('cat', (2, 2, 9, 9)))
    voc.split('train', 'f0', 'a')
    (report,) = convert_voc(voc.root, out)
    assert files(out) == ['cam1/f0.jpg', 'a.jpg']
    assert report.notes == {'listed by name, found in a subfolder': ['f0: cam1/f0']}


def test_a_plain_name_of_several_subfolders_is_ambiguous(cameras: Voc, out: Path) -> None:
    for path in (cameras.root / 'JPEGImages' / 'f0.jpg', cameras.root / 'Annotations' / 'f0.xml'):
        path.unlink()
    cameras.split('train', 'f0', 'cam1/f0')
    (report,) = convert_voc(cameras.root, out)
    assert boxes(out) == expected('cam1/f0')
    assert report.dropped_images == {'name of several images': ['f0: cam1/f0, cam2/f0']}


def stated(voc: Voc, image_id: str, elements: str) -> None:
    box = '<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>'
    voc.raw_xml(
        image_id,
        f'<annotation>{elements}<object><name>cat</name>{box}</object></annotation>',
    )


@pytest.mark.parametrize(
    'elements',
    [
        '<folder>cam2</folder><filename>f0.jpg</filename>',
        '<folder>JPEGImages/cam2</folder><filename>f0.jpg</filename>',
        '<filename>cam2/f0.jpg</filename>',
        '<filename>f0.jpg</filename><path>C:\\v\\JPEGImages\\cam2\\f0.jpg</path>',
        '<filename>f0.jpg</filename><path>/home/me/cam2/f0.jpg</path>',
    ],
)
def test_a_flat_xml_finds_the_image_whose_place_it_states(
    voc: Voc, out: Path, elements: str
) -> None:
    for seed, name in enumerate(('cam1/f0.jpg', 'cam2/f0.jpg')):
        voc.image(name, seed=seed)
    stated(voc, 'f0', elements)
    voc.split('train', 'cam2/f0')
    (report,) = convert_voc(voc.root, out)
    assert files(out) == ['cam2/f0.jpg'] and report.images == 1
    assert report.notes['image in another folder or of another name'] == ['f0: cam2/f0.jpg']


@pytest.mark.parametrize(
    'elements',
    [
        '<filename>f0.jpg</filename>',
        '<folder>VOC2007</folder><filename>f0.jpg</filename>',
        '<folder>cam1</folder><filename>cam2/f0.jpg</filename>',
    ],
)
def test_a_flat_xml_that_fits_several_images_is_left_out(
    voc: Voc, out: Path, elements: str
) -> None:
    for name in ('cam1/f0.jpg', 'cam2/f0.jpg', 'a.jpg'):
        voc.image(name)
    voc.xml('a', ('cat', (1, 1, 9, 9)))
    stated(voc, 'f0', elements)
    voc.split('train', 'a', 'f0')
    (report,) = convert_voc(voc.root, out)
    assert files(out) == ['a.jpg']
    assert report.dropped_images == {'image of the xml unclear': ['f0: may be cam1/f0, cam2/f0']}


@pytest.mark.parametrize(
    ('xml', 'image', 'elements', 'is_certain'),
    [
        ('f0', 'cam1/f0', '', True),
        ('f0', 'cam1/f0', '<folder>VOC2007</folder><filename>f0.jpg</filename>', True),
        ('cam1/f0', 'f0', '<folder>cam1</folder><filename>f0.jpg</filename>', True),
        ('cam1/f0', 'data/cam1/f0', '', True),
        ('cam1/f0', 'cam2/f0', '<filename>f0.jpg</filename>', False),
        ('cam1/f0', 'cam2/f0', '<folder>cam2</folder><filename>f0.jpg</filename>', True),
    ],
)
def test_one_xml_and_one_image_of_a_name_are_paired_unless_their_folders_differ(
    voc: Voc, out: Path, xml: str, image: str, elements: str, is_certain: bool
) -> None:
    voc.sample('a', ('cat', (1, 1, 9, 9)))
    voc.image(f'{image}.jpg')
    stated(voc, xml, elements)
    voc.split('train', 'a', xml)
    (report,) = convert_voc(voc.root, out)
    assert files(out) == ['a.jpg', *[f'{image}.jpg'] * is_certain]
    assert report.dropped_images == ({} if is_certain else {'image missing': [xml]})


def test_two_xml_files_that_claim_one_image_are_both_left_out(voc: Voc, out: Path) -> None:
    voc.sample('a', ('cat', (1, 1, 9, 9)))
    voc.image('f0.jpg')
    for name in ('cam1/f0', 'cam2/f0'):
        stated(voc, name, '<filename>f0.jpg</filename>')
    voc.split('train', 'a', 'cam1/f0', 'cam2/f0')
    (report,) = convert_voc(voc.root, out)
    assert files(out) == ['a.jpg']
    assert report.dropped_images == {
        'image of the xml unclear': ['cam1/f0: may be f0', 'cam2/f0: may be f0']
    }


def test_an_xml_never_takes_the_image_of_another(voc: Voc, out: Path) -> None:
    voc.sample('z', ('cat', (1, 1, 9, 9)))
    voc.xml('a', ('dog', (1, 1, 5, 5)), filename='z.jpg')
    voc.split('train', 'a', 'z')
    (report,) = convert_voc(voc.root, out)
    assert converted_boxes(out) == [('z.jpg', 'cat', [1, 1, 8, 8])]
    assert report.dropped_images == {'image missing': ['a']}


def test_lists_in_subfolders_are_read_with_their_folder(cameras: Voc, out: Path) -> None:
    cameras.split('cam1/train', 'cam1/f0')
    cameras.split('cam2/train', 'f0.jpg')
    (cameras.root / 'JPEGImages' / 'f0.jpg').unlink()
    (cameras.root / 'Annotations' / 'f0.xml').unlink()
    (report,) = convert_voc(cameras.root, out)
    assert boxes(out) == expected('cam1/f0', 'cam2/f0')
    assert report.origin == 'cam1/train.txt, cam2/train.txt'


def test_files_of_systems_are_no_data(cameras: Voc, out: Path) -> None:
    for place in ('._f0', '.ipynb_checkpoints/f0', '__MACOSX/f0', 'cam1/._f0', '@eaDir/f0'):
        cameras.image(f'{place}.jpg')
        cameras.xml(place, ('dog', (1, 1, 9, 9)))
    (cameras.root / 'JPEGImages' / 'Thumbs.db').touch()
    cameras.split('train', 'f0', 'cam1/f0', 'cam2/f0')
    cameras.split('._train', 'f0')
    (report,) = convert_voc(cameras.root, out)
    assert (report.images, report.class_boxes, report.remarks) == (3, {'cat': 3}, [])


def test_links_that_lead_back_end(cameras: Voc, out: Path) -> None:
    images, xmls = cameras.root / 'JPEGImages', cameras.root / 'Annotations'
    for base in (images, xmls):
        (base / 'cam1' / 'up').symlink_to(base, target_is_directory=True)
        (base / 'cam2' / 'side').symlink_to(base / 'cam1', target_is_directory=True)
    (images / 'self.jpg').symlink_to(images / 'self.jpg')
    reports = convert_voc(cameras.root, out)
    assert sum(report.images for report in reports) == 3
    assert 'links to folders that are read already: ' in reports[-1].table()


def test_linked_folders_from_elsewhere_are_read(cameras: Voc, out: Path, tmp_path: Path) -> None:
    for name in ('JPEGImages', 'Annotations'):
        (cameras.root / name / 'cam1').rename(tmp_path / name)
        (cameras.root / name / 'cam1').symlink_to(tmp_path / name, target_is_directory=True)
    cameras.split('train', 'cam1/f0')
    convert_voc(cameras.root, out)
    assert boxes(out) == expected('cam1/f0')


def test_a_letter_with_an_accent_has_two_forms_and_is_one(voc: Voc, out: Path) -> None:
    voc.image('cafe\u0301/f0.jpg')
    voc.xml('caf\u00e9/f0', ('cat', (1, 1, 9, 9)))
    voc.split('train', 'caf\u00e9/f0')
    convert_voc(voc.root, out)
    assert files(out) == ['cafe\u0301/f0.jpg']
    assert (voc.root / 'JPEGImages' / files(out)[0]).is_file()


def test_an_image_whose_name_is_no_text_is_named(voc: Voc, out: Path) -> None:
    voc.sample('a', ('cat', (1, 1, 9, 9)))
    bad = os.fsdecode('照片'.encode('gbk'))
    try:
        voc.image(f'{bad}.jpg')
    except OSError:
        pytest.skip('this file system refuses names that are not UTF-8')
    voc.xml(bad, ('cat', (1, 1, 9, 9)))
    reports = convert_voc(voc.root, out)
    dropped: dict[str, Any] = {}
    for report in reports:
        dropped |= report.dropped_images
    assert list(dropped) == ['name of the image is not UTF-8']
    assert '\\udcd5' in ''.join(report.table() for report in reports)


def test_two_images_of_one_name_are_noted_unless_the_xml_decides(voc: Voc, out: Path) -> None:
    for name in ('a', 'b'):
        voc.image(f'{name}.jpg')
        voc.image(f'{name}.png')
    voc.xml('a', ('cat', (1, 1, 9, 9)), filename='a.png')
    voc.xml('b', ('cat', (1, 1, 9, 9)))
    voc.split('train', 'a', 'b')
    (report,) = convert_voc(voc.root, out)
    assert files(out) == ['a.png', 'b.jpg']
    assert report.notes == {'several images of one name': ['b: b.jpg taken, not b.png']}


def test_two_xml_files_of_one_name_are_left_out(voc: Voc, out: Path) -> None:
    voc.sample('a', ('cat', (1, 1, 9, 9)))
    voc.sample('b', ('cat', (1, 1, 9, 9)))
    xml = voc.root / 'Annotations' / 'b.xml'
    xml.with_suffix('.XML').write_bytes(xml.read_bytes())
    voc.split('train', 'a', 'b')
    (report,) = convert_voc(voc.root, out)
    assert report.dropped_images == {'several xml files of one name': ['b']}
