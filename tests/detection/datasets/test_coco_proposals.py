"""Proposals of a file: by name, whatever their number."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.registry import DATASETS

from mmdet_ext.data.proposals import find_proposals, grid_windows, write_proposals
from mmdet_ext.detection.datasets.proposals import attach_proposals


def build(root: Path, kind: str = 'mmdet_ext.CocoDataset', **options: Any) -> Any:
    return DATASETS.build(
        dict(
            type=kind,
            data_root=str(root),
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='images/train/'),
            metainfo=dict(classes=('circle', 'square', 'triangle')),
            pipeline=[],
            proposal_file='proposals.pkl',
            **options,
        )
    )


@pytest.fixture
def boxes(data: Path) -> dict[str, Any]:
    """Write the proposals of the training images, and return them."""
    ann_file = data / 'annotations' / 'instances_train.json'
    found = find_proposals(ann_file, data / 'images' / 'train', grid_windows).boxes
    write_proposals(found, data / 'proposals.pkl')
    return found


def test_each_image_has_its_proposals(data: Path, boxes: dict[str, Any]) -> None:
    dataset = build(data)
    for number in range(8):
        info = dataset.get_data_info(number)
        name = f'train/{Path(info["img_path"]).name}'
        assert np.array_equal(info['proposals']['bboxes'], boxes[name])


def test_a_file_of_more_images_serves_which_mmdet_refuses(
    data: Path, boxes: dict[str, Any]
) -> None:
    gone = sorted(boxes)[0]
    (data / 'images' / gone).unlink()
    assert len(build(data)) == 7  # ours drops the image, and has 8 proposals for 7 images
    write_proposals({**boxes, 'other/1.png': boxes[gone]}, data / 'proposals.pkl')
    with pytest.raises(AssertionError):
        build(data, 'mmdet.CocoDataset')


def test_images_without_proposals_are_named(data: Path, boxes: dict[str, Any]) -> None:
    gone = sorted(boxes)[0]
    write_proposals({name: boxes[name] for name in boxes if name != gone}, data / 'proposals.pkl')
    message = rf'for 7 images, but for 1 of the 8 of this data set it has none \({gone}\)'
    with pytest.raises(ValueError, match=message):
        build(data)


def test_the_list_of_mmdet_2_is_named(data: Path) -> None:
    (data / 'proposals.pkl').write_bytes(pickle.dumps([np.zeros((1, 4))]))
    with pytest.raises(ValueError, match='holds a list, and must hold a dict from folder/file'):
        build(data)


def test_two_images_of_one_name_are_refused() -> None:
    images = [dict(img_path='x/cam/1.png'), dict(img_path='y/cam/1.png')]
    with pytest.raises(ValueError, match=r'1 names stand for several images \(cam/1.png\)'):
        attach_proposals(images, {'cam/1.png': {}}, 'p.pkl')
