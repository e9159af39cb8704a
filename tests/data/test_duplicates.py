"""Tests of files of equal content: all groups are found, and few files are read whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmdet_ext.data import duplicates
from mmdet_ext.data.duplicates import find_equal_files, find_shared_files

LONG = bytes(range(256)) * 64  # 16 KB, more than the part at the end that is compared


def written(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_files_of_equal_content_form_groups_in_the_order_of_the_paths(tmp_path: Path) -> None:
    z, a, b, other, y, x, _ = written(
        tmp_path,
        {
            'z': LONG,
            'a': b'short',
            'b': LONG,
            'c': b'x' + LONG[1:],  # of the same length and end
            'y': b'short',
            'sub/z': LONG,
            'd': LONG + b'\0',
        },
    )
    found = find_equal_files([z, a, b, other, y, x])
    assert found == [[z, b, x], [a, y]]
    assert find_equal_files([y, x, a, z]) == [[y, a], [x, z]]


def test_a_repeated_path_is_one_file_and_links_are_equal_files(tmp_path: Path) -> None:
    (a,) = written(tmp_path, {'a': b'x'})
    assert find_equal_files([a, str(a), a]) == []
    os.link(a, tmp_path / 'hard')
    (tmp_path / 'soft').symlink_to(a)
    assert find_equal_files([a, tmp_path / 'hard', tmp_path / 'soft']) == [
        [a, tmp_path / 'hard', tmp_path / 'soft']
    ]


def test_absent_and_empty_files_and_folders_are_equal_to_none(tmp_path: Path) -> None:
    a, b = written(tmp_path, {'a': b'', 'b': b''})
    absent = [tmp_path / 'no', tmp_path / 'none']
    assert find_equal_files([a, b, *absent, tmp_path]) == []


def test_only_files_of_one_size_and_end_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = written(
        tmp_path,
        {'a': LONG, 'b': LONG[:-1] + b'x', 'c': LONG + b'x', 'd': b'x' + LONG[1:], 'e': b'e'},
    )
    read: list[str] = []
    digest = duplicates._digest
    monkeypatch.setattr(duplicates, '_digest', lambda path: (read.append(path.name), digest(path)))
    assert find_equal_files(paths) == []
    assert read == ['a', 'd']


def test_files_of_a_set_that_are_in_another_are_paired(tmp_path: Path) -> None:
    a, b, c, d, e = written(
        tmp_path, {'a': b'one', 'b': b'two', 'c': b'two', 'd': b'six', 'e': b'six'}
    )
    assert find_shared_files([a, b], [c, d, e, a]) == [(c, b), (a, a)]
    assert find_shared_files([d], [e, d]) == [(e, d), (d, d)]
    assert find_shared_files([], [a]) == [] == find_shared_files([a], [])
