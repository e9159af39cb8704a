"""Images of a config as its network sees them in training, without random changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_ext.detection.datasets.plain import plain_dataset
from tests._helpers.configs import CONFIGS, shrink

OURS = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_12e_bccd.py'


@pytest.fixture(autouse=True)
def modules() -> None:
    register_all_modules()


def bccd(root: Path) -> Config:
    """Make the BCCD config small, for the drawn shapes."""
    return shrink(OURS, root)


def test_boxes_are_those_of_the_file_scaled(shapes_root: Path) -> None:
    config = bccd(shapes_root)
    (resize,) = [s for s in config.val_dataloader.dataset.pipeline if s.type == 'Resize']
    resize.scale = (192, 144)
    sample = plain_dataset(config, 'train')[0]
    content = json.loads((shapes_root / 'annotations' / 'instances_train.json').read_text())
    image = content['images'][0]
    boxes = [ann['bbox'] for ann in content['annotations'] if ann['image_id'] == image['id']]
    x, y, width, height = np.array(boxes).T * 192 / image['width']
    found = sample['data_samples'].gt_instances
    np.testing.assert_allclose(
        found.bboxes.numpy(), np.stack([x, y, x + width, y + height], 1), rtol=1e-5
    )
    assert sample['inputs'].shape == (3, 144, 192)
    assert 'masks' not in found


def test_wrappers_of_the_data_set_are_removed(shapes_root: Path) -> None:
    config = bccd(shapes_root)
    plain = plain_dataset(config, 'train')
    part = config.train_dataloader.dataset
    while 'dataset' in part:
        part = part.dataset
    config.train_dataloader.dataset = dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(type='ConcatDataset', datasets=[part, part]),
    )
    both = plain_dataset(config, 'train')
    assert len(both) == 2 * len(plain)
    assert both[len(plain)]['data_samples'].img_path == plain[0]['data_samples'].img_path


def test_masks_are_loaded_as_in_training_and_made_from_boxes_that_have_none(
    shapes_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / 'masks'
    shutil.copytree(shapes_root, root)
    listing = root / 'annotations' / 'instances_train.json'
    content = json.loads(listing.read_text())
    first, second = content['annotations'][:2]
    assert first['image_id'] == second['image_id']
    x, y, width, height = first['bbox']
    first['segmentation'] = [[x, y, x + width, y, x, y + height]]
    second.pop('segmentation', None)
    listing.write_text(json.dumps(content))
    config = bccd(root)
    loading = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    config.train_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), loading]
    masks = plain_dataset(config, 'train')[0]['data_samples'].gt_instances.masks.masks
    for mask, ann, share in zip(masks, (first, second), (0.5, 1.0), strict=False):
        area = ann['bbox'][2] * ann['bbox'][3]
        assert mask.sum() == pytest.approx(share * area, rel=0.15)


def test_a_config_without_loaders_is_refused(shapes_root: Path) -> None:
    config = bccd(shapes_root)
    config.val_dataloader = None
    with pytest.raises(ValueError, match='no val_dataloader to load as'):
        plain_dataset(config, 'train')
