"""Lists of templates: what is read, what is dropped with a count, and what is refused by line."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdet_ext.data.face.templates import FaceTemplates, TemplateTable, read_templates
from mmdet_ext.data.reports import LayoutError

IMAGES = ['1.jpg 7 100', '2.jpg 7 100', '3.jpg 9 101', '1.jpg 8 100', '4.jpg 9 -3']
PAIRS = ['7 9 0', '7 8 1']


def read(root: Path, images: Any = IMAGES, pairs: Any = PAIRS, **options: Any) -> FaceTemplates:
    """Write lists and the files 1.jpg to 4.jpg, and read them."""
    for number in range(1, 5):
        (root / f'{number}.jpg').touch()
    (root / 'images.txt').write_text('\n'.join(images))
    (root / 'pairs.txt').write_text('\n'.join(pairs) + '\n')
    if 'landmarks' in options:
        (root / 'points.txt').write_text('\n'.join(options.pop('landmarks')))
        options['landmark_list'] = root / 'points.txt'
    return read_templates(root / 'images.txt', root / 'pairs.txt', root, **options)


def test_images_stand_once_and_rows_name_them(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert [path.name for path in found.images] == ['1.jpg', '2.jpg', '3.jpg', '4.jpg']
    assert found.table['image'].tolist() == [0, 1, 2, 0, 3]
    assert found.table['template'].tolist() == [7, 7, 9, 8, 9]
    assert found.table['medium'].tolist() == [100, 100, 101, 100, -3]
    assert found.table['pairs'].tolist() == [[7, 9], [7, 8]]
    assert found.table['same'].tolist() == [False, True]
    assert 'score' not in found.table and found.landmarks is None and found.notes == []


def test_tabs_allow_blanks_in_names_and_a_fourth_column_is_the_score(tmp_path: Path) -> None:
    (tmp_path / 'a b.jpg').touch()
    found = read(tmp_path, ['a b.jpg\t1\t1\t0.5', '2.jpg\t2\t1\t1'], ['1 2 1', '2 1 0'])
    assert [path.name for path in found.images] == ['a b.jpg', '2.jpg']
    assert found.table['score'].tolist() == [0.5, 1]


def points(name: str, first: float = 1, score: str = '0.25') -> str:
    return f'{name} {" ".join(str(first + k) for k in range(10))} {score}'.strip()


def test_landmarks_and_scores_are_found_by_name(tmp_path: Path) -> None:
    lines = [points(f'{k}.jpg', 10 * k, f'0.{k}') for k in (4, 3, 9, 2, 1)]
    found = read(tmp_path, landmarks=lines)
    assert found.landmarks is not None and found.landmarks.dtype == np.float32
    assert found.landmarks[:, 0].tolist() == [[10 * k, 10 * k + 1] for k in (1, 2, 3, 4)]
    assert found.table['score'].tolist() == [0.1, 0.2, 0.3, 0.1, 0.4]
    bare = read(tmp_path, landmarks=[points(f'{k}.jpg', score='') for k in (1, 2, 3, 4)])
    assert 'score' not in bare.table and bare.landmarks is not None


def test_absent_images_are_an_error_or_dropped_with_a_count(tmp_path: Path) -> None:
    images = ['gone.jpg 7 1', '2.jpg 7 1', 'lost.jpg 9 1', '1.jpg 8 1', '4.jpg 8 1']
    with pytest.raises(LayoutError, match=r'2 of 5 images are absent.*gone.*lost.*absent=.drop.'):
        read(tmp_path, images)
    found = read(tmp_path, images, absent='drop')
    assert [path.name for path in found.images] == ['2.jpg', '1.jpg', '4.jpg']
    assert found.table['image'].tolist() == [0, 1, 2]
    assert found.table['template'].tolist() == [7, 8, 8]
    assert found.table['pairs'].tolist() == [[7, 8]]
    assert '2 of 5 images' in found.notes[0] and 'with them 1 of 2 pairs' in found.notes[0]
    assert found.notes[1] == 'all pairs are of one person'
    with pytest.raises(LayoutError, match='1 of 1 images are absent'):
        read(tmp_path, ['no.jpg 7 1'], ['7 7 1'], absent='drop')


def test_odd_lines_are_counted_and_kept_once(tmp_path: Path) -> None:
    found = read(tmp_path, [*IMAGES, IMAGES[1]], [*PAIRS, '9 7 0', '8 7 0', '7 7 1'])
    assert len(found.table['image']) == 5 and len(found.table['same']) == 5
    assert '1 lines of ' in found.notes[0] and 'used once (lines 6)' in found.notes[0]
    assert found.notes[1:] == [
        '1 pairs of a template with itself',
        '2 pairs that stand there before',
        '1 pairs that stand there before as the opposite',
    ]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(images=['1.jpg 7']), "line 1: expected 'image template medium'"),
        (dict(images=['1.jpg 7 1', '2.jpg 7 1 0.5']), 'line 2: expected'),
        (dict(images=['1.jpg 7 x']), 'line 1: expected'),
        (dict(images=['1.jpg 7 1 -0.5']), 'line 1: expected'),
        (dict(images=['1.jpg 7 1 nan']), 'line 1: expected'),
        (dict(images=['1.jpg 7 1', '1.jpg 7 2']), 'line 2: .*in another medium, 1'),
        (dict(images=['']), 'is empty'),
        (dict(pairs=['7 6 1', '5 7 0']), '2 templates of pairs have no image .*templates 5, 6'),
        (dict(pairs=['7 9 2']), '1 labels are neither 1 .*: pairs 1'),
        (dict(pairs=['7 9 0', '7 9']), "pairs.txt: expected 'template template label'"),
        (dict(pairs=['7 x 0']), "could not convert string 'x'"),
        (dict(pairs=['7 9']), 'got a table of'),
        (dict(pairs=['']), 'got a table of'),
        (dict(landmarks=[points('1.jpg')]), '3 of 4 images have no landmarks: 2.jpg, 3.jpg'),
        (dict(landmarks=['1.jpg 1 2']), "line 1: expected 'image x y x y"),
        (dict(landmarks=[points('1.jpg', score='x')]), "line 1: expected 'image x y x y"),
        (dict(landmarks=[points(f'{k}.jpg', score='-1') for k in range(1, 5)]), '4 scores are be'),
        (
            dict(
                images=['1.jpg 7 1 1', '2.jpg 9 1 1', '3.jpg 8 1 1'],
                landmarks=[points(f'{k}.jpg') for k in range(1, 5)],
            ),
            'both .* have scores',
        ),
        (dict(absent='skip'), "absent must be 'error' or 'drop', got 'skip'"),
    ],
    ids=repr,
)
def test_wrong_lists_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        read(tmp_path, **change)


def test_an_absent_list_is_named(tmp_path: Path) -> None:
    read(tmp_path)
    for name in ('images.txt', 'pairs.txt'):
        lists = [
            tmp_path / (f'no_{one}' if one == name else one) for one in ('images.txt', 'pairs.txt')
        ]
        with pytest.raises(LayoutError, match=f'no_{name}'):
            read_templates(*lists, tmp_path)


def test_copies_of_a_table_share_arrays_that_cannot_be_changed(tmp_path: Path) -> None:
    table = read(tmp_path).table
    assert copy.deepcopy(table)['pairs'] is table['pairs']
    with pytest.raises(ValueError, match='read-only'):
        table['pairs'][0] = 1
    assert table == read(tmp_path).table
    assert table != TemplateTable([0, 1, 2, 0, 3], [7, 7, 9, 8, 9], [1] * 5, PAIRS, [1, 0])
    plain = pickle.loads(pickle.dumps(table))
    assert type(plain) is dict and table == plain
    assert repr(table) == 'TemplateTable(5 rows, 2 pairs)'
