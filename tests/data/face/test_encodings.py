"""Lists of faces in the encodings that people's programs write: Unicode of any form, and GBK."""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdet_ext.data.face.folder import list_faces
from mmdet_ext.data.face.pairs import PairsError, read_lfw_pairs, read_table_pairs
from mmdet_ext.data.reports import LayoutError

NAMES = ('王小明', '李雷')
ENCODINGS = ('utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'gbk', 'big5')


def write(path: Path, text: str, encoding: str) -> Path:
    data = text.encode(encoding.replace('utf-16-be-mark', 'utf-16-be'))
    path.write_bytes((codecs.BOM_UTF16_BE if encoding == 'utf-16-be-mark' else b'') + data)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).mkdir()
        for number in (1, 2):
            pixels = np.random.default_rng(number).integers(0, 255, (9, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f'{name}_{number:04d}.png')
    return tmp_path


every_encoding = pytest.mark.parametrize(
    'encoding', [*ENCODINGS, 'utf-16-be-mark', 'gb18030', 'shift_jis']
)


def names_of(encoding: str) -> tuple[str, str]:
    """Return names that the encoding has."""
    return ('王小明', '山田') if encoding in ('big5', 'shift_jis') else NAMES


def renamed(root: Path, encoding: str) -> tuple[str, str]:
    """Rename the folders and images to names that the encoding has."""
    names = names_of(encoding)
    for old, new in zip(NAMES, names, strict=True):
        if old != new:
            (root / old).rename(root / new)
            for image in (root / new).iterdir():
                image.rename(image.with_name(image.name.replace(old, new)))
    return names


@every_encoding
@pytest.mark.parametrize('end', ['\n', '\r\n'], ids=repr)
def test_lists_of_pairs(root: Path, encoding: str, end: str) -> None:
    one, two = renamed(root, encoding)
    lines = ['1\t1', f'{one}\t1\t2', f'{one}\t1\t{two}\t2', '']
    path = write(root / 'pairs.txt', end.join(lines), encoding)
    pairs = read_lfw_pairs(path, root)
    assert pairs.classes == sorted((one, two))
    assert [image.stem for image in pairs.images] == [f'{one}_0001', f'{one}_0002', f'{two}_0002']
    rows = [f'{one}/{one}_0001.png,{two}/{two}_0001.png,0', f'{one}/{one}_0001.png,']
    rows[1] += f'{one}/{one}_0002.png,1'
    table = read_table_pairs(write(root / 'a.csv', end.join(rows), encoding), root, folds=1)
    assert [image.stem for image in table.images] == [f'{one}_0001', f'{two}_0001', f'{one}_0002']
    assert table.same.tolist() == [False, True]


@every_encoding
def test_lists_of_images_and_identities(root: Path, encoding: str) -> None:
    one, two = renamed(root, encoding)
    files = [f'{name}/{name}_{number:04d}.png' for name in (two, one) for number in (1, 2)]
    labelled = [f'{file}\t{k // 2}' for k, file in enumerate(files)]
    faces = list_faces(root, ann_file=write(root / 'a.txt', '\n'.join(labelled), encoding))
    assert [str(Path(path).relative_to(root)) for path in faces.paths] == files
    assert faces.labels == [0, 0, 1, 1]
    plain = list_faces(root, ann_file=write(root / 'b.txt', '\r\n'.join(files), encoding))
    assert set(plain.classes) == {one, two} and len(plain.paths) == 4
    write(root / 'ids.txt', f'{two}\n', encoding)
    assert list_faces(root, identities='ids.txt').classes == (two,)


def test_text_in_no_encoding_of_its_names_is_refused(root: Path) -> None:
    path = write(root / 'pairs.txt', '1\t1\n张三\t1\t2\n张三\t1\t李雷\t2\n', 'gbk')
    for name in NAMES:
        (root / name).rename(root / f'x{name}')
    with pytest.raises(PairsError, match=r'pairs\.txt is no text in UTF-8 .*gb18030.*as UTF-8'):
        read_lfw_pairs(path, root)
    with pytest.raises(
        LayoutError, match=r"ann_file .*pairs\.txt' cannot be read as text: .*UTF-8"
    ):
        list_faces(root, ann_file=path)
