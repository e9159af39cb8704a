"""Data set of digits: images, labels, and parts without a common image."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS

sklearn_data = pytest.importorskip('sklearn.datasets')
CONFIGS = Path(__file__).resolve().parents[3] / 'configs' / '_base_' / 'datasets'


def build(**options: object):
    return DATASETS.build(dict(type='mmdet_ext.DigitsDataset', **options))


def images_of(data) -> np.ndarray:
    return np.stack([data.get_data_info(i)['img'] for i in range(len(data))])


def keys(data) -> set[bytes]:
    return {image.tobytes() for image in images_of(data)}


def test_images_and_labels_equal_those_of_scikit_learn() -> None:
    values, digits = sklearn_data.load_digits(return_X_y=True)
    data = build()
    assert data.get_gt_labels().tolist() == digits.tolist()
    images = images_of(data)
    assert images.dtype == np.uint8
    for channel in range(3):
        assert (np.abs(images[..., channel].reshape(-1, 64) - values * 255 / 16) <= 0.5).all()
    assert (images.min(), images.max()) == (0, 255)
    assert data.metainfo['classes'] == tuple('0123456789')


def test_labels_number_the_digits_in_their_order() -> None:
    data, everything = build(digits=(7, 2)), build()
    digits = everything.get_gt_labels()
    assert data.metainfo['classes'] == ('7', '2')
    assert data.get_gt_labels().tolist() == [
        {7: 0, 2: 1}[digit] for digit in digits if digit in (2, 7)
    ]
    assert (images_of(data) == images_of(everything)[np.isin(digits, (2, 7))]).all()
    assert data.get_cat_ids(0) == [int(data.get_gt_labels()[0])]


@pytest.mark.slow
@pytest.mark.parametrize('seed', [0, 5])
def test_parts_are_stratified_disjoint_and_complete(seed: int) -> None:
    train, test = (build(part=part, seed=seed) for part in ('train', 'test'))
    total = np.bincount(build().get_gt_labels())
    assert np.bincount(test.get_gt_labels()).tolist() == [round(n * 0.25) for n in total]
    assert (np.bincount(test.get_gt_labels()) + np.bincount(train.get_gt_labels())).tolist() == (
        total.tolist()
    )
    # No two of scikit-learn's images are equal, so their pixels identify them.
    assert not keys(train) & keys(test)
    assert keys(train) | keys(test) == keys(build())
    assert (images_of(build(part='test', seed=seed)) == images_of(test)).all()


def test_the_split_does_not_depend_on_the_digits_taken() -> None:
    some = build(digits=(3, 1), part='train')
    assert keys(some) <= keys(build(part='train'))
    assert keys(some) != keys(build(digits=(3, 1), part='train', seed=1))


def test_base_config_keeps_three_digits_unseen() -> None:
    config = Config.fromfile(CONFIGS / 'digits.py')
    train, test = (
        DATASETS.build({**config[name].dataset, 'pipeline': []})
        for name in ('train_dataloader', 'test_dataloader')
    )
    assert train.metainfo['classes'] == tuple('0123456')
    assert test.metainfo['classes'] == tuple('0123456789')
    assert not keys(train) & keys(test)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(digits=(1, 1)), r'digits must be different numbers of 0 \.\. 9, got \(1, 1\)'),
        (dict(digits=(10,)), r'got \(10,\)'),
        (dict(digits=()), r'got \(\)'),
        (dict(part='val'), "part must be 'train', 'test' or 'all', got 'val'"),
        (dict(test_fraction=1.0), r'test_fraction must be in \(0, 1\), got 1.0'),
        (dict(metainfo=dict(classes=('a',))), 'metainfo names classes'),
        (
            dict(data_root='data', data_prefix={}),
            "DigitsDataset takes no data_root='data': the im",
        ),
        (dict(ann_file='a.txt'), "takes no ann_file='a.txt'"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_without_scikit_learn_the_error_says_how_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(ImportError, match='pip install scikit-learn'):
        build()
