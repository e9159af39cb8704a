"""Tests of the choice of images by name, and of names for files made from them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmdet_ext.data.coco.image_names import choose_images, image_names

PATHS = ['/d/cam1/0001.jpg', '/d/cam2/0001.jpg', '/d/cam2/1.v2.jpg', '/d/b/cam2/7.jpg', '/d/3.png']


@pytest.mark.parametrize(
    ('name', 'index'),
    [
        ('0', 0),
        ('4', 4),  # numbers
        ('cam2/0001.jpg', 1),
        ('cam1/0001', 0),
        ('/d/cam1/0001.jpg', 0),
        ('./cam1//0001.jpg', 0),
        ('1.v2.jpg', 2),
        ('1.v2', 2),
        ('b/cam2/7.jpg', 3),
        ('7', 3),
        ('3.png', 4),
    ],
)
def test_an_image_is_found_by_number_path_or_end_of_path(name: str, index: int) -> None:
    assert choose_images(PATHS, [name]) == [index]


@pytest.mark.parametrize(
    'name',
    [
        '5',
        '-1',
        '²',
        '٣',
        '00',
        '01.jpg',
        'am2/0001.jpg',
        '1',
        '1.v',
        'cam3/0001.jpg',
        '0001.png',
        '/elsewhere/7.jpg',
        '/7.jpg',
        '/cam1/0001.jpg',
    ],
)
def test_a_name_of_no_image_is_refused(name: str) -> None:
    paths = PATHS if name != '1' else PATHS[1:2]  # a single image has the number 0 alone
    with pytest.raises(ValueError, match='neither a number below'):
        choose_images(paths, [name])


@pytest.mark.parametrize('name', ['0001.jpg', '0001'])
def test_a_name_of_several_images_lists_them(name: str) -> None:
    """Take '0001' as a name, not as the number 1."""
    with pytest.raises(ValueError, match=f'{name} is the name of 2 .*: {PATHS[0]}, {PATHS[1]}$'):
        choose_images(PATHS, [name])
    with pytest.raises(ValueError, match=r'of 6 images.*/4/a.jpg, \.\.\.$'):
        choose_images([f'/{folder}/a.jpg' for folder in range(6)], ['a.jpg'])


def test_order_is_kept_and_each_image_chosen_once() -> None:
    assert choose_images(PATHS, ['3', '7.jpg', '0', '3.png', '0']) == [3, 0, 4]
    assert choose_images(PATHS, []) == []


def test_a_relative_path_is_taken_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefer an exact path to other paths with the same end."""
    monkeypatch.chdir(tmp_path)
    paths = ['x/cam/1.jpg', 'cam/1.jpg']
    assert choose_images(paths, ['cam/1.jpg']) == [1]
    assert choose_images(paths, [os.path.abspath('x/cam/1.jpg')]) == [0]


def test_names_are_short_and_unique() -> None:
    assert image_names(PATHS, [1, 4, 2]) == {1: 'cam2_0001', 4: '3', 2: '1.v2'}
    # A name is unique among all images, whether the others are chosen or not.
    assert image_names(PATHS, [0]) == {0: 'cam1_0001'}
    assert image_names(['/a/1.jpg', '/a/1.png', '/a/2.jpg'], [0, 1, 2]) == {
        0: '1_0',
        1: '1_1',
        2: '2',
    }
    assert image_names(['/x/cam/1.jpg', '/cam/1.jpg'], [0, 1]) == {0: 'x_cam_1', 1: 'cam_1'}
    assert image_names(['/a/b_1.jpg', '/a/b/1.jpg', '/c/1.jpg'], [0, 1, 2]) == {
        0: 'b_1',
        1: '1_1',
        2: 'c_1',
    }
    assert image_names(['/a/1.jpg', '/a/1.png', '/a/1_0.jpg'], [0, 1, 2]) == {
        0: '1_0_',
        1: '1_1',
        2: '1_0',
    }
    # A repeated path is one image.
    assert image_names(['/a/1.jpg', '/a/1.jpg'], [0]) == {0: '1'}
    assert image_names([], []) == {}
