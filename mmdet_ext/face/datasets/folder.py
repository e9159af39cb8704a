"""Data set of images of identities, from one folder per identity or from a list of paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet_ext.data.face.folder import BadImages, list_faces
from mmdet_ext.face.datasets.labelled import LabelledDataset, image_prefix, log_report
from mmdet_ext.registry import DATASETS


@DATASETS.register_module()
class FaceFolderDataset(LabelledDataset):
    """Data set of images of identities in folders, which is reported in one line.

    By default every folder directly under ``data_root`` is an identity. Labels number them in
    natural order: s2 before s10. An entry has ``img_path`` and ``gt_label``, and
    ``metainfo['classes']`` holds the names. There are three ways to take a part:

    - ``identities``: the named identities, in the order of the names;
    - ``identity_split``: parts without a common identity, by a hash of the name, as open-set
      evaluation needs them;
    - ``ann_file``: the images of a list, with or without labels.

    The report counts identities with no image, or with only one (which gives no genuine pair),
    hidden files, other files, folders within folders, and grey, CMYK, 16-bit and animated images.

    Args:
        data_root: the folder of the data.
        ann_file: a list, relative to ``data_root``. Each line has a path, whose folder names the
            identity, or a path and a label of 0 .. C - 1.
        data_prefix: folder that contains the folders of identities, or that the paths of a list
            are relative to. It is relative to ``data_root``.
        identities: names, or a text file with one name per line. None takes all identities.
        identity_split: dict(part='train' | 'val' | 'test', val_fraction=0.2, test_fraction=0.,
            seed=0). Give all parts the same fractions and seed.
        picture_split: dict(part='first' | 'rest', count=k): the first k images of each identity
            (a gallery), or the images after them (probes). Labels are the same in both.
        min_pictures: smallest number of readable images of an identity; others are left out. Take
            2 for losses on pairs.
        num_classes: number of classes of the head; the data must have as many identities.
        bad_images: 'error' raises for missing, cut or unreadable images; 'drop' leaves them out
            and counts them; 'unchecked' opens no file, and so counts no odd images either.
        metainfo: as in MMEngine. ``classes`` names the labels of a list with labels, and is
            refused otherwise.
        **kwargs: as in MMEngine's BaseDataset: pipeline, test_mode, indices, lazy_init, ...

    Raises:
        mmdet_ext.data.reports.LayoutError: (a ValueError) if files or names are absent, labels are
            wrong, images are bad, or nothing is left; the message counts them.
        ValueError: if an option is out of its range, or two options exclude each other.
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
        """Find the images, and log what was left out and what is odd."""
        faces = list_faces(
            self.data_prefix['img_path'],
            ann_file=self.ann_file or None,
            class_names=self._metainfo.get('classes'),
            **self._choice,
        )
        log_report(str(faces), odd=bool(faces.left_out or faces.oddities))
        self._metainfo['classes'] = faces.classes
        return [
            dict(img_path=path, gt_label=label)
            for path, label in zip(faces.paths, faces.labels, strict=True)
        ]
