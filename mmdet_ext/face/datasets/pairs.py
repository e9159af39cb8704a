"""Pairs of faces for verification."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mmdet_ext.data.face.pairs import (
    FacePairs,
    PairsError,
    read_bin_pairs,
    read_lfw_pairs,
    read_table_pairs,
)
from mmdet_ext.data.images import decode_image
from mmdet_ext.face.datasets.labelled import LabelledDataset, image_prefix
from mmdet_ext.registry import DATASETS

_FORMS = {'.bin': 'bin', '.csv': 'table', '.tsv': 'table'}


@DATASETS.register_module()
class FacePairsDataset(LabelledDataset):
    """The images of a list of pairs, each once, and the pairs in its meta information.

    ``metainfo['pairs']`` holds ``index`` (K, 2) int64, the ``sample_idx`` of the two images of
    each pair; ``same`` (K,) bool; and ``fold`` (K,) int64, from 0 on.

    An entry has ``gt_label``, the identity in ``metainfo['classes']`` where the list names
    identities (LFW's form), else -1. Of files it has ``img_path``, so that a pipeline begins with
    ``LoadImageFromFile``; of a ``.bin`` it has ``img``, (H, W, 3) uint8 in BGR, with ``img_shape``
    and ``ori_shape``, so that a pipeline begins behind the loading.

    Args:
        ann_file: the list, relative to ``data_root``: LFW's ``pairs.txt``, a table ``.csv`` or
            ``.tsv`` of 'path1,path2,same' and perhaps a fold, or InsightFace's ``.bin``.
        data_root: folder of the list and of the images.
        data_prefix: folder of the images, relative to ``data_root``; not for a ``.bin``.
        form: 'lfw', 'table' or 'bin'; by default told by the ending, anything else being 'lfw'.
        absent: what to do with pairs whose files are absent: raise an 'error' or 'drop' them;
            both say how many and which first.
        folds: to deal the pairs to, of a ``.bin`` and of a table without folds.
        **kwargs: as MMEngine's BaseDataset: pipeline, lazy_init, metainfo, ... ``indices`` is
            refused, as pairs would lose an image.

    Raises:
        FileNotFoundError: if the list or the folder of images is absent.
        mmdet_ext.data.face.pairs.PairsError: (a ValueError) if the list is not of its form, or
            names absent files.
        mmdet_ext.data.face.safe_pickle.UnsafePickleError: (a ValueError) if a ``.bin`` holds what
            could run code.
        ValueError: if an option is none of the above.

    References:
        Huang et al., Labeled Faces in the Wild, UMass Amherst TR 07-49, 2007.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: str | Mapping[str, str] = '',
        *,
        form: Literal['auto', 'lfw', 'table', 'bin'] = 'auto',
        absent: Literal['error', 'drop'] = 'error',
        folds: int = 10,
        indices: None = None,
        test_mode: bool = True,
        **kwargs: Any,
    ) -> None:
        if form not in ('auto', 'lfw', 'table', 'bin'):
            raise ValueError(f"form must be 'auto', 'lfw', 'table' or 'bin', got {form!r}")
        if absent not in ('error', 'drop'):
            raise ValueError(f"absent must be 'error' or 'drop', got {absent!r}")
        if indices is not None:
            raise ValueError(_no_subset(f'indices={indices!r}'))
        self._form = _FORMS.get(Path(ann_file).suffix.lower(), 'lfw') if form == 'auto' else form
        self._absent, self._folds = absent, folds
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=image_prefix(data_prefix),
            test_mode=test_mode,
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the list, and say what was dropped and what is odd."""
        pairs = self._read()
        self._metainfo['pairs'] = dict(index=pairs.index, same=pairs.same, fold=pairs.fold)
        if pairs.classes:
            self._metainfo['classes'] = tuple(pairs.classes)
        count, genuine = len(pairs.same), int(pairs.same.sum())
        print_log(
            '; '.join(
                [
                    f'{self.ann_file}: {count} pairs ({genuine} of one person, {count - genuine} of '
                    f'two) in {pairs.fold.max() + 1} folds, of {len(pairs.images)} images',
                    *pairs.notes,
                ]
            ),
            logger='current',
            level=logging.WARNING if pairs.notes else logging.INFO,
        )
        return [
            dict(gt_label=label, **_source(image))
            for image, label in zip(pairs.images, pairs.labels.tolist(), strict=True)
        ]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The entry of an image; one of a ``.bin`` is decoded.

        Raises:
            PairsError: naming file and image, if it cannot be decoded.
        """
        info: dict[str, Any] = super().get_data_info(idx)
        encoded = info.pop('encoded', None)
        if encoded is not None:
            try:
                img = decode_image(encoded)
            except ValueError as error:
                pairs = np.flatnonzero(
                    (self._metainfo['pairs']['index'] == info['sample_idx']).any(1)
                )
                raise PairsError(
                    f'{self.ann_file}: image {info["sample_idx"]}, of pair {pairs[0]}: {error}'
                ) from error
            info.update(
                img=img,
                img_shape=img.shape[:2],
                ori_shape=img.shape[:2],
                img_path=f'{self.ann_file}#{info["sample_idx"]}',
            )
        return info

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Refused: pairs would lose an image."""
        raise ValueError(_no_subset('get_subset_'))

    def get_subset(self, indices: Sequence[int] | int) -> BaseDataset:
        """Refused: pairs would lose an image."""
        raise ValueError(_no_subset('get_subset'))

    def _read(self) -> FacePairs:
        root = self.data_prefix.get('img_path') or '.'
        if self._form == 'bin':
            return read_bin_pairs(self.ann_file, self._folds)
        if self._form == 'table':
            return read_table_pairs(self.ann_file, root, self._absent, self._folds)
        return read_lfw_pairs(self.ann_file, root, self._absent)


def _source(image: Path | bytes) -> dict[str, Any]:
    if isinstance(image, bytes):
        return dict(encoded=image)
    return dict(img_path=str(image))


def _no_subset(what: str) -> str:
    return (
        f'{what}: a part of the images would break the pairs of FacePairsDataset. Give a list '
        'with fewer pairs instead'
    )
