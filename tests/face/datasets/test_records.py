"""Data set of records: images and labels as written, in any process."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset
from torch.utils.data import DataLoader

from mmdet_ext.data.face.records import (
    RecordError,
    pack,
    read_index,
    write_face_records,
    write_records,
)
from mmdet_ext.face.datasets.records import FaceRecordDataset
from mmdet_ext.registry import DATASETS

COUNTS = (3, 1, 2)
LABELS = [0, 0, 0, 1, 2, 2]


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (8, 6, 3), dtype=np.uint8)


def png(number: int) -> bytes:
    return cv2.imencode('.png', image(number))[1].tobytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    numbers = iter(range(99))
    write_face_records(
        [[png(next(numbers)) for _ in range(count)] for count in COUNTS],
        tmp_path / 'train.rec',
        (8, 6),
    )
    return tmp_path


def test_images_and_labels(root: Path) -> None:
    dataset = DATASETS.build(dict(type='mmdet_ext.FaceRecordDataset', data_root=str(root)))
    assert len(dataset) == 6 and dataset.num_classes == 3
    assert dataset.get_gt_labels().tolist() == LABELS
    assert dataset.get_gt_labels().dtype == np.int64
    for k in range(6):
        entry = dataset[k]
        np.testing.assert_array_equal(entry.pop('img'), image(k))
        assert entry == dict(
            img_shape=(8, 6),
            ori_shape=(8, 6),
            gt_label=LABELS[k],
            sample_idx=k,
            img_path=f'{root / "train.rec"}#{k + 1}',
        )
        assert dataset.get_cat_ids(k) == [LABELS[k]]
    assert dataset[-1]['sample_idx'] == 5 and dataset[-1]['gt_label'] == 2
    for wrong in (6, -7):
        with pytest.raises(IndexError, match=f'index {wrong} is out of range: .*6 images'):
            dataset.get_data_info(wrong)
    assert 'classes' not in dataset.metainfo


def test_pipeline_and_packing_of_mmpretrain(root: Path) -> None:
    """Pack the entries as mmpretrain does for its classifiers, in whose scope configs are."""
    pytest.importorskip('mmpretrain')
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = FaceRecordDataset(str(root), pipeline=[dict(type='PackInputs')])
        packed = dataset[4]
    np.testing.assert_array_equal(packed['inputs'].permute(1, 2, 0).numpy(), image(4))
    assert packed['data_samples'].gt_label.tolist() == [2]
    assert packed['data_samples'].sample_idx == 4


def test_balancing_wrapper_of_mmengine(root: Path) -> None:
    wrapped = ClassBalancedDataset(FaceRecordDataset(str(root)), oversample_thr=0.5)
    assert sorted(entry['gt_label'] for entry in map(wrapped.__getitem__, range(len(wrapped)))) == [
        0,
        0,
        0,
        1,
        1,
        2,
        2,
        2,
        2,
    ]


def test_lazy(root: Path) -> None:
    dataset = FaceRecordDataset(str(root), lazy_init=True)
    assert not dataset._fully_initialized
    assert dataset.num_classes == 3 and dataset._fully_initialized


@pytest.mark.parametrize(
    ('indices', 'expected'),
    [
        (2, [0, 1]),
        (-2, [4, 5]),
        (0, []),
        ([5, 0, 5], [5, 0, 5]),
        ([-1], [5]),
        (np.array([3, 1]), [3, 1]),
    ],
)
def test_parts(root: Path, indices: Any, expected: list[int]) -> None:
    whole = FaceRecordDataset(str(root))
    part = whole.get_subset(indices)
    in_place = FaceRecordDataset(str(root))
    in_place.get_subset_(indices)
    for dataset in (part, in_place, FaceRecordDataset(str(root), indices=indices)):
        assert len(dataset) == len(expected)
        assert dataset.get_gt_labels().tolist() == [LABELS[k] for k in expected]
        for place, k in enumerate(expected):
            np.testing.assert_array_equal(dataset[place]['img'], image(k))
            assert dataset[place]['sample_idx'] == place
        assert dataset.num_classes == 3
    assert len(whole) == 6


def test_parts_out_of_range(root: Path) -> None:
    with pytest.raises(IndexError):
        FaceRecordDataset(str(root), indices=[0, 6])


def test_other_names_and_places(root: Path) -> None:
    (root / 'sub').mkdir()
    for name in ('rec', 'idx'):
        (root / f'train.{name}').rename(root / 'sub' / f'faces_{name}')
    (root / 'property').rename(root / 'p')
    dataset = FaceRecordDataset(str(root), 'sub/faces_rec', 'sub/faces_idx', 'p')
    assert dataset.num_classes == 3 and dataset[3]['gt_label'] == 1
    with pytest.raises(FileNotFoundError, match='train.rec'):
        FaceRecordDataset(str(root))
    with pytest.raises(FileNotFoundError, match='property_file .*absent'):
        FaceRecordDataset(str(root), property_file='absent')
    with pytest.raises(ValueError, match="bad_records must be 'error' or 'drop', got 'skip'"):
        FaceRecordDataset(str(root), bad_records='skip')


@pytest.mark.slow
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_workers_read_what_the_parent_reads(root: Path, method: str) -> None:
    dataset = FaceRecordDataset(str(root))
    mine = [dataset[k]['img'] for k in range(6)]  # the parent has the file open by now
    loader = DataLoader(
        dataset,
        num_workers=2,
        shuffle=True,
        collate_fn=list,
        multiprocessing_context=multiprocessing.get_context(method),
    )
    seen = []
    for _ in range(3 if method == 'fork' else 1):
        for (entry,) in loader:
            np.testing.assert_array_equal(entry['img'], mine[entry['sample_idx']])
            seen.append(entry['sample_idx'])
    assert sorted(set(seen)) == list(range(6))


def test_few_bytes_are_kept_per_image(tmp_path: Path) -> None:
    write_face_records([[b'not looked at'] * 100] * 100, tmp_path / 'train.rec', (8, 6))
    dataset = FaceRecordDataset(str(tmp_path))
    assert len(dataset) == 10_000
    assert len(pickle.dumps(dataset)) < 10_000 * 24


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Collect the level and text of each message that the data set logs."""
    logged: list[tuple[int, str]] = []
    monkeypatch.setattr(
        'mmdet_ext.face.datasets.labelled.print_log',
        lambda text, logger, level: logged.append((level, text)),
    )
    return logged


def test_oddities_are_logged_once(root: Path, said: list[tuple[int, str]]) -> None:
    (root / 'property').write_text('5,8,6\n')
    (root / 'train.idx').unlink()
    dataset = FaceRecordDataset(str(root))
    dataset[0], dataset[1]
    assert said == [
        (
            logging.WARNING,
            (
                f'{root / "train.rec"}: 6 images of 3 identities; train.idx is absent: 10 records '
                'were found by reading through the file; 2 of 5 classes have no image; 1 '
                'identities have one image, which gives no genuine pair'
            ),
        )
    ]
    assert dataset.num_classes == 5


def test_cut_file(root: Path, said: list[tuple[int, str]]) -> None:
    path = root / 'train.rec'
    path.write_bytes(path.read_bytes()[: read_index(root / 'train.idx')[1][4] + 40])
    with pytest.raises(
        RecordError,
        match=(
            r'train.rec: 3 of 6 records are bad: 2 starts behind the end of the file \(truncated\) '
            r"\(record 5, 6\); 1 ends behind .* \(record 4\). Copy .*bad_records='drop'"
        ),
    ):
        FaceRecordDataset(str(root))
    dataset = FaceRecordDataset(str(root), bad_records='drop')
    assert dataset.get_gt_labels().tolist() == [0, 0, 0]
    ((level, text),) = said
    assert level == logging.WARNING
    assert 'dropped: 2 starts behind the end' in text
    assert '3 of 3 identity records are absent' in text


def test_labels_out_of_range(root: Path) -> None:
    (root / 'property').write_text('2,8,6\n')
    with pytest.raises(
        RecordError,
        match=r'2 label is not below the number of classes \(record 5, '
        r'6\)',
    ):
        FaceRecordDataset(str(root))
    assert FaceRecordDataset(str(root), bad_records='drop').get_gt_labels().tolist() == [0, 0, 0, 1]


def test_images_without_identity_records_and_property(tmp_path: Path) -> None:
    write_records([pack(4, png(0)), pack([1, 0], png(1))], tmp_path / 'train.rec')
    dataset = FaceRecordDataset(str(tmp_path))
    assert (dataset.get_gt_labels().tolist(), dataset.num_classes) == ([4, 1], 5)
    write_records([pack(-4, png(0)), pack(1, b'')], tmp_path / 'train.rec')
    with pytest.raises(RecordError, match='2 of 2 records are bad.*No record is left'):
        FaceRecordDataset(str(tmp_path), bad_records='drop')


def test_label_that_differs_from_its_identity(tmp_path: Path) -> None:
    write_records(
        [pack((3, 4), b''), pack(0, png(0)), pack(5, png(1)), pack((1, 3), b'')],
        tmp_path / 'train.rec',
    )
    dataset = FaceRecordDataset(str(tmp_path))
    assert dataset[0]['gt_label'] == 0
    with pytest.raises(
        RecordError,
        match='record 2: its header says label 5, its identity has label 0. Set scan=True',
    ) as error:
        dataset[1]
    assert error.value.index == 2
    assert FaceRecordDataset(str(tmp_path), scan=True).get_gt_labels().tolist() == [0, 5]


def test_image_that_cannot_be_decoded(root: Path, said: list[tuple[int, str]]) -> None:
    path = root / 'train.rec'
    content = bytearray(path.read_bytes())
    start = read_index(root / 'train.idx')[1][2]
    content[start + 40 : start + 90] = bytes(50)
    path.write_bytes(content)
    for options in (dict(), dict(bad_records='drop', test_mode=True)):
        dataset = FaceRecordDataset(str(root), **options)
        with pytest.raises(RecordError, match=r'train.rec: record 2: image cannot be decoded'):
            dataset[1]
    np.random.seed(0)
    dataset = FaceRecordDataset(str(root), bad_records='drop')
    said.clear()
    assert dataset[1]['sample_idx'] != 1
    level, text = said[0]
    assert level == logging.WARNING
    assert text.endswith(
        'record 2: image cannot be decoded. Another image is taken instead '
        '(this happened 1 times in this process)'
    )


def test_error_of_a_worker_names_the_record(root: Path) -> None:
    path = root / 'train.rec'
    content = bytearray(path.read_bytes())
    content[read_index(root / 'train.idx')[1][2]] ^= 255
    path.write_bytes(content)
    loader = DataLoader(FaceRecordDataset(str(root)), num_workers=1, collate_fn=list)
    with pytest.raises(RecordError, match='record 2: bad magic number'):
        list(loader)


def test_a_list_is_refused_and_a_prefix_is_used(root: Path) -> None:
    with pytest.raises(ValueError, match="no ann_file='x.rec': .*by rec_file"):
        FaceRecordDataset(str(root), ann_file='x.rec')
    assert len(FaceRecordDataset(str(root.parent), data_prefix=root.name)) == 6


@pytest.mark.parametrize('index', [True, False], ids=['with idx', 'without'])
def test_a_cut_record_is_reported_as_cut_with_and_without_index(root: Path, index: bool) -> None:
    offsets = read_index(root / 'train.idx')[1]
    path = root / 'train.rec'
    path.write_bytes(path.read_bytes()[: offsets[6] + 40])
    if not index:
        (root / 'train.idx').unlink()
    with pytest.raises(RecordError, match=r'1 ends behind the end .* \(record 6\)') as error:
        FaceRecordDataset(str(root))
    assert 'magic' not in str(error.value)
