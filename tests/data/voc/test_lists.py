"""Tests of the lists of splits: encodings, names, single lists, lists and images not used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmdet_ext.data.coco.voc import SplitReport, convert_voc
from mmdet_ext.data.coco.voc_folder import VocError
from tests._helpers.tools import load_tool
from tests.data.coco.voc_builder import Voc, load_split

convert_voc_tool = load_tool('data/convert_voc.py')


@pytest.fixture
def ten(voc: Voc) -> Voc:
    """Make a folder of ten images without lists."""
    for number in range(10):
        voc.image(f'{number}.jpg', seed=number)
        voc.xml(f'{number}', ('cat', (1, 1, 9, 9)))
    return voc


def counts(reports: list[SplitReport]) -> dict[str, int]:
    return {report.split: report.images for report in reports}


def files(out: Path, split: str) -> list[str]:
    return [image['file_name'] for image in load_split(out, split)['images']]


@pytest.mark.parametrize(
    'encoding',
    'utf-8 utf-8-sig utf-16 utf-16-le utf-16-be utf-32 gbk big5 shift_jis euc_jp'.split(),
)
@pytest.mark.parametrize('ending', ['\n', '\r\n', '\r', ' \n\n\t\n'])
def test_lists_are_read_in_any_encoding_in_which_they_name_images(
    ten: Voc, out: Path, encoding: str, ending: str
) -> None:
    ten.image('大/日本.jpg')
    ten.xml('大/日本', ('cat', (1, 1, 9, 9)))
    ten.split('train', f'0{ending}大/日本.jpg{ending}1', encoding=encoding)
    (report,) = convert_voc(ten.root, out)
    assert files(out, 'train') == ['0.jpg', '大/日本.jpg', '1.jpg']
    assert not report.dropped_images


def test_a_list_of_an_unknown_encoding_is_named_and_blocks_only_its_own_split(
    ten: Voc, out: Path
) -> None:
    ten.split('train', '0', '1')
    ten.split('val', '2', '照片', encoding='gbk')
    with pytest.raises(VocError, match=r'val.txt is neither UTF-8 .* line 2; .* gb18030'):
        convert_voc(ten.root, out)
    with pytest.raises(VocError, match='val.txt is neither'):
        convert_voc(ten.root, out, splits=['val'])
    (report,) = convert_voc(ten.root, out, splits=['train'])
    assert report.images == 2 and 'val.txt is neither UTF-8' in report.table()


def test_zero_bytes_in_a_list_are_named(ten: Voc, out: Path) -> None:
    ten.split('train', '0', '1', '2\0', '3', '4')
    with pytest.raises(VocError, match=r'train.txt holds zero bytes .the first at byte 5.'):
        convert_voc(ten.root, out)


def test_comments_are_counted_and_names_that_begin_like_one_are_read(ten: Voc, out: Path) -> None:
    ten.sample('#a', ('cat', (1, 1, 9, 9)))
    ten.split('train', '# first', '0', '#a')
    (report,) = convert_voc(ten.root, out)
    assert files(out, 'train') == ['0.jpg', '#a.jpg']
    assert report.notes == {'comment in a list': ['# first']}


@pytest.mark.parametrize('name', ['default', 'Default', 'all', 'job_12'])
def test_a_single_list_is_split_by_the_seed(ten: Voc, out: Path, name: str) -> None:
    ten.split(name, *'01234567', '7')
    reports = convert_voc(ten.root, out, seed=3)
    assert counts(reports) == {'train': 6, 'val': 2}
    assert [report.origin for report in reports] == [f'random split of {name}.txt, seed 3'] * 2
    assert sorted(files(out, 'train') + files(out, 'val')) == [f'{n}.jpg' for n in range(8)]
    assert reports[0].notes == {'listed more than once': ['7']}
    assert reports[-1].remarks == ['2 images in no list, not used: 8, 9']
    val = files(out, 'val')
    assert counts(convert_voc(ten.root, out, splits=['val'], seed=3)) == {'val': 2}
    assert files(out, 'val') == val
    assert counts(convert_voc(ten.root, out, splits=[name])) == {name: 8}


@pytest.mark.parametrize('name', ['train', 'Train', 'trainval', 'test', 'Validation'])
def test_a_single_list_that_names_its_split_is_kept(ten: Voc, out: Path, name: str) -> None:
    ten.split(name, *'0123')
    assert counts(convert_voc(ten.root, out)) == {name: 4}


def test_splits_are_found_in_another_case_if_unique(ten: Voc, out: Path) -> None:
    ten.split('Train', '0')
    ten.split('Validation', '1')
    ten.split('TEST', '2')
    ten.split('Test', '3')
    assert counts(convert_voc(ten.root, out, splits=['train', 'VALIDATION'])) == {
        'train': 1,
        'VALIDATION': 1,
    }
    assert files(out, 'train') == ['0.jpg']
    for wanted, near in (('val', 'Validation'), ('Vaildation', 'Validation'), ('test', 'TEST or')):
        with pytest.raises(VocError, match=f'no split {wanted} .*; did you mean {near}'):
            convert_voc(ten.root, out, splits=[wanted])


def test_unused_lists_and_images_are_said(ten: Voc, out: Path, capsys) -> None:
    ten.split('train', '0', '1')
    ten.split('val', '2')
    ten.split('extra', '3', '4')
    ten.split('labels', 'cat', 'dog')
    ten.split('cat_train', '0  1', '1 -1')
    arguments = [str(ten.root), '--out', str(out)]
    assert convert_voc_tool.main([*arguments, '--splits', 'train', 'val']) == 0
    assert capsys.readouterr().out.endswith(
        '1 lists not used: extra.txt (2 images)\n'
        '1 lists not used, as they name no image: labels.txt (2 lines)\n'
        '1 lists per class not used: cat_train.txt\n'
        '5 images in no list, not used: 5, 6, 7, 8, 9\n'
    )
    assert counts(convert_voc(ten.root, out)) == {'extra': 2, 'train': 2, 'val': 1}


def test_lists_of_other_tasks_are_said(ten: Voc, out: Path) -> None:
    folder = ten.root / 'ImageSets' / 'Segmentation'
    folder.mkdir()
    (folder / 'train.txt').write_text('0\n')
    reports = convert_voc(ten.root, out)
    assert counts(reports) == {'train': 8, 'val': 2}
    assert reports[-1].remarks == ['1 lists of other tasks not read: Segmentation/train.txt']


def test_images_of_two_splits_are_said_loudly(ten: Voc, out: Path) -> None:
    ten.split('train', '0', '1', '2')
    ten.split('val', '2', '0.jpg', '3')
    ten.split('trainval', '0', '1', '2', '3')
    ten.split('rest', '0', *'456789')
    *others, last = convert_voc(ten.root, out)
    assert not any(report.remarks for report in others)
    assert last.remarks == ['WARNING: 2 images are in both train and val: 0.jpg, 2.jpg']
    assert 'WARNING: 2 images' in last.table()


def test_files_of_one_content_are_said_loudly_across_splits(ten: Voc, out: Path) -> None:
    images = ten.root / 'JPEGImages'
    for source, target in (('0', '1'), ('0', '5'), ('7', '8')):
        shutil.copy(images / f'{source}.jpg', images / f'{target}.jpg')
    ten.split('train', *'01234')
    ten.split('test', *'56789')
    assert convert_voc(ten.root, out)[-1].remarks == [
        'WARNING: 1 images of test have the content of images of train: 5.jpg (0.jpg)',
        '3 images have the content of another: 5.jpg = 0.jpg = 1.jpg, 7.jpg = 8.jpg',
    ]


def test_one_line_with_a_space_does_not_make_a_list_per_class(ten: Voc, out: Path) -> None:
    ten.split('train', '0', 'my cat 9', '1')
    (report,) = convert_voc(ten.root, out)
    assert report.images == 2
    assert report.dropped_images == {'image and xml missing': ['my cat 9']}


@pytest.mark.parametrize('name', ['default', None])
def test_a_random_split_does_not_separate_copies(ten: Voc, out: Path, name: str | None) -> None:
    images = ten.root / 'JPEGImages'
    if name:
        ten.split(name, *'0123456789')
    convert_voc(ten.root, out)
    first, second = files(out, 'val')
    shutil.copy(images / files(out, 'train')[0], images / first)
    train, val = convert_voc(ten.root, out)
    assert (train.images, files(out, 'val')) == (9, [second])
    assert train.notes == {'copy of an image of train, not drawn for val': [first[:-4]]}
    assert not any('WARNING' in remark for remark in val.remarks)


def test_paths_of_another_machine_are_taken_by_name_in_a_folder_without_subfolders(
    ten: Voc, out: Path
) -> None:
    ten.split('train', '/home/me/images/0.jpg', 'D:\\images\\1.jpg', 'images/2.jpg', '../3')
    (report,) = convert_voc(ten.root, out)
    assert files(out, 'train') == ['0.jpg', '1.jpg', '3.jpg']
    assert report.notes == {
        'listed by a path of another place, taken by its name': [
            '/home/me/images/0.jpg: 0',
            'D:\\images\\1.jpg: 1',
            '../3: 3',
        ]
    }
    assert report.dropped_images == {'image and xml missing': ['images/2']}


def test_names_in_another_case_are_missing_and_named(ten: Voc, out: Path) -> None:
    ten.sample('IMG_1', ('cat', (1, 1, 9, 9)))
    ten.split('train', '0', 'img_1.jpg', '\x1a')
    (report,) = convert_voc(ten.root, out)
    assert files(out, 'train') == ['0.jpg']
    assert report.dropped_images == {'image and xml missing': ['img_1: is there as IMG_1']}


def test_images_of_formats_that_are_not_read_are_named(ten: Voc, out: Path) -> None:
    (ten.root / 'JPEGImages' / 'a.HEIC').write_bytes(b'x')
    ten.xml('a', ('cat', (1, 1, 9, 9)))
    ten.split('train', '0', 'a')
    (report,) = convert_voc(ten.root, out)
    assert report.dropped_images == {'image of a format that is not read': ['a: a.HEIC']}


def test_the_listed_suffix_chooses_the_image_or_leaves_it_out(voc: Voc, out: Path) -> None:
    for name in ('a', 'b'):
        voc.image(f'{name}.jpg', seed=1)
        voc.image(f'{name}.png', seed=2)
    voc.xml('a', ('cat', (1, 1, 9, 9)))
    voc.xml('b', ('cat', (1, 1, 9, 9)), filename='b.jpg')
    voc.sample('c', ('cat', (1, 1, 9, 9)))
    voc.split('train', 'a.png', 'b.png', 'c.png')
    voc.split('val', 'a.jpg', 'b.jpg')
    train, _ = convert_voc(voc.root, out)
    assert (files(out, 'train'), files(out, 'val')) == (['a.png', 'c.jpg'], ['a.jpg', 'b.jpg'])
    assert train.dropped_images == {
        'listed image is not that of the xml': ['b: b.png listed, xml names b.jpg']
    }
    assert train.notes['listed with another suffix'] == ['c.png: c.jpg taken']


@pytest.mark.parametrize(
    'place', ['imagesets/main', 'IMAGESETS/Main', 'ImageSets/MAIN', 'imagesets']
)
def test_lists_are_found_in_folders_of_any_case(ten: Voc, out: Path, place: str) -> None:
    ten.split('train', '0', '1')
    lists = ten.root / place
    text = (ten.root / 'ImageSets' / 'Main' / 'train.txt').read_bytes()
    shutil.rmtree(ten.root / 'ImageSets')
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_bytes(text)
    assert counts(convert_voc(ten.root, out)) == {'train': 2}


def test_a_random_split_of_few_contents_keeps_each_in_one_part(voc: Voc, out: Path) -> None:
    for number in range(12):
        voc.image(f'{number}.jpg', seed=number % 3)
        voc.xml(f'{number}', ('cat', (1, 1, 9, 9)))
    for seed in range(8):
        train, val = convert_voc(voc.root, out, seed=seed)
        parts = [{int(name[:-4]) % 3 for name in files(out, part)} for part in ('train', 'val')]
        assert not parts[0] & parts[1] and parts[0] and parts[1]
        assert train.images + val.images == 12
        assert not any('WARNING' in remark for remark in val.remarks)


def test_what_is_not_used_is_said_without_lists_too(ten: Voc, out: Path) -> None:
    (ten.root / 'JPEGImages' / 'b.heic').touch()
    (val,) = convert_voc(ten.root, out, splits=['val'])
    first, second = val.remarks
    assert first.startswith('8 images of the other part of the random split, not used: ')
    assert second == '1 images of formats that are not read, not used: b.heic'


def test_classes_that_differ_in_case_are_said(ten: Voc, out: Path) -> None:
    ten.sample('a', ('Cat', (1, 1, 9, 9)), ('dog', (1, 1, 9, 9)))
    reports = convert_voc(ten.root, out)
    assert 'classes that differ in capital letters alone: Cat = cat' in reports[-1].remarks


def test_lists_per_class_alone_are_refused_with_what_to_do(ten: Voc, out: Path) -> None:
    ten.split('cat_train', '0  1', '1 -1')
    with pytest.raises(VocError, match='no plain list.*Write lists with the id of one image per'):
        convert_voc(ten.root, out)
