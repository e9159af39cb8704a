"""Images that CocoDataset leaves out, counts and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import init_default_scope

from tests._helpers.coco_data import cut, edit, image_path, ours, samples, stock


def test_a_truncated_image_is_left_out_in_training(data: Path, warned: list[str]) -> None:
    cut(image_path(data, 3))
    init_default_scope('mmdet')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(96, 72)),
        dict(type='PackDetInputs'),
    ]
    found = ours(data, pipeline=pipeline)
    expected = [sample for sample in samples(stock(data)) if '000003' not in sample['img_path']]
    assert samples(found) == [
        {**sample, 'sample_idx': index} for index, sample in enumerate(expected)
    ]
    assert len(found) == 7
    (message,) = warned
    assert '7 images, ' in message and '1 images, truncated JPEG' in message
    assert str(image_path(data, 3)) in message
    # Training can go on: every sample passes the pipeline.
    shapes = [tuple(found[index]['inputs'].shape) for index in range(len(found))]
    assert shapes == [(3, 72, 96)] * 7


def test_a_truncated_image_is_an_error_in_testing(data: Path) -> None:
    cut(image_path(data, 3))
    with pytest.raises(
        ValueError,
        match=r'1 of 8 images .* cannot be read: .*000003\.jpg: '
        r"truncated JPEG.*set bad_images='drop'",
    ):
        ours(data, test_mode=True)


def test_bad_images_chooses_what_to_do_with_bad_images(data: Path, warned: list[str]) -> None:
    cut(image_path(data, 3))
    image_path(data, 5).unlink()
    assert len(ours(data, bad_images='drop', test_mode=True)) == 6
    assert len(warned) == 1 and '1 images, missing' in warned[0]
    assert len(ours(data, bad_images='unchecked')) == 8
    assert len(warned) == 1
    with pytest.raises(ValueError, match=r'2 of 8 images.*000003.*000005\.jpg: missing'):
        ours(data, bad_images='error')


@pytest.mark.parametrize('value', ['skip', True, ''])
def test_a_wrong_bad_images_is_refused(data: Path, value: Any) -> None:
    with pytest.raises(ValueError, match=r"bad_images must be 'drop', .* got " + repr(value)):
        ours(data, bad_images=value)


def test_missing_images_are_left_out_in_training(data: Path, warned: list[str]) -> None:
    for number in (1, 2):
        image_path(data, number).unlink()
    found = ours(data)
    assert [sample['img_id'] for sample in samples(found)] == [3, 4, 5, 6, 7, 8]
    (message,) = warned
    assert '2 images, missing (' in message and str(image_path(data, 2)) in message


@pytest.mark.parametrize('test_mode', [False, True])
def test_an_error_names_the_folder_where_all_images_are_missing(
    data: Path, test_mode: bool
) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r'none of the 8 images .*Check data_root=.* and '
        r'data_prefix=.*images/nowhere',
    ):
        ours(data, data_prefix={'img': 'images/nowhere/'}, test_mode=test_mode)


def test_truncated_images_alone_are_refused(data: Path) -> None:
    for number in range(1, 9):
        cut(image_path(data, number))
    with pytest.raises(
        ValueError,
        match=r'leaves no images to use. It has 8 images; dropped: '
        r'8 images, truncated JPEG',
    ):
        ours(data)


def test_images_behind_a_backend_are_not_checked(data: Path, warned: list[str]) -> None:
    cut(image_path(data, 3))
    found = ours(data, backend_args={'backend': 'local'})
    assert len(found) == 8 and warned == []


def test_images_behind_a_prefix_are_not_checked(data: Path, warned: list[str]) -> None:
    found = ours(data, data_prefix={'img': 's3://bucket/train/'}, test_mode=True)
    assert found[0]['img_path'] == 's3://bucket/train/000001.jpg'
    assert len(found) == 8 and warned == []


def test_filtered_images_are_counted(data: Path, warned: list[str]) -> None:
    def empty_two(content: dict[str, Any]) -> None:
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] > 2]

    edit(data, empty_two)
    found = ours(data)
    assert samples(found) == samples(stock(data)) and len(found) == 6
    (message,) = warned
    assert "{'filter_empty_gt': True, 'min_size': 32} takes away 2 of 8 images" in message


def test_a_filter_that_takes_all_images_is_an_error(data: Path) -> None:
    with pytest.raises(ValueError, match=r"'min_size': 500} takes away all 8 images"):
        ours(data, filter_cfg={'min_size': 500})
