"""Data set of folders: entries, labels, names, the log line and errors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset
from mmengine.registry import DATASETS

from mmdet_ext.face.datasets import labelled

CONFIGS = Path(__file__).resolve().parents[3] / 'configs' / '_base_' / 'datasets'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, count in {'b2': 3, 'b10': 1}.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            cv2.imwrite(str(tmp_path / name / f'{i}.png'), np.full((6, 5, 3), 10 * i, np.uint8))
    return tmp_path


def build(root: Path, **options: object):
    return DATASETS.build(dict(type='mmdet_ext.FaceFolderDataset', data_root=str(root), **options))


@pytest.mark.parametrize('serialize', [True, False])
def test_entries(root: Path, serialize: bool) -> None:
    data = build(root, serialize_data=serialize, pipeline=[dict(type='mmdet_ext.LoadFace')])
    assert data.metainfo['classes'] == ('b2', 'b10')
    assert data.get_gt_labels().tolist() == [0, 0, 0, 1]
    assert data.get_gt_labels().dtype == np.int64
    assert [data.get_cat_ids(i) for i in (0, 3)] == [[0], [1]]
    sample = data[2]
    assert (sample['gt_label'], sample['sample_idx']) == (0, 2)
    assert sample['img_path'] == str(root / 'b2' / '2.png')
    assert (sample['img'] == 20).all() and sample['img'].shape == (6, 5, 3)


def test_indices_and_subsets_keep_the_label_of_each_image(root: Path) -> None:
    assert build(root, indices=[3, 0]).get_gt_labels().tolist() == [1, 0]
    subset = build(root).get_subset([3, 2])
    assert subset.get_gt_labels().tolist() == [1, 0]
    assert subset.get_data_info(0)['img_path'].endswith('b10/0.png')


def test_rare_identities_can_be_repeated_by_mmengine(root: Path) -> None:
    data = ClassBalancedDataset(build(root), oversample_thr=0.75)
    assert [info['gt_label'] for info in map(data.get_data_info, range(len(data)))] == [
        0,
        0,
        0,
        1,
        1,
    ]


def test_lazy_init_reads_later(root: Path) -> None:
    data = build(root, lazy_init=True)
    assert 'classes' not in data.metainfo
    assert data.get_gt_labels().tolist() == [0, 0, 0, 1]
    assert data.metainfo['classes'] == ('b2', 'b10')


def test_report_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(labelled, 'print_log', lambda text, **_: lines.append(text))
    build(root)
    assert lines == [
        f'{root}: 4 images of 2 identities. To be known: 1 identities of one image, which '
        'give no genuine pair (b10)'
    ]


def test_list_is_relative_to_data_root(root: Path) -> None:
    (root / 'train.txt').write_text('b10/0.png 1\nb2/1.png 0\n')
    data = build(root, ann_file='train.txt', metainfo=dict(classes=['x', 'y']))
    assert data.get_gt_labels().tolist() == [1, 0]
    assert data.metainfo['classes'] == ('x', 'y')
    assert build(root, ann_file=str(root / 'train.txt')).metainfo['classes'] == ('0', '1')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(metainfo=dict(classes=['b2'])), 'class_names .metainfo classes. name the labels'),
        (dict(num_classes=3), 'num_classes is 3.*4 images of 2 identities'),
        (dict(identities=['b3']), '1 of 1 identities are not in .*b3. It has 2: b2, b10'),
        (dict(ann_file='none.txt'), "ann_file '.*none.txt' cannot be read"),
    ],
)
def test_errors(root: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(root, **options)


def test_a_misspelt_option_is_named(root: Path) -> None:
    with pytest.raises(TypeError, match="no option 'identites'; did you mean 'identities'"):
        build(root, identites=['b2'])


def test_base_config_of_orl(shared_data: Path) -> None:
    config = Config.fromfile(CONFIGS / 'orl.py')
    train, val = (
        DATASETS.build(
            {**config[name].dataset, 'data_root': str(shared_data / 'orl'), 'pipeline': []}
        )
        for name in ('train_dataloader', 'val_dataloader')
    )
    assert np.bincount(train.get_gt_labels()).tolist() == [10] * 30
    assert np.bincount(val.get_gt_labels()).tolist() == [10] * 10
    assert not set(train.metainfo['classes']) & set(val.metainfo['classes'])
    assert val.metainfo['classes'] == tuple(f's{i}' for i in range(31, 41))


def test_base_config_of_folders_tests_on_other_identities(tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / f'p{i}').mkdir()
        cv2.imwrite(str(tmp_path / f'p{i}' / '0.png'), np.zeros((4, 4, 3), np.uint8))
    config = Config.fromfile(CONFIGS / 'face_folder.py')
    train, val = (
        set(
            DATASETS.build(
                {**config[name].dataset, 'data_root': str(tmp_path), 'pipeline': []}
            ).metainfo['classes']
        )
        for name in ('train_dataloader', 'val_dataloader')
    )
    assert (len(train), len(val), len(train | val)) == (8, 2, 10)


@pytest.mark.parametrize('named', [False, True])
def test_prefix_is_the_folder_of_the_images(root: Path, named: bool) -> None:
    prefix = dict(img_path=root.name) if named else root.name
    data = build(root.parent, data_prefix=prefix)
    assert data.metainfo['classes'] == ('b2', 'b10')
    assert data.get_data_info(0)['img_path'] == str(root / 'b2' / '0.png')
    (root / 'list.txt').write_text('b10/0.png\n')
    listed = build(root.parent, data_prefix=prefix, ann_file=f'{root.name}/list.txt')
    assert [info['img_path'] for info in listed] == [str(root / 'b10' / '0.png')]
    with pytest.raises(ValueError, match=r"a folder or dict\(img_path='folder'\), got .'img': "):
        build(root.parent, data_prefix=dict(img='faces'))


@pytest.mark.parametrize(
    'split',
    [
        dict(identity_split='train'),
        dict(identity_split=dict(name='train')),
        dict(identity_split=dict(part='train', val_share=0.3)),
        dict(picture_split='first'),
        dict(picture_split=dict(part='first')),
    ],
)
def test_errors_for_wrong_splits_show_a_right_one(root: Path, split: dict) -> None:
    ((name, value),) = split.items()
    example = "part='train'" if name == 'identity_split' else "part='first', count=1"
    with pytest.raises(ValueError, match=f'{name} must be a dict') as error:
        build(root, **split)
    assert f'such as dict({example}), got {value!r}' in str(error.value)
