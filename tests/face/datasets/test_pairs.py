"""Data set of pairs: each image once, and the pairs in the metainfo."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.data.face.pairs import PairsError
from mmdet_ext.data.face.safe_pickle import UnsafePickleError
from mmdet_ext.face.datasets.pairs import FacePairsDataset
from mmdet_ext.registry import DATASETS


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (8, 6, 3), dtype=np.uint8)


def png(number: int) -> bytes:
    return cv2.imencode('.png', image(number))[1].tobytes()


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    for name, count in (('Ann', 2), ('Bo', 2)):
        (tmp_path / 'faces' / name).mkdir(parents=True)
        for k in range(1, count + 1):
            file = tmp_path / 'faces' / name / f'{name}_{k:04d}.png'
            file.write_bytes(png(10 * (name == 'Bo') + k))
    (tmp_path / 'pairs.txt').write_text('2\t1\nBo\t1\t2\nBo\t1\tAnn\t1\nAnn\t1\t2\nBo\t2\tAnn\t1\n')
    return tmp_path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Collect the level and text of each message that the data set logs."""
    logged: list[tuple[int, str]] = []
    monkeypatch.setattr(
        'mmdet_ext.face.datasets.labelled.print_log',
        lambda text, logger, level: logged.append((level, text)),
    )
    return logged


LOAD = [dict(type='mmcv.LoadImageFromFile')]


def test_lfw(lfw: Path) -> None:
    dataset = DATASETS.build(
        dict(
            type='mmdet_ext.FacePairsDataset',
            data_root=str(lfw),
            ann_file='pairs.txt',
            data_prefix='faces',
            pipeline=LOAD,
        )
    )
    assert len(dataset) == 4
    assert dataset.metainfo['classes'] == ('Ann', 'Bo')
    assert dataset.get_gt_labels().tolist() == [1, 1, 0, 0]
    assert dataset.get_cat_ids(0) == [1]
    for k, number in enumerate((11, 12, 1, 2)):
        np.testing.assert_array_equal(dataset[k]['img'], image(number))
        assert dataset[k]['sample_idx'] == k
    pairs = dataset.metainfo['pairs']
    assert pairs['index'].tolist() == [[0, 1], [0, 2], [2, 3], [1, 2]]
    assert pairs['same'].tolist() == [True, False, True, False]
    assert pairs['fold'].tolist() == [0, 0, 1, 1]
    labels = dataset.get_gt_labels()[pairs['index']]
    np.testing.assert_array_equal(labels[:, 0] == labels[:, 1], pairs['same'])


def test_table_of_real_faces(shared_data: Path, tmp_path: Path) -> None:
    lines = [f's1/{k}.pgm,s1/{k + 1}.pgm,1\ns1/{k}.pgm,s2/{k}.pgm,0\n' for k in range(1, 10)]
    (tmp_path / 'pairs.csv').write_text(''.join(lines))
    dataset = FacePairsDataset(
        str(tmp_path / 'pairs.csv'),
        data_root=str(shared_data),
        data_prefix=dict(img_path='orl'),
        folds=9,
        pipeline=LOAD,
    )
    assert len(dataset) == 19
    index = dataset.metainfo['pairs']['index']
    assert dataset[index[17, 1]]['img_path'].endswith('s2/9.pgm')
    np.testing.assert_array_equal(
        dataset[index[17, 1]]['img'], cv2.imread(str(shared_data / 'orl' / 's2' / '9.pgm'))
    )
    assert dataset.metainfo['pairs']['fold'].tolist() == [k // 2 for k in range(18)]
    assert dataset.get_gt_labels().tolist() == [-1] * 19
    assert 'classes' not in dataset.metainfo


@pytest.mark.parametrize('serialize', [True, False])
def test_bin(tmp_path: Path, serialize: bool) -> None:
    (tmp_path / 'lfw.bin').write_bytes(
        pickle.dumps(([png(1), png(2), png(3), png(1)], [True, False]), 2)
    )
    dataset = FacePairsDataset('lfw.bin', str(tmp_path), folds=2, serialize_data=serialize)
    assert len(dataset) == 3
    for _ in range(2):
        for k in range(3):
            entry = dataset[k]
            np.testing.assert_array_equal(entry.pop('img'), image(k + 1))
            assert entry == dict(
                gt_label=-1,
                sample_idx=k,
                img_shape=(8, 6),
                ori_shape=(8, 6),
                img_path=f'{tmp_path / "lfw.bin"}#{k}',
            )
    pairs = dataset.metainfo['pairs']
    assert pairs['index'].tolist() == [[0, 1], [2, 0]]
    assert (pairs['same'].tolist(), pairs['fold'].tolist()) == ([True, False], [0, 1])
    assert dataset.get_gt_labels().tolist() == [-1] * 3


def test_form_can_be_given(tmp_path: Path) -> None:
    (tmp_path / 'lfw.pkl').write_bytes(pickle.dumps(([png(1), png(2)], [True])))
    assert len(FacePairsDataset('lfw.pkl', str(tmp_path), form='bin', folds=1)) == 2
    with pytest.raises(PairsError, match='no text in UTF-8|must begin with'):
        FacePairsDataset('lfw.pkl', str(tmp_path), folds=1)
    with pytest.raises(ValueError, match="form must be 'auto', 'lfw', 'table' or 'bin', got 'npz'"):
        FacePairsDataset('lfw.pkl', str(tmp_path), form='npz')


def test_broken_image_of_a_bin_is_named(tmp_path: Path) -> None:
    (tmp_path / 'lfw.bin').write_bytes(
        pickle.dumps(([png(1), png(2), png(3), b'\xff\xd8 cut'], [True, False]))
    )
    dataset = FacePairsDataset('lfw.bin', str(tmp_path), folds=2)
    assert dataset[2]['img'].shape == (8, 6, 3)
    with pytest.raises(PairsError, match='lfw.bin: image 3, of pair 1: truncated JPEG'):
        dataset[3]


def test_hostile_bin_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path('lfw.bin').write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UnsafePickleError, match="names 'posix.system'"):
        FacePairsDataset('lfw.bin')
    assert not Path('ran').exists()


def test_absent_files_are_reported(lfw: Path, said: list[tuple[int, str]]) -> None:
    (lfw / 'faces' / 'Bo' / 'Bo_0002.png').unlink()
    options = dict(ann_file='pairs.txt', data_root=str(lfw), data_prefix='faces')
    with pytest.raises(PairsError, match='2 of 4 pairs name absent files, 1 of 4: .*Bo_0002'):
        FacePairsDataset(**options)
    dataset = FacePairsDataset(**options, absent='drop')
    ((level, text),) = said
    assert level == logging.WARNING
    assert (
        'pairs.txt: 2 pairs (1 of one person, 1 of two) in 2 folds, of 3 images; dropped: ' in text
    )
    assert dataset.metainfo['pairs']['index'].tolist() == [[0, 1], [1, 2]]


def test_parts_are_refused(lfw: Path) -> None:
    options = dict(ann_file='pairs.txt', data_root=str(lfw), data_prefix='faces')
    with pytest.raises(ValueError, match='indices=3: a part of the images would break the pairs'):
        FacePairsDataset(**options, indices=3)
    dataset = FacePairsDataset(**options)
    for method in (dataset.get_subset, dataset.get_subset_):
        with pytest.raises(ValueError, match=f'{method.__name__}: a part of the images'):
            method(2)
    with pytest.raises(ValueError, match="absent must be 'error' or 'drop', got None"):
        FacePairsDataset(**options, absent=None)
