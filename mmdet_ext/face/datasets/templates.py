"""Data set of the images of templates, for the protocols of IJB-B and IJB-C."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from mmengine.dataset import BaseDataset

from mmdet_ext.data.face.templates import read_templates
from mmdet_ext.face.datasets.labelled import LabelledDataset, image_prefix, log_report
from mmdet_ext.functional.numerics.checks import check_one_of
from mmdet_ext.registry import DATASETS


@DATASETS.register_module()
class FaceTemplatesDataset(LabelledDataset):
    """Data set of the images of templates, each once, with templates and pairs in its metainfo.

    ``metainfo['templates']`` holds ``image``, ``template`` and ``medium``, (R,) each, one row per
    image of a template; ``score``, (R,), if the lists have scores of a detector; and ``pairs``,
    (K, 2), with ``same``, (K,). TemplateVerificationMetric takes them.

    An entry has ``img_path``, ``gt_label`` (-1, because the lists name no identities), and with
    ``landmark_file`` also ``landmarks``, (5, 2), for AlignFace.

    Args:
        ann_file: list of images, relative to ``data_root``: ``image template medium`` and perhaps a
            score per line, as ``meta/ijbc_face_tid_mid.txt``.
        pair_file: list of pairs, relative to ``data_root``: ``template template label`` per line,
            as ``meta/ijbc_template_pair_label.txt``.
        landmark_file: list of ``image x y x y x y x y x y`` and perhaps a score per line, relative
            to ``data_root``, as ``meta/ijbc_name_5pts_score.txt``; None if images are aligned.
        data_root: folder of the lists and of the images.
        data_prefix: folder of the images, relative to ``data_root``, as ``loose_crop``.
        absent: 'error' raises for images that are absent; 'drop' leaves them out, with the pairs of
            templates that have no other image. Both report their numbers and the first ones.
        indices: refused, because templates would lose images.
        test_mode: as in MMEngine, but True by default.
        **kwargs: as in MMEngine's BaseDataset: pipeline, lazy_init, metainfo, ...

    Raises:
        mmdet_ext.data.reports.LayoutError: (a ValueError) if a list is absent or not of its form,
            images are absent, or a pair names a template without images.
        ValueError: if an option is none of the above.

    References:
        B. Maze et al.: IARPA Janus Benchmark - C: Face dataset and protocol. ICB, 2018.
    """

    def __init__(
        self,
        ann_file: str,
        pair_file: str,
        landmark_file: str | None = None,
        data_root: str = '',
        data_prefix: str | Mapping[str, str] = '',
        *,
        absent: Literal['error', 'drop'] = 'error',
        indices: None = None,
        test_mode: bool = True,
        **kwargs: Any,
    ) -> None:
        check_one_of('absent', absent, ('error', 'drop'))
        if indices is not None:
            raise ValueError(_no_subset(f'indices={indices!r}'))
        self._absent = absent
        self._pair_file = os.path.join(data_root, pair_file)
        self._landmark_file = landmark_file and os.path.join(data_root, landmark_file)
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=image_prefix(data_prefix),
            test_mode=test_mode,
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the lists, and log what was dropped and what is odd."""
        found = read_templates(
            self.ann_file,
            self._pair_file,
            self.data_prefix.get('img_path') or '.',
            self._landmark_file,
            self._absent,
        )
        table = found.table
        self._metainfo['templates'] = table
        genuine, count = int(table['same'].sum()), len(table['same'])
        report = (
            f'{self.ann_file}: {len(found.images):,} images of '
            f'{len(np.unique(table["template"])):,} templates, {count:,} pairs ({genuine:,} of one '
            f'person, {count - genuine:,} of two)'
        )
        log_report('; '.join([report, *found.notes]), odd=bool(found.notes))
        entries: list[dict[str, Any]] = [
            dict(img_path=str(path), gt_label=-1) for path in found.images
        ]
        if found.landmarks is not None:
            for entry, landmarks in zip(entries, found.landmarks, strict=True):
                entry['landmarks'] = landmarks
        return entries

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Raise ValueError, because templates would lose images."""
        raise ValueError(_no_subset('get_subset_'))

    def get_subset(self, indices: Sequence[int] | int) -> BaseDataset:
        """Raise ValueError, because templates would lose images."""
        raise ValueError(_no_subset('get_subset'))


def _no_subset(what: str) -> str:
    """Return the message that refuses a part of the images."""
    return (
        f'{what}: a part of the images would break the pairs of templates of FaceTemplatesDataset. '
        'Give lists of fewer templates instead'
    )
