"""Lists of pairs: LFW's text, tables and InsightFace's pickles."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import KFold

from mmdet_ext.data.face.pairs import (
    PairsError,
    consecutive_folds,
    read_bin_pairs,
    read_lfw_pairs,
    read_table_pairs,
)
from mmdet_ext.data.face.safe_pickle import UnsafePickleError


def lfw(root: Path, text: str, **persons: int) -> Path:
    """Write a list, and empty files of images 1..n of each person."""
    for name, count in persons.items():
        (root / name).mkdir(parents=True)
        for k in range(1, count + 1):
            (root / name / f'{name}_{k:04d}.jpg').touch()
    (root / 'pairs.txt').write_text(text, encoding='utf-8')
    return root / 'pairs.txt'


TEXT = (
    '2\t2\nAnn\t1\t3\nBo\t1\t2\nAnn\t1\tBo\t2\nBo\t1\tAnn\t2\n'
    'Ann\t2\t3\nBo\t2\t3\nAnn\t3\tCy\t1\nCy\t1\tBo\t3\n'
)


def names(pairs: Any) -> list[tuple[str, str]]:
    return [tuple(pairs.images[k].stem for k in row) for row in pairs.index.tolist()]


def test_lfw(tmp_path: Path) -> None:
    pairs = read_lfw_pairs(lfw(tmp_path, TEXT, Ann=3, Bo=3, Cy=1), tmp_path)
    assert names(pairs) == [
        ('Ann_0001', 'Ann_0003'),
        ('Bo_0001', 'Bo_0002'),
        ('Ann_0001', 'Bo_0002'),
        ('Bo_0001', 'Ann_0002'),
        ('Ann_0002', 'Ann_0003'),
        ('Bo_0002', 'Bo_0003'),
        ('Ann_0003', 'Cy_0001'),
        ('Cy_0001', 'Bo_0003'),
    ]
    assert pairs.same.tolist() == [True, True, False, False] * 2
    assert pairs.fold.tolist() == [0] * 4 + [1] * 4
    assert len(set(pairs.images)) == len(pairs.images) == 7
    assert pairs.classes == ['Ann', 'Bo', 'Cy']
    assert [pairs.classes[label] for label in pairs.labels] == [
        image.parent.name for image in pairs.images
    ]
    assert pairs.notes == []


def test_one_set_and_other_separators(tmp_path: Path) -> None:
    path = lfw(tmp_path, '1\r\nAnn   1  2\r\nAnn 2 Bo 1\r\n\r\n', Ann=2, Bo=1)
    pairs = read_lfw_pairs(path, tmp_path)
    assert names(pairs) == [('Ann_0001', 'Ann_0002'), ('Ann_0002', 'Bo_0001')]
    assert (pairs.same.tolist(), pairs.fold.tolist()) == ([True, False], [0, 0])


def test_names_with_spaces_and_accents(tmp_path: Path) -> None:
    path = lfw(
        tmp_path,
        '\ufeff1\t1\nAnn Lee\t1\t2\nAnn Lee\t2\tJosé Å\t1\n',
        **{'Ann Lee': 2, 'José Å': 1},
    )
    assert names(read_lfw_pairs(path, tmp_path)) == [
        ('Ann Lee_0001', 'Ann Lee_0002'),
        ('Ann Lee_0002', 'José Å_0001'),
    ]


@pytest.mark.parametrize(
    'ending',
    [
        *('.jpg', '.jpeg', '.png', '.bmp', '.pgm', '.ppm', '.webp', '.tif', '.gif', '.jfif'),
        *('.JPG', '.Jpeg', '.PNG', '.WebP', '.TIFF'),
    ],
)
def test_suffixes_of_images(tmp_path: Path, ending: str) -> None:
    path = lfw(tmp_path, '1\nAnn\t1\t2\nAnn\t2\tBo\t1\n', Ann=1, Bo=1)
    (tmp_path / 'Ann' / f'Ann_0002{ending}').touch()
    pairs = read_lfw_pairs(path, tmp_path)
    assert [image.suffix for image in pairs.images] == ['.jpg', ending, '.jpg']


@pytest.mark.parametrize('stem', ['Ann_1', 'Ann_01', 'Ann_001', 'Ann_00001'])
def test_other_paddings_of_the_number(tmp_path: Path, stem: str) -> None:
    path = lfw(tmp_path, '1\nAnn\t1\t2\nAnn\t1\tBo\t1\n', Bo=1)
    (tmp_path / 'Ann').mkdir()
    for file in (f'{stem}.JPG', 'Ann_0002.png', 'Ann_10.jpg', 'Anna_1.jpg', 'Ann_1x.jpg', '1.jpg'):
        (tmp_path / 'Ann' / file).touch()
    pairs = read_lfw_pairs(path, tmp_path)
    assert [image.name for image in pairs.images] == [f'{stem}.JPG', 'Ann_0002.png', 'Bo_0001.jpg']
    assert pairs.notes == []


def test_images_with_several_files_are_named(tmp_path: Path) -> None:
    path = lfw(tmp_path, '1\nAnn\t1\t2\nAnn\t1\tBo\t1\n', Ann=2, Bo=1)
    for file in ('Ann_0001.JPEG', 'Ann_1.jpg', 'Ann_0001.png', 'Ann_0001.txt', 'Ann_0001.heic'):
        (tmp_path / 'Ann' / file).touch()
    (tmp_path / 'Bo' / 'Bo_0001.PNG').touch()
    (tmp_path / 'Bo' / 'Bo_0001.jpg').unlink()
    pairs = read_lfw_pairs(path, tmp_path)
    assert [image.name for image in pairs.images] == ['Ann_0001.jpg', 'Ann_0002.jpg', 'Bo_0001.PNG']
    assert pairs.notes == [
        '1 images have several files, of which the first is taken (Ann/Ann_0001.jpg or '
        'Ann/Ann_0001.JPEG or Ann/Ann_0001.png or Ann/Ann_1.jpg)'
    ]
    png = read_lfw_pairs(path, tmp_path, 'drop', extensions=('.PNG', '.jpg'))
    assert [image.name for image in png.images] == ['Ann_0001.png', 'Ann_0002.jpg', 'Bo_0001.PNG']


def test_images_of_an_unread_format_are_named(tmp_path: Path) -> None:
    path = lfw(tmp_path, '1\nAnn\t1\t2\nAnn\t1\tBo\t1\n', Ann=2)
    (tmp_path / 'Bo').mkdir()
    (tmp_path / 'Bo' / 'Bo_0001.HEIC').touch()
    with pytest.raises(
        PairsError,
        match='1 of 2 pairs name absent files, 1 of 3: .*; 1 of these files are there, as images '
        r'of a format that is not read: .*Bo_0001\.HEIC',
    ):
        read_lfw_pairs(path, tmp_path)
    assert read_lfw_pairs(path, tmp_path, absent='drop').same.tolist() == [True]
    (tmp_path / 'a.csv').write_text('Ann/Ann_0001.jpg,Bo/Bo_0001.HEIC,1\n')
    with pytest.raises(PairsError, match='1 of these files are there, as images of a format'):
        read_table_pairs(tmp_path / 'a.csv', tmp_path, folds=1)


def test_absent_files_are_counted(tmp_path: Path) -> None:
    path = lfw(tmp_path, TEXT, Ann=2, Bo=3, Cy=1)  # Ann_0003 is absent: 3 pairs
    what = r'3 of 8 pairs name absent files, 1 of 7: .*Ann_0003.jpg'
    with pytest.raises(PairsError, match=rf"pairs.txt: {what}.*absent='drop'"):
        read_lfw_pairs(path, tmp_path)
    pairs = read_lfw_pairs(path, tmp_path, absent='drop')
    assert names(pairs) == [
        ('Bo_0001', 'Bo_0002'),
        ('Ann_0001', 'Bo_0002'),
        ('Bo_0001', 'Ann_0002'),
        ('Bo_0002', 'Bo_0003'),
        ('Cy_0001', 'Bo_0003'),
    ]
    assert pairs.fold.tolist() == [0, 0, 0, 1, 1]
    assert len(pairs.notes) == 1 and pairs.notes[0].startswith('dropped: ')
    for file in tmp_path.rglob('*.jpg'):
        file.unlink()
    with pytest.raises(
        PairsError, match='8 of 8 pairs name absent .* and 4 more. Check the folder of images$'
    ):
        read_lfw_pairs(path, tmp_path, absent='drop')


def test_folds_that_lose_all_pairs_are_noted(tmp_path: Path) -> None:
    path = lfw(tmp_path, '2\t1\nAnn\t1\t9\nAnn\t1\tAnn\t9\nBo\t1\t2\nBo\t1\tAnn\t1\n', Ann=1, Bo=2)
    pairs = read_lfw_pairs(path, tmp_path, absent='drop')
    assert pairs.fold.tolist() == [0, 0]
    assert '1 folds have no pairs left; the others are numbered anew' in pairs.notes


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', "must begin with 'sets<TAB>pairs'.*it begins with ''"),
        ('Ann\t1\t2\n', "must begin with .*it begins with 'Ann"),
        ('0\t3\n', 'must begin with'),
        ('1\t2\nAnn\t1\t2\n', r'has 1 pairs; its first line announces 1 x 2 x 2 = 4'),
        ('1\nAnn\t1\t2\nAnn\t1\n', 'line 3: expected'),
        ('1\nAnn\t1\tx\nAnn\t1\tBo\t1\n', 'line 2: expected'),
        ('1\nAnn\t1\t2\nAnn\t0\tBo\t1\n', 'line 3: image 0; they count from 1'),
    ],
)
def test_wrong_lists(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PairsError, match=message):
        read_lfw_pairs(lfw(tmp_path, text, Ann=3, Bo=1), tmp_path)


def test_absent_lists_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='list of pairs .*pairs.txt'):
        read_lfw_pairs(tmp_path / 'pairs.txt', tmp_path)
    path = lfw(tmp_path, TEXT)
    with pytest.raises(FileNotFoundError, match='folder of images .*faces'):
        read_lfw_pairs(path, tmp_path / 'faces')
    with pytest.raises(PairsError, match="absent must be 'error' or 'drop', got 'skip'"):
        read_lfw_pairs(path, tmp_path, absent='skip')
    path.write_bytes(b'10\t300\nJos\xe9\t1\t2\n')
    with pytest.raises(PairsError, match='no text in UTF-8'):
        read_lfw_pairs(path, tmp_path)


def test_odd_pairs_are_kept_and_noted(tmp_path: Path) -> None:
    path = lfw(
        tmp_path,
        '1\t3\nAnn\t1\t1\nAnn\t1\t2\nAnn\t2\t1\nAnn\t1\tBo\t1\nBo\t1\tAnn\t1\nBo\t1\t1\n',
        Ann=2,
        Bo=1,
    )
    pairs = read_lfw_pairs(path, tmp_path)
    assert len(pairs.same) == 6
    assert pairs.notes == [
        '2 pairs of an image with itself (line 2, line 7)',
        '2 pairs that stand there before (line 4, line 6)',
        '1 of 1 sets have not as many pairs of one person as of two (set 1 first)',
    ]


def test_tables(tmp_path: Path) -> None:
    for k in range(4):
        (tmp_path / f'{k}.png').touch()
    path = tmp_path / 'pairs.csv'
    path.write_text(
        'path1,path2,same\n0.png, 1.png,1\n"2.png",3.png,FALSE\n1.png,3.png,true\n0.png,2.png,0\n'
    )
    pairs = read_table_pairs(path, tmp_path, folds=2)
    assert pairs.index.tolist() == [[0, 1], [2, 3], [1, 3], [0, 2]]
    assert [image.name for image in pairs.images] == ['0.png', '1.png', '2.png', '3.png']
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]  # each fold has both kinds
    assert pairs.labels.tolist() == [-1] * 4 and pairs.classes == []
    for first, second in (('4', '7'), ('4.0', '7.0'), ('0', '1')):
        path.write_text(f'0.png\t1.png\t1\t{first}\n2.png\t3.png\t0\t{second}\n')
        assert read_table_pairs(path, tmp_path).fold.tolist() == [0, 1]
    with pytest.raises(PairsError, match='1 pairs cannot be dealt to 10 folds.*Set folds to 1..1'):
        path.write_text('0.png,1.png,1\n')
        read_table_pairs(path, tmp_path)


@pytest.mark.parametrize(
    ('yes', 'no'),
    [('1', '0'), ('true', 'FALSE'), ('Yes', 'no'), ('1.0', '0.0'), (' 1 ', '0.'), ('t', 'f')],
)
@pytest.mark.parametrize('separator', [',', '\t'])
def test_flags_of_a_table(tmp_path: Path, yes: str, no: str, separator: str) -> None:
    for k in range(3):
        (tmp_path / f'{k}.png').touch()
    rows = [('path1', 'path2', 'Same'), ('0.png', '1.png', yes), ('1.png', '2.png', no)]
    (tmp_path / 'a.csv').write_text('\n'.join(map(separator.join, rows)))
    pairs = read_table_pairs(tmp_path / 'a.csv', tmp_path, folds=1)
    assert pairs.same.tolist() == [True, False]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'has no pairs'),
        ('path1,path2,same\n', 'has no pairs'),
        ('0.png,1.png\n', 'line 1: expected'),
        ('0.png,1.png,2\n', 'line 1: expected'),
        ('0.png,1.png,1\n0.png,1.png,-1\n', 'line 2: expected'),
        ('0.png,1.png,maybe\n', 'line 1: expected .*maybe'),
        ('0.png,1.png,\n', 'line 1: expected'),
        ('0.png,1.png,nan\n', 'line 1: expected'),
        ('0.png,1.png,1,0\n0.png,1.png,1\n', 'line 2: expected'),
        ('0.png,1.png,1,-1\n', 'line 1: expected'),
        ('0.png,1.png,1,0.5\n', 'line 1: expected'),
        ('0.png,1.png,1,nan\n', 'line 1: expected'),
        ('0.png,1.png,1,inf\n', 'line 1: expected'),
        ('0.png,1.png,1,x\n', 'line 1: expected'),
        ('0.png,9.png,1\n', '1 of 1 pairs name absent files, 1 of 2: .*9.png'),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    for k in range(2):
        (tmp_path / f'{k}.png').touch()
    (tmp_path / 'a.csv').write_text(text)
    with pytest.raises(PairsError, match=message):
        read_table_pairs(tmp_path / 'a.csv', tmp_path, folds=1)


@pytest.mark.parametrize(('count', 'folds'), [(10, 10), (6000, 10), (7000, 10), (23, 10), (5, 1)])
def test_folds_equal_those_of_scikit_learn(count: int, folds: int) -> None:
    expected = np.zeros(count, int)
    if folds > 1:
        for number, (_, test) in enumerate(KFold(folds, shuffle=False).split(np.zeros(count))):
            expected[test] = number
    np.testing.assert_array_equal(consecutive_folds(count, folds), expected)


def bin_file(folder: Path, content: Any, protocol: int = 4) -> Path:
    (folder / 'lfw.bin').write_bytes(pickle.dumps(content, protocol))
    return folder / 'lfw.bin'


@pytest.mark.parametrize('protocol', [0, 2, 5])
@pytest.mark.parametrize(
    'kind',
    [
        bytes,
        bytearray,
        lambda data: np.frombuffer(data, np.uint8),
        lambda data: np.frombuffer(data, np.uint8)[:, None],
    ],
)
def test_bin(tmp_path: Path, kind: Any, protocol: int) -> None:
    encoded = [b'aa', b'b', b'ccc', b'aa', b'b', b'd\xff\x00']
    path = bin_file(tmp_path, ([kind(one) for one in encoded], [True, False, True]), protocol)
    pairs = read_bin_pairs(path, folds=2)
    assert pairs.images == [b'aa', b'b', b'ccc', b'd\xff\x00']
    assert pairs.index.tolist() == [[0, 1], [2, 0], [1, 3]]
    assert pairs.same.tolist() == [True, False, True]
    assert pairs.fold.tolist() == [0, 0, 1]
    assert pairs.labels.tolist() == [-1] * 4
    assert pairs.notes == ['6 images, 4 of them distinct: equal ones are taken once']


def test_bin_with_bools_in_an_array(tmp_path: Path) -> None:
    path = bin_file(tmp_path, [[b'a', b'b', b'c', b'd'], np.array([True, False])])
    assert read_bin_pairs(path, 2).same.tolist() == [True, False]
    path = bin_file(tmp_path, [[b'a', b'b', b'c', b'd'], np.array([1, 0])])
    assert read_bin_pairs(path, 2).same.tolist() == [True, False]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    'flags',
    [
        [True, False, True],
        (1, 0, 1),
        [1.0, 0.0, 1.0],
        [True, 0, 1.0],
        [np.bool_(True), np.bool_(False), np.bool_(True)],
        [np.int64(1), np.uint8(0), np.float32(1)],
        np.array([True, False, True]),
        np.array([1, 0, 1], np.int8),
        np.array([1.0, 0.0, 1.0]),
        np.array([[1], [0], [1]], np.float32),
        [np.array([1]), np.array(0), np.array([[1.0]])],
    ],
    ids=repr,
)
def test_flags_of_a_bin(tmp_path: Path, flags: Any, protocol: int) -> None:
    path = bin_file(tmp_path, ([b'a', b'b', b'c', b'd', b'e', b'f'], flags), protocol)
    assert read_bin_pairs(path, 1).same.tolist() == [True, False, True]


def test_odd_pairs_of_a_bin(tmp_path: Path) -> None:
    path = bin_file(
        tmp_path, ([b'a', b'a', b'b', b'b', b'a', b'b', b'b', b'a'], [True, False, True, False])
    )
    assert read_bin_pairs(path, 1).notes == [
        '8 images, 2 of them distinct: equal ones are taken once',
        '1 pairs of an image with itself (pair 0)',
        '1 pairs of an image with itself that are to be two persons (pair 1)',
        '1 pairs that stand there before (pair 3)',
        '1 pairs that stand there before as the opposite (pair 3)',
    ]
    path = bin_file(tmp_path, ([b'a', b'b'], [True]))
    assert read_bin_pairs(path, 1).notes == ['all pairs are of one person']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (([b'a', b'b'], [True, False]), 'has 2 images and 2 pairs: a pair needs two images'),
        (([b'a', b'b', b'c'], [True]), 'has 3 images and 1 pairs'),
        (([], []), 'has 0 images and 0 pairs'),
        ([b'a', b'b', b'c'], 'it holds a list of 3'),
        (b'ab', 'it holds a bytes of 2'),
        ((b'ab', [True]), 'one is a bytes of 2'),
        (([b'a', True], [True]), 'image 1 must be the bytes of an encoded image, it is a bool'),
        (([b'a', b''], [True]), 'image 1 must be .* it is a bytes of 0'),
        (([b'a', np.zeros((4, 4), np.uint8)], [True]), 'image 1 must be .* it is a ndarray'),
        (([b'a', b'b'], [b'yes']), 'pair 0 must be true or false, it is a bytes of 3'),
        (([b'a', b'b'], [b'1']), 'pair 0 must be true or false, it is a bytes of 1'),
        (([b'a', b'b'] * 2, [1, 2]), 'pair 1 must be true or false, it is the number 2'),
        (([b'a', b'b'] * 2, [1, -1]), 'pair 1 must be .*the number -1. Of numbers, 1 and 0 are'),
        (([b'a', b'b'], [0.5]), 'pair 0 must be true or false, it is the number 0.5'),
        (([b'a', b'b'], [float('nan')]), 'pair 0 must be true or false, it is the number nan'),
        (([b'a', b'b'], [np.array([1, 0])]), 'pair 0 must be true or false, it is a ndarray'),
        (([b'a', b'b'], np.array(1)), 'two lists, images and bools; one is a ndarray'),
        (([b'a', 7], [True]), 'image 1 must be .* it is the number 7'),
        (([b'a', b'b'], [True]), '1 pairs cannot be dealt to 10 folds'),
    ],
)
def test_wrong_bins(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(PairsError, match=message):
        read_bin_pairs(bin_file(tmp_path, content))


def test_hostile_cut_and_absent_bins(tmp_path: Path) -> None:
    path = tmp_path / 'lfw.bin'
    with pytest.raises(FileNotFoundError, match='lfw.bin'):
        read_bin_pairs(path)
    path.write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UnsafePickleError, match="lfw.bin was refused: it names 'posix.system'"):
        read_bin_pairs(path)
    path.write_bytes(pickle.dumps(([b'a' * 99, b'b' * 99], [True]), 4)[:-60])
    with pytest.raises(PairsError, match='lfw.bin cannot be read as a pickle.*whole'):
        read_bin_pairs(path)
