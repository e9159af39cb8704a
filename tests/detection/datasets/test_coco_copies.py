"""Images that stand several times in a set, or in the sets of training and of testing."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests._helpers.coco_data import edit, image_path, ours, samples

VAL: dict[str, Any] = {
    'ann_file': 'annotations/instances_val.json',
    'data_prefix': {'img': 'images/val/'},
    'test_mode': True,
}


def test_copies_and_repeated_files_are_counted_and_used(data: Path, warned: list[str]) -> None:
    shutil.copy(image_path(data, 1), image_path(data, 2))
    edit(data, lambda content: content['images'][3].update(file_name='000003.jpg'))
    assert len(samples(ours(data))) == 8
    (message,) = warned
    assert message.endswith(
        f'boxes used. Noted: 1 files under several image ids ({image_path(data, 3)}: ids 3, 4); '
        f'1 files with the content of another file ({image_path(data, 2)} = {image_path(data, 1)})'
    )


def test_images_that_are_trained_and_tested_on_are_named(data: Path, warned: list[str]) -> None:
    tested = sorted((data / 'images' / 'val').iterdir())
    shutil.copy(image_path(data, 5), tested[1])
    trained = ours(data)
    assert len(ours(data, **VAL)) == 4
    (message,) = warned
    assert message == (
        'annotations/instances_val.json: 1 of 4 images to test on are also trained on, as the same '
        f'file or as one of equal content: {tested[1]} = {image_path(data, 5)}. Results on them do '
        'not show what the detector makes of new images. Remove them from one of the sets'
    ).replace('annotations/', f'{data}/annotations/', 1)
    # The same set once more, by its paths.
    ours(data, test_mode=True)
    assert '8 of 8 images to test on are also trained on, as the same file ' in warned[1]
    assert f': {image_path(data, 1)}, {image_path(data, 2)}, ' in warned[1]
    assert len(trained) == 8


def test_a_training_set_that_is_gone_is_forgotten(data: Path, warned: list[str]) -> None:
    ours(data)
    gc.collect()
    ours(data, test_mode=True)
    assert warned == []


@pytest.mark.parametrize('options', [{'bad_images': 'unchecked'}, {'test_mode': False}])
def test_sets_that_are_not_tested_or_not_checked_are_not_compared(
    data: Path, warned: list[str], options: dict[str, Any]
) -> None:
    trained = ours(data)
    ours(data, **{'test_mode': True, **options})
    assert warned == [] and len(trained) == 8


def test_images_without_boxes_are_not_trained_on(data: Path, warned: list[str]) -> None:
    def empty(content: dict[str, Any]) -> None:
        content['annotations'] = [ann for ann in content['annotations'] if ann['image_id'] > 3]

    edit(data, empty)
    trained = ours(data)
    warned.clear()
    ours(data, test_mode=True)
    assert len(trained) == 5 and '5 of 8 images to test on are also trained on' in warned[0]
