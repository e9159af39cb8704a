"""Images of identities: a folder an identity, or a list of paths."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log

from mmdet_ext.data.face.folder import BadImages, list_faces
from mmdet_ext.face.datasets.labelled import LabelledDataset, image_prefix
from mmdet_ext.registry import DATASETS


@DATASETS.register_module()
class FaceFolderDataset(LabelledDataset):
    """Images of identities, read once and reported in one line.

    By default every folder right under ``data_root`` is an identity; labels number them in natural
    order, s2 before s10. An entry has ``img_path`` and ``gt_label``; ``metainfo['classes']`` holds
    the names. Three ways to take a part:

    - ``identities``: those named, in the order named;
    - ``identity_split``: parts that have no identity in common, by a hash of the name, as open-set
      evaluation wants them;
    - ``ann_file``: the images that a list names, with or without labels.

    Counted and said once: identities without an image or with one (which gives no genuine pair),
    hidden files, other files, folders within folders, grey, CMYK, 16-bit and animated images.

    Args:
        data_root: the folder of the data.
        ann_file: a list, relative to ``data_root``: a path a line, whose folder names the
            identity, or a path and a label of 0 .. C - 1.
        data_prefix: folder of the identities' folders, or of what a list names, relative to
            ``data_root``.
        identities: names, or a text file of a name a line. By default all.
        identity_split: dict(part='train' | 'val' | 'test', val_fraction=0.2, test_fraction=0.,
            seed=0). Give all parts the same fractions and seed.
        picture_split: dict(part='first' | 'rest', count=k): the first k images of each identity
            (a gallery) or those behind them (probes). Labels are the same in both.
        min_pictures: identities with fewer readable images are left out: 2 for losses that want
            pairs.
        num_classes: of the head, where the data must have as many identities.
        bad_images: what to do with missing, cut or unreadable images: raise an 'error', 'drop'
            them, counted, or leave them 'unchecked', which opens no file and counts no odd
            images.
        metainfo: as MMEngine's. ``classes`` names the labels of a list with labels, and is
            refused otherwise.
        **kwargs: as MMEngine's BaseDataset: pipeline, test_mode, indices, lazy_init, ...

    Raises:
        mmdet_ext.data.reports.LayoutError: (a ValueError) if the files are not there, names
            are absent, labels wrong, images bad, or nothing is left; the message counts them.
        ValueError: if an option is out of its range, or two exclude each other.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str = '',
        data_prefix: str | Mapping[str, str] = '',
        *,
        identities: Sequence[str] | str | None = None,
        identity_split: Mapping[str, Any] | None = None,
        picture_split: Mapping[str, Any] | None = None,
        min_pictures: int = 1,
        num_classes: int | None = None,
        bad_images: BadImages = 'error',
        metainfo: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._choice: dict[str, Any] = dict(
            identities=identities,
            identity_split=identity_split,
            picture_split=picture_split,
            min_pictures=min_pictures,
            num_classes=num_classes,
            bad_images=bad_images,
        )
        super().__init__(
            ann_file=ann_file,
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=image_prefix(data_prefix),
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Find the images, and say what was left out and what is odd."""
        faces = list_faces(
            self.data_prefix['img_path'],
            ann_file=self.ann_file or None,
            class_names=self._metainfo.get('classes'),
            **self._choice,
        )
        print_log(
            str(faces),
            logger='current',
            level=logging.WARNING if faces.left_out or faces.oddities else logging.INFO,
        )
        self._metainfo['classes'] = faces.classes
        return [
            dict(img_path=path, gt_label=label)
            for path, label in zip(faces.paths, faces.labels, strict=True)
        ]
