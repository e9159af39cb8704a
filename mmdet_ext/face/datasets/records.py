"""Data set of faces in InsightFace's ``train.rec``."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.dataset import BaseDataset

from mmdet_ext.data.face.records import (
    FaceRecords,
    RecordError,
    RecordFile,
    decode_image,
    read_face_records,
    read_property,
)
from mmdet_ext.data.reports import listed
from mmdet_ext.face.datasets.labelled import image_prefix, log_report, refuse_options
from mmdet_ext.functional.numerics.checks import check_one_of
from mmdet_ext.registry import DATASETS


@DATASETS.register_module()
class FaceRecordDataset(BaseDataset):  # type: ignore[misc]
    """Data set of the images in an MXNet ``.rec`` file, as InsightFace publishes MS1MV3, Glint360K.

    Each worker memory-maps the file. Only the number of the record, the offset and the label of
    each image are kept, 20 bytes, in arrays that forked workers share. At the start, only the
    ``.idx``, the identity records and the header of one image per identity are read. Of a file
    without identity records, the header of each image is read.

    An entry has ``img``, (H, W, 3), uint8, BGR; ``img_shape``, ``ori_shape``, ``gt_label``,
    ``sample_idx``; and ``img_path``, the name of the file and the number of the record:
    'train.rec#12'. LoadFace passes the image on. Reading an image is an error if the label in its
    header differs from the label of its identity.

    Args:
        data_root: folder of the files.
        rec_file: the ``.rec``. This and the other files are relative to ``data_root`` and
            ``data_prefix``.
        idx_file: its ``.idx``; None for the one beside it. If that is absent or incomplete, the
            file is read through, and the log says so.
        property_file: file with 'classes,height,width'; None for ``property`` beside the ``.rec``,
            if it exists.
        data_prefix: folder within ``data_root``.
        ann_file: refused, because records hold their labels.
        bad_records: 'error' raises for records that are cut, corrupt or outside of the classes, and
            names them; 'drop' leaves them out and counts them. An image that turns out to be
            corrupt when it is decoded is, with 'drop' in training, replaced by another image, and
            logged.
        scan: read each header at the start, which finds such records then.
        indices: as in MMEngine: a number of images from the start (or, if negative, from the end),
            or a list of images.
        serialize_data: without effect, because the arrays are not serialised.
        lazy_init: as in MMEngine.
        **kwargs: as in MMEngine's BaseDataset: pipeline, test_mode, metainfo, ...

    Raises:
        FileNotFoundError: if the ``.rec``, or a file that was named, is absent.
        mmdet_ext.data.face.records.RecordError: (a ValueError) if the files are not of their form,
            records are bad, or none is left.
        ValueError: if ``bad_records`` is neither of the two, or ``ann_file`` is given.

    References:
        InsightFace, recognition/_datasets_ and recognition/arcface_torch: the files and their use.
    """

    _fully_initialized: bool = False

    def __init__(
        self,
        data_root: str = '',
        rec_file: str = 'train.rec',
        idx_file: str | None = None,
        property_file: str | None = None,
        *,
        data_prefix: str | Mapping[str, str] = '',
        ann_file: str = '',
        bad_records: Literal['error', 'drop'] = 'error',
        scan: bool = False,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
        **kwargs: Any,
    ) -> None:
        check_one_of('bad_records', bad_records, ('error', 'drop'))
        refuse_options(
            type(self).__name__,
            dict(ann_file=ann_file),
            'records hold their labels. Name the file of records by rec_file',
        )
        root = Path(data_root or '') / image_prefix(data_prefix)['img_path']
        self._rec_path = root / rec_file
        self._idx_path = None if idx_file is None else root / idx_file
        self._property_path = (
            self._rec_path.with_name('property') if property_file is None else root / property_file
        )
        if property_file is not None and not self._property_path.is_file():
            raise FileNotFoundError(f'property_file {str(self._property_path)!r} is not there')
        self._bad_records, self._scan = bad_records, scan
        self._undecodable = 0
        self._keys = self._offsets = np.empty(0, np.int64)
        self._labels = np.empty(0, np.int32)
        super().__init__(
            data_root=data_root,
            data_prefix={},
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=True,
            **kwargs,
        )
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Find the records and their labels, and log what is odd."""
        if self._fully_initialized:
            return
        file = RecordFile(self._rec_path, self._idx_path)
        classes = read_property(self._property_path)[0] if self._property_path.is_file() else None
        faces = read_face_records(file, scan=self._scan, classes=classes)
        self._check(faces)
        self._keys, self._offsets, self._labels = faces.keys, faces.offsets, faces.labels
        self._num_classes = int(self._labels.max()) + 1 if classes is None else classes
        # Reading needs only the path of the file; the tables are kept here.
        file.keys = file.offsets = np.empty(0, np.int64)
        self._file = file
        self._fully_initialized = True
        self._report(faces)
        if self._indices is not None:
            self.get_subset_(self._indices)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Raise NotImplementedError, because this data set keeps arrays instead of a list."""
        raise NotImplementedError('FaceRecordDataset keeps arrays and has no data_list')

    @property
    def num_classes(self) -> int:
        """Number of classes in ``property``; without that file, the largest label plus one."""
        self._ensure_init()
        return self._num_classes

    def __len__(self) -> int:
        self._ensure_init()
        return len(self._keys)

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Read and decode an image.

        Raises:
            IndexError: if ``idx`` is not in -len .. len - 1.
            RecordError: with file and record, if it cannot be read.
        """
        size = len(self)
        if not -size <= idx < size:
            raise IndexError(f'index {idx} is out of range: {self._rec_path} gives {size} images')
        idx = int(idx) % size
        key, label = int(self._keys[idx]), int(self._labels[idx])
        record = self._file.read_at(int(self._offsets[idx]), key)
        if record.labels[0] != label:
            raise RecordError(
                f'{self._rec_path}: record {key}: its header says label {record.labels[0]:g}, its '
                f'identity has label {label}. Set scan=True to take the labels of the headers',
                key,
            )
        try:
            img = decode_image(record.data)
        except ValueError as error:
            raise RecordError(f'{self._rec_path}: record {key}: {error}', key) from error
        return dict(
            img=img,
            img_shape=img.shape[:2],
            ori_shape=img.shape[:2],
            gt_label=label,
            sample_idx=idx,
            img_path=f'{self._rec_path}#{key}',
        )

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline; with 'drop' in training, return None for an image that is corrupt.

        MMEngine then takes another image.
        """
        try:
            return super().prepare_data(idx)
        except RecordError as error:
            if self._bad_records == 'error' or self.test_mode:
                raise
            self._undecodable += 1
            log_report(
                f'{error}. Another image is taken instead (this happened {self._undecodable} times '
                'in this process)',
                odd=True,
            )
            return None

    def get_gt_labels(self) -> np.ndarray:
        """Return the labels of all images, int64 of shape (N,), without reading an image."""
        self._ensure_init()
        return self._labels.astype(np.int64)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the label of an image in a list, as MMEngine's ClassBalancedDataset expects it."""
        self._ensure_init()
        return [int(self._labels[idx])]

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Keep a number of images from the start (or, if negative, the end), or those listed."""
        self._ensure_init()
        chosen: Any
        if isinstance(indices, (int, np.integer)):
            chosen = slice(indices) if indices >= 0 else slice(int(indices), None)
        else:
            chosen = np.asarray(indices, np.int64)
        self._keys, self._offsets, self._labels = (
            table[chosen].copy() for table in (self._keys, self._offsets, self._labels)
        )

    def get_subset(self, indices: Sequence[int] | int) -> FaceRecordDataset:
        """Return a copy with the images that `get_subset_` keeps."""
        self._ensure_init()
        subset = copy.copy(self)
        subset._metainfo = copy.deepcopy(self._metainfo)
        subset.pipeline = copy.deepcopy(self.pipeline)
        subset.get_subset_(indices)
        return subset

    def _ensure_init(self) -> None:
        if not self._fully_initialized:
            self.full_init()

    def _check(self, faces: FaceRecords) -> None:
        """Raise for bad records, with their numbers, unless they are to be dropped."""
        if faces.bad and (self._bad_records == 'error' or not len(faces.keys)):
            count = sum(map(len, faces.bad.values()))
            advice = (
                "Copy the file anew, or set bad_records='drop' to go on without them"
                if len(faces.keys)
                else 'No record is left'
            )
            raise RecordError(
                f'{self._rec_path}: {count} of {count + len(faces.keys)} records are bad: '
                f'{_bad_records(faces.bad)}. {advice}',
                next(iter(faces.bad.values()))[0],
            )
        if not len(faces.keys):
            raise RecordError(f'{self._rec_path} has no images')

    def _report(self, faces: FaceRecords) -> None:
        """Log the content of the file, and what is odd."""
        counts = np.bincount(faces.labels, minlength=self._num_classes)
        notes = list(faces.notes)
        if faces.bad:
            notes.append(f'dropped: {_bad_records(faces.bad)}')
        if (counts == 0).any():
            notes.append(f'{np.sum(counts == 0)} of {len(counts)} classes have no image')
        single = int(np.sum(counts == 1))
        if single:
            notes.append(f'{single} identities have one image, which gives no genuine pair')
        report = f'{self._rec_path}: {len(faces.keys)} images of {np.sum(counts > 0)} identities'
        log_report('; '.join([report, *notes]), odd=bool(notes))


def _bad_records(bad: dict[str, list[int]]) -> str:
    """Say how many records are bad for each reason, and list the first of them.

    >>> _bad_records({'no image in it': [4, 9]})
    '2 no image in it (record 4, 9)'
    """
    return '; '.join(
        f'{len(keys)} {reason} (record {listed(keys)})' for reason, keys in bad.items()
    )
