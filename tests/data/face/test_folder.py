"""Folders and lists of faces: images found, their order, and those left out or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdet_ext.data.face.folder import (
    list_faces,
    natural_key,
    read_list,
    split_identities,
    split_images,
)
from mmdet_ext.data.reports import LayoutError

NAMES = [f'id{i}' for i in range(37)]


def image(path: Path, mode: str = 'RGB', **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write 3 identities of 3, 2 and 1 images, whose natural order is not that of text."""
    for name, images in {'s10': (1,), 's2': (10, 9), 's1': (1, 2, 11)}.items():
        for number in images:
            image(tmp_path / 'faces' / name / f'{number}.png')
    return tmp_path / 'faces'


def listing(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / 'list.txt'
    path.write_text('\n'.join(lines), encoding='utf-8')
    return path


def short(paths: list[str]) -> list[str]:
    return ['/'.join(Path(path).parts[-2:]) for path in paths]


def test_folders_and_files_are_in_natural_order(root: Path) -> None:
    faces = list_faces(root)
    assert faces.classes == ('s1', 's2', 's10')
    assert short(faces.paths) == [
        's1/1.png',
        's1/2.png',
        's1/11.png',
        's2/9.png',
        's2/10.png',
        's10/1.png',
    ]
    assert faces.labels == [0, 0, 0, 1, 1, 2]
    assert str(faces.oddities) == '1 identities of one image, which give no genuine pair (s10)'
    assert not faces.left_out


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['b', 'a10', 'a9', 'a'], ['a', 'a9', 'a10', 'b']),
        (['a1b2', 'a1b10', 'a01b3'], ['a1b2', 'a01b3', 'a1b10']),
        (['10', '9', 'x', '1'], ['1', '9', '10', 'x']),
        (['a01', 'a1', 'a001'], ['a001', 'a01', 'a1']),
    ],
)
def test_natural_order(names: list[str], expected: list[str]) -> None:
    assert sorted(names, key=natural_key) == expected


def test_other_files_are_counted(root: Path) -> None:
    (root / 's1' / '.DS_Store').touch()
    (root / 's1' / '._1.png').touch()
    (root / 's1' / 'notes.txt').touch()
    (root / 's2' / 'phone.HEIC').touch()
    (root / 's1' / 'more').mkdir()
    (root / 'empty').mkdir()
    (root / '.git').mkdir()
    (root / 'README').touch()
    faces = list_faces(root)
    assert len(faces.paths) == 6
    assert faces.classes == ('s1', 's2', 's10')
    report = str(faces.left_out)
    for part in (
        '3 hidden files and folders',
        '1 files beside the folders (README)',
        "1 files whose suffix is no image's (s1/notes.txt)",
        '1 images of a format that is not read (s2/phone.HEIC)',
        '1 folders within folders (s1/more)',
        '1 identities without an image (empty)',
    ):
        assert part in report
    assert report in str(faces)


def test_listed_images_of_an_unread_format_are_named(root: Path, tmp_path: Path) -> None:
    (root / 's2' / 'phone.HEIC').write_bytes(b'\0\0\0\x18ftypheic' + bytes(40))
    path = listing(tmp_path, 's1/1.png 0', 's2/phone.HEIC 1')
    report = r'1 images, of a format that is not read \(line 2: s2/phone\.HEIC\)'
    with pytest.raises(LayoutError, match=report):
        list_faces(root, ann_file=path)
    bare = listing(tmp_path, 's1/1.png', 's2/phone.HEIC')
    faces = list_faces(root, ann_file=bare, bad_images='drop')
    assert short(faces.paths) == ['s1/1.png']
    assert '1 images, of a format that is not read (line 2: s2/phone.HEIC)' in str(faces.left_out)


def test_odd_images_are_counted(root: Path) -> None:
    folder = root / 'odd'
    image(folder / 'grey.pgm', 'L')
    image(folder / 'cmyk.jpg', 'CMYK')
    image(folder / 'alpha.png', 'RGBA')
    Image.fromarray(np.full((12, 10), 60000, np.uint16)).save(folder / 'deep.png')
    frames = [Image.new('L', (10, 12), value) for value in (0, 200)]
    frames[0].save(folder / 'moving.gif', save_all=True, append_images=frames[1:])
    report = str(list_faces(root, identities=['odd']).oddities)
    for part in (
        '1 grey images (odd/grey.pgm)',
        '1 CMYK images (odd/cmyk.jpg)',
        '1 images with transparency (which is passed over) (odd/alpha.png)',
        '1 grey images of 16 bits (odd/deep.png)',
        '1 animated images, of which the first frame counts (odd/moving.gif)',
    ):
        assert part in report


def test_bad_images_raise_an_error_are_dropped_or_unchecked(root: Path) -> None:
    path = root / 's1' / '2.png'
    path.write_bytes(path.read_bytes()[:-30])
    Image.new('F', (4, 4)).save(root / 's2' / '9.tiff')
    with pytest.raises(LayoutError, match=r'2 of 7 images .*s1/2\.png.*s2/9\.tiff.*drop'):
        list_faces(root)
    dropped = list_faces(root, bad_images='drop')
    assert short(dropped.paths) == ['s1/1.png', 's1/11.png', 's2/9.png', 's2/10.png', 's10/1.png']
    assert '1 images, truncated PNG (no end marker) (s1/2.png)' in str(dropped.left_out)
    assert '1 images, floating-point pixels (s2/9.tiff)' in str(dropped.left_out)
    assert len(list_faces(root, bad_images='unchecked').paths) == 7
    with pytest.raises(ValueError, match="bad_images must be 'error', 'drop' or 'unchecked'"):
        list_faces(root, bad_images='skip')


def test_named_identity_whose_images_are_all_bad_is_an_error(root: Path) -> None:
    (root / 's10' / '1.png').write_bytes(b'')
    assert list_faces(root, bad_images='drop').classes == ('s1', 's2')
    with pytest.raises(LayoutError, match='1 of the identities asked for have no image.*s10'):
        list_faces(root, identities=['s10', 's1'], bad_images='drop')


def test_identities_with_fewer_images_than_the_minimum_are_left_out(root: Path) -> None:
    faces = list_faces(root, min_pictures=2)
    assert faces.classes == ('s1', 's2')
    assert str(faces.left_out) == '1 identities of fewer than 2 images (s10)'
    with pytest.raises(LayoutError, match='no image is left'):
        list_faces(root, min_pictures=4)
    with pytest.raises(ValueError, match='min_pictures must be at least 1, got 0'):
        list_faces(root, min_pictures=0)


def test_named_identities_fix_order_and_labels(root: Path) -> None:
    faces = list_faces(root, identities=['s10', 's1'])
    assert faces.classes == ('s10', 's1')
    assert faces.labels == [0, 1, 1, 1]
    (root / 'names.txt').write_text('\ufeffs10\r\n\r\ns1\r\n', encoding='utf-8')
    assert list_faces(root, identities='names.txt').labels == [0, 1, 1, 1]
    assert list_faces(root, identities=str(root / 'names.txt')).labels == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ('identities', 'message'),
    [
        (['s1', 's3', 's4'], r'2 of 3 identities are not in .*: s3, s4\. It has 3: s1, s2, s10'),
        (['s1', 's1'], 'names some twice: s1'),
        ('absent.txt', "identities 'absent.txt' cannot be read"),
    ],
)
def test_wrong_identities(root: Path, identities: list[str] | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list_faces(root, identities=identities)


@pytest.mark.parametrize('seed', range(5))
def test_parts_are_disjoint_complete_and_repeatable(seed: int) -> None:
    split = dict(val_fraction=0.2, test_fraction=0.3, seed=seed)
    parts = {part: split_identities(NAMES, part, **split) for part in ('train', 'val', 'test')}
    assert [len(parts[part]) for part in ('train', 'val', 'test')] == [19, 7, 11]
    assert sorted(sum(parts.values(), [])) == sorted(NAMES)
    # The parts do not depend on the order in which a file system lists names.
    assert set(split_identities(NAMES[::-1], 'val', **split)) == set(parts['val'])


def test_seeds_split_differently_and_small_shares_get_one_identity() -> None:
    assert len({tuple(split_identities(NAMES, 'val', seed=seed)) for seed in range(5)}) == 5
    assert len(split_identities(['a', 'b'], 'val', val_fraction=0.01)) == 1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(part='dev'), "part must be 'train', 'val' or 'test', got 'dev'"),
        (dict(part='test'), 'test_fraction is 0'),
        (dict(part='val', val_fraction=0.5, test_fraction=0.5), 'together below 1'),
        (dict(part='val', val_fraction=-0.1), 'at least 0'),
    ],
)
def test_wrong_splits(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_identities(NAMES, **options)
    with pytest.raises(LayoutError, match='1 identities are too few'):
        split_identities(['a'], 'train')


def test_identity_split_of_a_folder(root: Path) -> None:
    train, val = (
        list_faces(root, identity_split=dict(part=part, val_fraction=0.34))
        for part in ('train', 'val')
    )
    assert set(train.classes) | set(val.classes) == {'s1', 's2', 's10'}
    assert not set(train.paths) & set(val.paths)
    with pytest.raises(ValueError, match='both choose'):
        list_faces(root, identities=['s1'], identity_split=dict(part='train'))


def test_split_of_images_keeps_labels(root: Path) -> None:
    gallery = list_faces(root, picture_split=dict(part='first', count=1))
    probes = list_faces(root, picture_split=dict(part='rest', count=1))
    assert short(gallery.paths) == ['s1/1.png', 's2/9.png', 's10/1.png']
    assert short(probes.paths) == ['s1/2.png', 's1/11.png', 's2/10.png']
    assert (gallery.labels, probes.labels) == ([0, 1, 2], [0, 0, 1])
    assert gallery.classes == probes.classes
    with pytest.raises(ValueError, match="part must be 'first' or 'rest'"):
        split_images(['a'], 'last', 1)


def test_list_with_labels(root: Path, tmp_path: Path) -> None:
    path = listing(tmp_path, 's2/10.png 2', '', 's1/2.png\t0', 's10/1.png   2', 's2/10.png 2')
    faces = list_faces(root, ann_file=path)
    assert faces.classes == ('0', '1', '2')
    assert list(zip(short(faces.paths), faces.labels, strict=True)) == [
        ('s2/10.png', 2),
        ('s10/1.png', 2),
        ('s1/2.png', 0),
    ]
    assert '1 images listed twice, used once (line 5: s2/10.png)' in str(faces.oddities)
    assert 'numbering with gaps (without an image: labels 1)' in str(faces.oddities)
    named = list_faces(root, ann_file=path, class_names=['ann', 'bob', 'cy'], num_classes=3)
    assert named.classes == ('ann', 'bob', 'cy') and named.labels == faces.labels


def test_list_without_labels_and_with_blanks_in_paths(root: Path, tmp_path: Path) -> None:
    image(root / 'Ann Lee' / 'in the sun 2.JPG')
    path = listing(tmp_path, 's10/1.png', 'Ann Lee/in the sun 2.JPG', 's2/9.png')
    faces = list_faces(root, ann_file=path)
    assert faces.classes == ('Ann Lee', 's2', 's10')
    assert short(faces.paths) == ['Ann Lee/in the sun 2.JPG', 's2/9.png', 's10/1.png']
    assert list_faces(root, ann_file=path, identities=['s2']).labels == [0]
    path.write_text('Ann Lee/in the sun 2.JPG 3')
    assert read_list(path) == (['Ann Lee/in the sun 2.JPG'], [3], [1])


@pytest.mark.parametrize(
    ('lines', 'options', 'message'),
    [
        (
            ('s1/1.png 0', 's1/2.png one', 's2/9.png 1.5', 's2/9.png -1'),
            {},
            r"3 lines of .*whole number.*line 2: 's1/2.png one', line 3: .*, line 4: 's2/9.png -1'",
        ),
        (('s1/1.png 0', 's1/2.png'), {}, r'1 of 2 lines of .* have no label.*lines 2'),
        (
            ('s1/1.png 0', 's2/9.png 3'),
            dict(num_classes=3),
            r'1 labels of .* out of the range 0 \.\. 2: line 2: 3',
        ),
        (('s1/1.png 0', 's2/9.png 7654321'), {}, '2 different labels, but they go up to 7654321'),
        (('s1/1.png 0', 's1/1.png 1'), {}, "gives 's1/1.png' two labels, in lines 1 and 2"),
        (
            ('s1/1.png 0', 's1/8.png 1', 's1/9.png 1'),
            {},
            r'2 of 3 images .* cannot be used: 2 images, missing \(line 2: s1/8.png, line 3: s1/9',
        ),
        (('',), {}, 'lists no image'),
        (('s1/1.png 0',), dict(identities=['s1']), 'labels its images by number'),
        (('s1/1.png 0',), dict(class_names=['a', 'a']), '2 of them different|1 of them different'),
        (('s1/1.png',), dict(class_names=['a']), 'class_names .* read by names'),
        (('s1/1.png',), dict(num_classes=2), '1 images of 1 identities'),
    ],
)
def test_wrong_lists(
    root: Path, tmp_path: Path, lines: tuple[str, ...], options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        list_faces(root, ann_file=listing(tmp_path, *lines), **options)


def test_wrong_roots(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r'is not there; expected one folder per identity'):
        list_faces(tmp_path / 'absent')
    image(tmp_path / 'flat' / 'a.png')
    with pytest.raises(LayoutError, match=r'no folder in it. Found: 1 files beside.*a\.png'):
        list_faces(tmp_path / 'flat')
    with pytest.raises(LayoutError, match='is no folder'):
        list_faces(tmp_path / 'flat' / 'a.png')
    with pytest.raises(LayoutError, match="ann_file .*absent.txt' cannot be read"):
        list_faces(tmp_path, ann_file=tmp_path / 'absent.txt')


def test_orl(shared_data: Path) -> None:
    faces = list_faces(shared_data / 'orl', num_classes=40)
    assert faces.classes == tuple(f's{i}' for i in range(1, 41))
    assert faces.labels == [i // 10 for i in range(400)]
    assert short(faces.paths)[:10] == [f's1/{i}.pgm' for i in range(1, 11)]
    assert '400 grey images' in str(faces.oddities)
