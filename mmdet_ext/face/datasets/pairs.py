"""Data set of the images of listed pairs, for verification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement

from mmdet_ext.data.face.pairs import (
    FacePairs,
    PairsError,
    read_bin_pairs,
    read_lfw_pairs,
    read_table_pairs,
)
from mmdet_ext.data.face.pairs.sets import PairSet, PairTable, check_name, default_name
from mmdet_ext.data.images import decode_image
from mmdet_ext.face.datasets.joinable import JoinableMeta
from mmdet_ext.face.datasets.labelled import LabelledDataset, image_prefix, log_report
from mmdet_ext.functional.numerics.checks import check_one_of
from mmdet_ext.registry import DATASETS

_FORMS = {'.bin': 'bin', '.csv': 'table', '.tsv': 'table'}


@DATASETS.register_module()
class FacePairsDataset(LabelledDataset):
    """Data set of the images of a list of pairs, each once, with the pairs in its metainfo.

    ``metainfo['pairs']`` holds ``index``, (K, 2) int64, the ``sample_idx`` of the two images of
    each pair; ``same``, (K,) bool; and ``fold``, (K,) int64, from 0 on.

    Several such data sets may be joined by ``ConcatDataset``, which keeps the metainfo of the first
    alone. So each data sample that the pipeline packs also carries its set and its places in pairs,
    in the meta key ``pair_set``, by which FaceVerificationMetric reports each set by its name.

    An entry has ``gt_label``: the index of the identity in ``metainfo['classes']`` if the list
    names identities (LFW's form), else -1. An image in a file has ``img_path``. An image of a
    ``.bin`` has ``img``, (H, W, 3), uint8, BGR, with ``img_shape``, ``ori_shape``, and the name of
    its place as ``img_path``. LoadFace at the beginning of a pipeline serves both.

    Args:
        ann_file: the list, relative to ``data_root``: LFW's ``pairs.txt``, a table ``.csv`` or
            ``.tsv`` of 'path1,path2,same' and perhaps a fold, or InsightFace's ``.bin``.
        data_root: folder of the list and of the images.
        data_prefix: folder of the images, relative to ``data_root``; not used for a ``.bin``.
        form: 'lfw', 'table' or 'bin'; 'auto' infers it from the suffix: ``.bin`` is 'bin', ``.csv``
            and ``.tsv`` are 'table', any other is 'lfw'.
        absent: 'error' raises for pairs whose files are absent, 'drop' leaves these pairs out. Both
            report their number and the first ones.
        folds: number of folds to divide the pairs into, for a ``.bin`` and a table without folds.
        name: name of the set in results. None takes the stem of ``ann_file``, or its folder if the
            stem is 'pairs'.
        indices: refused, because pairs would lose an image.
        test_mode: as in MMEngine, but True by default.
        **kwargs: as in MMEngine's BaseDataset: pipeline, lazy_init, metainfo, ...

    Raises:
        FileNotFoundError: if the list or the folder of images is absent.
        mmdet_ext.data.face.pairs.PairsError: (a ValueError) if the list is not of its form, or
            names absent files.
        mmdet_ext.data.face.safe_pickle.UnsafePickleError: (a ValueError) if a ``.bin`` has content
            that could run code.
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
        name: str | None = None,
        indices: None = None,
        test_mode: bool = True,
        **kwargs: Any,
    ) -> None:
        check_one_of('form', form, ('auto', 'lfw', 'table', 'bin'))
        check_one_of('absent', absent, ('error', 'drop'))
        if indices is not None:
            raise ValueError(_no_subset(f'indices={indices!r}'))
        self._form = _FORMS.get(Path(ann_file).suffix.lower(), 'lfw') if form == 'auto' else form
        self._absent, self._folds = absent, folds
        if name is not None:
            check_name(name)
        self._name = name
        self._pair_set: PairSet | None = None
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=image_prefix(data_prefix),
            test_mode=test_mode,
            **kwargs,
        )

    @property
    def name(self) -> str:
        """Name of the set in results."""
        return default_name(self.ann_file) if self._name is None else self._name

    @property
    def metainfo(self) -> dict[str, Any]:
        """Copy of the meta information, which does not keep data sets from being joined."""
        return JoinableMeta(super().metainfo)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the list, and log what was dropped and what is odd."""
        pairs = self._read()
        table = PairTable(len(pairs.images), pairs.index, pairs.same, pairs.fold)
        self._metainfo['pairs'] = table
        self._pair_set = PairSet(self.name, self._name is not None, self.ann_file, table)
        if pairs.classes:
            self._metainfo['classes'] = tuple(pairs.classes)
        count, genuine = len(pairs.same), int(pairs.same.sum())
        report = (
            f'{self.ann_file}: {count} pairs ({genuine} of one person, {count - genuine} of two) '
            f'in {pairs.fold.max() + 1} folds, of {len(pairs.images)} images'
        )
        log_report('; '.join([report, *pairs.notes]), odd=bool(pairs.notes))
        return [
            dict(gt_label=label, **_source(image))
            for image, label in zip(pairs.images, pairs.labels.tolist(), strict=True)
        ]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return the entry of an image, and decode an image of a ``.bin``.

        Raises:
            PairsError: with file and image, if the image cannot be decoded.
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

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline, and write the set and its pairs onto the packed data samples."""
        results = super().prepare_data(idx)
        if self._pair_set is not None:
            carried = self._pair_set.carried_by(idx if idx >= 0 else len(self) + idx)
            for sample in _packed(results):
                sample.set_metainfo(dict(pair_set=carried))
        return results

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Raise ValueError, because pairs would lose an image."""
        raise ValueError(_no_subset('get_subset_'))

    def get_subset(self, indices: Sequence[int] | int) -> BaseDataset:
        """Raise ValueError, because pairs would lose an image."""
        raise ValueError(_no_subset('get_subset'))

    def _read(self) -> FacePairs:
        """Read the list in its form."""
        root = self.data_prefix.get('img_path') or '.'
        if self._form == 'bin':
            return read_bin_pairs(self.ann_file, self._folds)
        if self._form == 'table':
            return read_table_pairs(self.ann_file, root, self._absent, self._folds)
        return read_lfw_pairs(self.ann_file, root, self._absent)


def _source(image: Path | bytes) -> dict[str, Any]:
    """Return the part of an entry that gives the path or the bytes of its image."""
    if isinstance(image, bytes):
        return dict(encoded=image)
    return dict(img_path=str(image))


def _packed(results: Any) -> Iterator[BaseDataElement]:
    """Yield the data samples in what a pipeline returns, several for several views."""
    values = results.values() if isinstance(results, Mapping) else ()
    for value in values:
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(one, BaseDataElement):
                yield one


def _no_subset(what: str) -> str:
    """Return the message that refuses a part of the images."""
    return (
        f'{what}: a part of the images would break the pairs of FacePairsDataset. Give a list '
        'with fewer pairs instead'
    )
