"""COCO-form data that says what it lacks instead of passing over it."""

from __future__ import annotations

import json
import logging
import os.path as osp
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmengine.logging import print_log

from mmdet_ext.datasets.images import find_bad_images
from mmdet_ext.registry import DATASETS

BadImages = Literal['drop', 'error', 'unchecked']

#: How many offenders a message lists.
EXAMPLES = 5


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):  # type: ignore[misc]
    """COCO-form data whose loading counts and names all that it passes over.

    The samples are stock's. What stock passes over in silence is counted and reported once, when
    the annotations are loaded: inverted, empty or out-of-picture boxes, boxes of other classes,
    pictures filtered out, missing and truncated pictures. What can only be a mistake is an error:
    no annotation file, classes that are not in it or stand in another order (labels would get
    wrong names), nothing left to train on.

    Args:
        *args: as stock.
        bad_images: what to do with missing, truncated or unreadable pictures: 'drop' them with a
            counted warning, raise an 'error', or leave them 'unchecked'. None drops in training
            and raises in testing, where dropping would change the figures. Pictures behind a
            ``backend_args`` are not checked.
        **kwargs: as stock.

    Raises:
        FileNotFoundError: if the annotation file, or every picture, is absent.
        ValueError: if ``bad_images`` is none of the above; if the classes do not match; if the
            file is no COCO annotation or nothing is left of it; if pictures are bad and
            ``bad_images`` is 'error'.
    """

    def __init__(self, *args: Any, bad_images: BadImages | None = None, **kwargs: Any) -> None:
        if bad_images not in (None, 'drop', 'error', 'unchecked'):
            raise ValueError(
                f"bad_images must be 'drop', 'error', 'unchecked' or None, got {bad_images!r}"
            )
        self._bad_images = bad_images
        self._dropped: dict[str, list[str]] = {}
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Load the annotations, check them and report what was dropped."""
        self._check_annotation_file()
        data_list: list[dict[str, Any]] = super().load_data_list()
        total = len(data_list)
        data_list = self._check_pictures(data_list)
        boxes = sum(len(info['instances']) for info in data_list)
        if not data_list or (boxes == 0 and not self.test_mode):
            what = 'pictures' if not data_list else 'boxes'
            raise ValueError(
                f'{self.ann_file!r} leaves no {what} to use. It has {total} pictures; '
                f'dropped: {self._report() or "nothing"}'
            )
        if self._dropped:
            print_log(
                f'{self.ann_file}: {len(data_list)} pictures, {boxes} boxes used. '
                f'Not used: {self._report()}',
                logger='current',
                level=logging.WARNING,
            )
        return data_list

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Stock's, without the boxes that are passed over, which are noted."""
        image = raw_data_info['raw_img_info']
        kept = []
        for ann in raw_data_info['raw_ann_info']:
            try:
                reason = box_problem(ann, image['width'], image['height'], self.cat_ids)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f'{self.ann_file!r}: annotation {ann.get("id")} of picture '
                    f'{image.get("file_name")!r} cannot be used ({error!r}). A picture needs '
                    'file_name, width and height; an annotation needs bbox=[x, y, width, height], '
                    'area and category_id, in numbers'
                ) from error
            if reason is None:
                kept.append(ann)
            else:
                self._note(reason, f'{image["file_name"]} {ann.get("bbox")}')
        return super().parse_data_info({**raw_data_info, 'raw_ann_info': kept})

    def filter_data(self) -> list[dict[str, Any]]:
        """Stock's, reporting how many pictures it takes away."""
        kept: list[dict[str, Any]] = super().filter_data()
        lost = len(self.data_list) - len(kept)
        if not kept:
            raise ValueError(
                f'{self.ann_file!r}: filter_cfg {dict(self.filter_cfg)} takes away all '
                f'{lost} pictures. Check that classes {self.metainfo["classes"]} have boxes'
            )
        if lost:
            print_log(
                f'{self.ann_file}: filter_cfg {dict(self.filter_cfg)} takes away {lost} of '
                f'{len(self.data_list)} pictures',
                logger='current',
                level=logging.WARNING,
            )
        return kept

    def _note(self, reason: str, example: str) -> None:
        self._dropped.setdefault(reason, []).append(example)

    def _report(self) -> str:
        return '; '.join(
            f'{len(found)} {reason} ({_examples(found)})' for reason, found in self._dropped.items()
        )

    def _check_annotation_file(self) -> None:
        """Raise unless the file is there, is COCO's form and has our classes in our order."""
        if self.backend_args is not None:
            return
        if not osp.isfile(self.ann_file):
            raise FileNotFoundError(
                f'annotation file {self.ann_file!r} is not there (data_root={self.data_root!r}). '
                'Set data_root and ann_file; tools/convert_voc.py makes one from Pascal VOC'
            )
        names = _category_names(self.ann_file)
        classes = list(self.metainfo['classes'])
        missing = [name for name in classes if name not in names]
        if missing:
            raise ValueError(
                f'classes {missing} of metainfo are not among the categories of '
                f'{self.ann_file!r}: {names}. Set metainfo=dict(classes=...) to names found there'
            )
        in_file_order = [name for name in names if name in classes]
        if classes != in_file_order:
            raise ValueError(
                f'metainfo names classes as {classes}, but {self.ann_file!r} has them in the '
                f'order {in_file_order}, by which stock numbers its labels: names would be '
                f'swapped. Use metainfo=dict(classes={tuple(in_file_order)!r})'
            )

    def _check_pictures(self, data_list: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Drop or refuse pictures that cannot be read whole."""
        if self._bad_images == 'unchecked' or self.backend_args is not None:
            return data_list
        bad = find_bad_images([Path(info['img_path']) for info in data_list])
        if not bad:
            return data_list
        reasons = Counter(bad.values())
        listed = _examples([f'{path}: {reason}' for path, reason in bad.items()])
        if reasons.get('missing') == len(data_list):
            raise FileNotFoundError(
                f'none of the {len(data_list)} pictures of {self.ann_file!r} is there '
                f'({listed}). Check data_root={self.data_root!r} and '
                f'data_prefix={dict(self.data_prefix)}'
            )
        policy = self._bad_images or ('error' if self.test_mode else 'drop')
        if policy == 'error':
            raise ValueError(
                f'{len(bad)} of {len(data_list)} pictures of {self.ann_file!r} cannot be read: '
                f"{listed}. Mend them, or set bad_images='drop' to go on without them"
            )
        for path, reason in bad.items():
            self._note(f'pictures, {reason}', str(path))
        return [info for info in data_list if Path(info['img_path']) not in bad]


def box_problem(
    ann: dict[str, Any], width: float, height: float, category_ids: list[int]
) -> str | None:
    """Why an annotation is passed over, None when it is not: stock's rule, and finite numbers.

    Args:
        ann: COCO annotation, ``bbox`` as x, y, width, height in px.
        width: of the picture, px.
        height: of the picture, px.
        category_ids: those in use.

    >>> box_problem(dict(bbox=[4, 4, -2, 3], area=6, category_id=1), 10, 10, [1])
    'inverted boxes'
    """
    if ann.get('ignore', False):
        return "boxes marked 'ignore'"
    x, y, w, h = ann['bbox']
    if not all(abs(value) < float('inf') for value in (x, y, w, h)):
        return 'boxes with numbers that are not finite'
    if w < 0 or h < 0:
        return 'inverted boxes'
    if w < 1 or h < 1 or ann['area'] <= 0:
        return 'boxes narrower than a pixel'
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return 'boxes outside the picture'
    if ann['category_id'] not in category_ids:
        return 'boxes of other classes'
    return None


def _category_names(path: str) -> list[str]:
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except ValueError as error:
        raise ValueError(f'{path!r} is no JSON: {error}') from error
    found = content if isinstance(content, dict) else {}
    lacks = [key for key in ('images', 'annotations', 'categories') if key not in found]
    if lacks:
        raise ValueError(f'{path!r} is no COCO annotation: it lacks {", ".join(lacks)}')
    return [category['name'] for category in content['categories']]


def _examples(found: list[str]) -> str:
    more = len(found) - EXAMPLES
    return ', '.join(found[:EXAMPLES]) + (f', and {more} more' if more > 0 else '')
