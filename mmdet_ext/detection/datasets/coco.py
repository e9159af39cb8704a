"""Data set in COCO form that reports the boxes and images it leaves out."""

from __future__ import annotations

import logging
import os.path as osp
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmengine.fileio import load
from mmengine.logging import print_log
from mmengine.utils import is_abs

from mmdet_ext.data.coco.annotations import (
    check_records,
    is_finite,
    load_coco,
    read_coco,
    repeated_names,
)
from mmdet_ext.data.coco.ids import check_ids, is_other_kind
from mmdet_ext.data.coco.image_files import ImageFiles, check_image_files
from mmdet_ext.data.coco.values import is_fraction_box
from mmdet_ext.data.images import OpenCVError
from mmdet_ext.data.reports import Tally, listed
from mmdet_ext.detection.datasets.proposals import attach_proposals
from mmdet_ext.detection.datasets.trained_files import find_trained, remember_training
from mmdet_ext.functional.numerics.checks import check_one_of
from mmdet_ext.registry import DATASETS

BadImages = Literal['drop', 'error', 'unchecked']

_ANNOTATION_KEYS = ('id', 'image_id', 'category_id', 'bbox', 'area')
_SIZE_KEYS = ('width', 'height')
_FOR_BACKGROUND = 'For images of background alone set filter_cfg=dict(filter_empty_gt=False)'


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``CocoDataset`` that reports all that it leaves out.

    The samples are mmdet's. mmdet leaves out bad boxes and images silently. This data set counts
    them and reports them in one warning when it loads the annotations: inverted, empty and
    out-of-image boxes, boxes of other classes, boxes of unlisted images, filtered, missing and
    truncated images. Numbers and flags may be text: ``"iscrowd": "0"`` is no crowd. Sizes of
    images are those of their files; the warning counts those that the annotations state otherwise,
    and files that stand several times. Another warning names images to test on that a training set
    of the process also holds.

    It raises an error for what can only be a mistake: no annotation file, an incomplete record,
    two images with one id, ids that are text here and numbers there, boxes in fractions of the
    image, no image left, no box left in training, or classes that are not in the file, are in
    another order or share a name, as labels would then get wrong names. Files without a single
    annotation train with ``filter_cfg=dict(filter_empty_gt=False)``, as background alone.

    Args:
        *args: arguments of mmdet's ``CocoDataset``.
        bad_images: treatment of missing, truncated or unreadable images, and of images whose boxes
            are drawn at another size than that of the file: 'drop' them with a warning that counts
            them, raise an 'error', or leave them 'unchecked'. None drops in training and raises in
            testing, where dropping would change the results. Images behind a ``backend_args`` or a
            prefix such as ``s3://`` are not checked. The annotations must state the sizes of
            images that are not checked.
        **kwargs: keyword arguments of mmdet's ``CocoDataset``.

    Raises:
        FileNotFoundError: if the annotation file, or every image, is absent.
        ValueError: if ``bad_images`` is none of the above; if the classes do not match; if the
            file is no COCO annotation or nothing is left of it; if images are bad and
            ``bad_images`` is 'error'.
    """

    def __init__(self, *args: Any, bad_images: BadImages | None = None, **kwargs: Any) -> None:
        check_one_of('bad_images', bad_images, ('drop', 'error', 'unchecked', None))
        self._bad_images = bad_images
        self._dropped, self._notes = Tally(), Tally()
        self._listed = self._annotated = 0
        self._turned = _loads_turned(kwargs.get('pipeline'))
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Load the annotations, check them and report what was left out."""
        if self._is_local(self.ann_file) and not osp.isfile(self.ann_file):
            raise FileNotFoundError(
                f'annotation file {self.ann_file!r} is not there (data_root={self.data_root!r}). '
                'Set data_root and ann_file; tools/data/convert_voc.py makes one from Pascal VOC'
            )
        self._dropped, self._notes = Tally(), Tally()
        data_list: list[dict[str, Any]] = super().load_data_list()
        boxes = sum(len(info['instances']) for info in data_list)
        # Each worker of a data loader gets a copy of the data set, so it keeps no examples.
        dropped, self._dropped = self._dropped, Tally()
        notes, self._notes = self._notes, Tally()
        if not data_list or (boxes == 0 and not self.test_mode and not self._is_background()):
            what = 'images' if not data_list else 'boxes'
            raise ValueError(
                f'{self.ann_file!r} leaves no {what} to use. It has {self._listed} images; '
                f'dropped: {dropped if dropped else "nothing"}'
                + (f'. Noted: {notes}' if notes else '')
                + (f'. {_FOR_BACKGROUND}' if data_list and not self._annotated else '')
            )
        if dropped or notes:
            self._warn(
                f'{len(data_list)} images, {boxes} boxes used.'
                + (f' Not used: {dropped}' if dropped else '')
                + ('.' if dropped and notes else '')
                + (f' Noted: {notes}' if notes else '')
            )
        if self.test_mode and self._bad_images != 'unchecked':
            self._warn_of_trained([info['img_path'] for info in data_list])
        return data_list

    def COCOAPI(self, path: str) -> COCO:
        """Open the annotation file and check it.

        mmdet's loading calls this attribute, which is a class there.

        Args:
            path: path of the file, or of the local copy that mmdet has fetched.

        Raises:
            ValueError: if the file is no COCO annotation, a record lacks something, the classes do
                not match, or images are bad and ``bad_images`` is 'error'.
            FileNotFoundError: if every image is absent.
        """
        if self.test_mode:
            content, faults = read_coco(Path(path), self.ann_file)
        else:
            content, faults = load_coco(Path(path), self.ann_file), Tally()
        self._check_classes(content)
        annotations = content['annotations']
        check_records(self.ann_file, 'annotations', annotations, _ANNOTATION_KEYS)
        check_ids(self.ann_file, 'annotations', annotations)
        if faults:
            self._warn(
                'an evaluator that reads this file itself, such as CocoMetric with ann_file, fails '
                f'on these values or takes them for others: {faults}. Write the file anew with '
                'tools/data/rewrite_coco.py, and use the new one for data set and evaluator'
            )
        image_ids = {image['id'] for image in content['images']}
        for ann in annotations:
            if ann['image_id'] not in image_ids:
                example = f'annotation {ann["id"]} of image_id {ann["image_id"]!r}'
                if is_other_kind(ann['image_id'], image_ids):
                    example += f', of another kind than ids of images such as {min(image_ids)!r}'
                self._dropped.add('boxes of unlisted images', example)
        self._listed, self._annotated = len(content['images']), len(annotations)
        content['images'] = self._usable_images(content)
        image_ids = {image['id'] for image in content['images']}
        content['annotations'] = [ann for ann in annotations if ann['image_id'] in image_ids]
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        # mmdet's COCO sets these two names only where it reads the file itself.
        coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
        return coco

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Parse an image's annotations as mmdet does, and count the boxes that are left out."""
        image = raw_data_info['raw_img_info']
        kept = []
        for ann in raw_data_info['raw_ann_info']:
            reason = box_problem(ann, image['width'], image['height'], self.cat_ids)
            if reason is None:
                kept.append(ann)
            else:
                self._dropped.add(reason, f'{image["file_name"]} {ann["bbox"]}')
        return super().parse_data_info({**raw_data_info, 'raw_ann_info': kept})

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on an image; one that OpenCV refuses is named with its size.

        A very long image has no pixel left on its short side where ``Resize`` keeps its ratio.
        """
        try:
            return super().prepare_data(idx)
        except OpenCVError as error:
            info = self.get_data_info(idx)
            raise ValueError(
                f'the pipeline fails on {info["img_path"]!r}, of {info["width"]} x '
                f'{info["height"]} px (width x height): {str(error).strip()}. If a side becomes '
                'less than a pixel, leave the image out of the annotations, cut it into parts, or '
                'raise scale of Resize'
            ) from error

    def load_proposals(self) -> None:
        """Load the proposals of ``proposal_file``; images that it has beyond ours are ignored.

        Raises:
            ValueError: if an image has no proposals, or two images have one name.
        """
        path = str(self.proposal_file)
        if not is_abs(path):
            path = osp.join(self.data_root, path)
        attach_proposals(self.data_list, load(path, backend_args=self.backend_args), path)

    def filter_data(self) -> list[dict[str, Any]]:
        """Filter images as mmdet does, and report how many are taken away."""
        kept: list[dict[str, Any]] = super().filter_data()
        lost = len(self.data_list) - len(kept)
        if not kept:
            raise ValueError(
                f'{self.ann_file!r}: filter_cfg {dict(self.filter_cfg)} takes away all '
                f'{lost} images. Check that classes {self.metainfo["classes"]} have boxes'
            )
        if lost:
            self._warn(
                f'filter_cfg {dict(self.filter_cfg)} takes away {lost} of '
                f'{len(self.data_list)} images'
            )
        if not self.test_mode:
            remember_training(self, [info['img_path'] for info in kept])
        return kept

    def _warn(self, message: str) -> None:
        """Write a warning about the annotation file to the log."""
        print_log(f'{self.ann_file}: {message}', logger='current', level=logging.WARNING)

    def _is_background(self) -> bool:
        """Return whether images of background alone are meant: nothing is annotated, and they stay.

        Where boxes are annotated and none is left, something is wrong with the boxes.
        """
        stays = (self.filter_cfg or {}).get('filter_empty_gt', True) is False
        return stays and self._annotated == 0

    def _is_local(self, path: str) -> bool:
        """Return whether MMEngine reads the path as a plain file, not by a backend."""
        return self.backend_args is None and '://' not in str(path)

    def _check_classes(self, content: dict[str, Any]) -> None:
        """Raise ValueError unless the file has our classes, once each and in our order."""
        names = [category['name'] for category in content['categories']]
        classes = list(self.metainfo['classes'])
        missing = [name for name in classes if name not in names]
        if missing:
            raise ValueError(
                f'classes {missing} of metainfo are not among the categories of '
                f'{self.ann_file!r}: {names}. Set metainfo=dict(classes=...) to names found there'
            )
        repeated = {n: ids for n, ids in repeated_names(content).items() if n in classes}
        if repeated:
            raise ValueError(
                f'{self.ann_file!r} has several categories of one name, {repeated} (name: ids), '
                'each of which mmdet takes for a class of its own: names would be swapped. '
                'Remove those without boxes, or make them one'
            )
        in_file_order = [name for name in names if name in classes]
        if classes != in_file_order:
            raise ValueError(
                f'metainfo names classes as {classes}, but {self.ann_file!r} has them in the '
                f'order {in_file_order}, by which mmdet numbers its labels: names would be '
                f'swapped. Use metainfo=dict(classes={tuple(in_file_order)!r})'
            )

    def _usable_images(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        """Drop or refuse images that cannot be used, as ``bad_images`` says.

        The others get the width and height of their files.
        """
        images = content['images']
        paths = [osp.join(self.data_prefix['img'], image['file_name']) for image in images]
        checked = [self._bad_images != 'unchecked' and self._is_local(path) for path in paths]
        unchecked = [image for image, known in zip(images, checked, strict=True) if not known]
        check_records(self.ann_file, 'unchecked images', unchecked, _SIZE_KEYS)
        local = [index for index, known in enumerate(checked) if known]
        if not local:
            return list(images)
        found = check_image_files(
            {**content, 'images': [images[index] for index in local]},
            [Path(paths[index]) for index in local],
            turned=self._turned,
        )
        self._notes = found.notes
        self._judge(found, len(set(paths)))
        return [
            image for image, path in zip(images, paths, strict=True) if Path(path) not in found.bad
        ]

    def _judge(self, found: ImageFiles, total: int) -> None:
        """Count bad images as dropped, or raise."""
        reasons = Counter(found.unreadable.values())
        shown = listed([f'{path}: {reason}' for path, reason in found.unreadable.items()])
        if total and reasons.get('missing') == total:
            raise FileNotFoundError(
                f'none of the {total} images of {self.ann_file!r} is there '
                f'({shown}). Check data_root={self.data_root!r} and '
                f'data_prefix={dict(self.data_prefix)}'
            )
        policy = self._bad_images or ('error' if self.test_mode else 'drop')
        if policy == 'error' and found.unreadable:
            raise ValueError(
                f'{len(found.unreadable)} of {total} images of {self.ann_file!r} cannot be read: '
                f"{shown}. Mend them, or set bad_images='drop' to go on without them"
            )
        if policy == 'error' and found.misdrawn:
            sizes = [f'{path}: {sizes}' for path, sizes in found.misdrawn.items()]
            raise ValueError(
                f'{len(sizes)} of {total} images of {self.ann_file!r} have another size than the '
                f'annotations state, and boxes drawn at the stated one: {listed(sizes)}. Resize '
                "or turn these images or their boxes, or set bad_images='drop' to go on without "
                'them'
            )
        for path, reason in found.bad.items():
            detail = f': {found.misdrawn[path]}' if path in found.misdrawn else ''
            self._dropped.add(f'images, {reason}', f'{path}{detail}')

    def _warn_of_trained(self, paths: list[str]) -> None:
        """Warn of images that a training set of this process also holds."""
        shared = find_trained(paths)
        if shared:
            examples = [str(a) if a == b else f'{a} = {b}' for a, b in shared]
            self._warn(
                f'{len(shared)} of {len(paths)} images to test on are also trained on, as the same '
                f'file or as one of equal content: {listed(examples)}. Results on them do not show '
                'what the detector makes of new images. Remove them from one of the sets'
            )


def _loads_turned(pipeline: Any) -> bool:
    """Return whether a pipeline loads images turned by their EXIF orientation."""
    for step in pipeline or ():
        kind = step.get('type') if isinstance(step, dict) else None
        if str(getattr(kind, '__name__', kind)).endswith('LoadImageFromFile'):
            color_type = str(step.get('color_type', 'color'))
            return 'ignore_orientation' not in color_type and color_type != 'unchanged'
    return True


def box_problem(
    ann: dict[str, Any], width: float, height: float, category_ids: list[int]
) -> str | None:
    """Return the reason for which a box is left out, or None if it is used.

    The rule is mmdet's. In addition, numbers must be finite.

    Args:
        ann: COCO annotation, with ``bbox`` as x, y, width, height in px.
        width: width of the image, px.
        height: height of the image, px.
        category_ids: ids of the categories in use.

    >>> box_problem(dict(bbox=[4, 4, -2, 3], area=6, category_id=1), 10, 10, [1])
    'inverted boxes'
    """
    if ann.get('ignore', False):
        return "boxes marked 'ignore'"
    x, y, w, h = ann['bbox']
    if not all(map(is_finite, (x, y, w, h))):
        return 'boxes with numbers that are not finite'
    if w < 0 or h < 0:
        return 'inverted boxes'
    if is_fraction_box(x, y, w, h):
        return 'boxes within 0..1, as in fractions of the image instead of px'
    if w < 1 or h < 1:
        return 'boxes narrower than a pixel'
    if ann['area'] <= 0:
        return 'boxes with an area of 0, which tools/data/rewrite_coco.py computes anew'
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return 'boxes outside the image'
    if ann['category_id'] not in category_ids:
        return 'boxes of other classes'
    return None
