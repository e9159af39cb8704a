"""Flags and numbers of COCO files in the form that COCO's own files have.

mmdet and pycocotools look at the truth of a flag, where the text '0' is true. Values that can be
read with certainty are therefore rewritten in memory before a host sees them. Standard library
only.
"""

from __future__ import annotations

import math
import re
from typing import Any

from mmdet_ext.data.coco.values import in_fractions, is_fraction_box, read_flag, read_number
from mmdet_ext.data.reports import LayoutError, Tally, listed

#: Text between the numbers of a box that is written as one text.
_SEPARATORS = re.compile(r'\s*[,;]\s*|\s+')
_FLAGS = ('iscrowd', 'ignore')
_NUMBERS = {'images': ('width', 'height'), 'annotations': ('area',)}


def normalise_values(name: str, content: dict[str, Any]) -> None:
    """Rewrite flags, sizes, areas and boxes that are texts as numbers, in place.

    Numbers that cannot be read stay as they are, for the checks of the records.

    Args:
        name: Name of the file in the message.
        content: Contents of a COCO file; its lists may hold anything.

    Raises:
        LayoutError: If a flag is neither true nor false; the message counts them and names the
            first ones.
    """
    for kind, keys in _NUMBERS.items():
        for record in content[kind]:
            for key in keys:
                if isinstance(record, dict) and isinstance(record.get(key), str):
                    number = read_number(record[key])
                    record[key] = record[key] if number is None else number
    for record in content['annotations']:
        box = record.get('bbox') if isinstance(record, dict) else None
        if isinstance(box, str):  # tables write a list as one text
            box = _SEPARATORS.split(box.strip().strip('[]()').strip())
        if isinstance(box, list) and any(isinstance(side, str) for side in box):
            sides = [read_number(side) for side in box]
            record['bbox'] = record['bbox'] if None in sides else sides
    for key in _FLAGS:
        _normalise_flags(name, key, content['annotations'])


def _normalise_flags(name: str, key: str, annotations: list[Any]) -> None:
    """Rewrite the flags of one key as 0 and 1."""
    unread = []
    for index, record in enumerate(annotations):
        if not isinstance(record, dict) or key not in record:
            continue
        value = record[key]
        if type(value) is int and value in (0, 1):
            continue
        flag = read_flag(value)
        if flag is None:
            unread.append(f'annotations[{index}] has {key} {value!r:.50}')
        else:
            record[key] = int(flag)
    if unread:
        raise LayoutError(
            f'{name}: {len(unread)} annotations have an {key} that is neither true nor false: '
            f'{listed(unread)}. Write 0 or 1'
        )


def evaluation_faults(content: dict[str, Any]) -> Tally:
    """Count the values for which pycocotools fails, or evaluates something else than is meant.

    mmdet's ``CocoMetric`` reads its ``ann_file`` by itself, so nothing rewritten in memory reaches
    it.

    Args:
        content: Contents of a COCO file as they were read.
    """
    faults = Tally()
    for index, record in enumerate(content['annotations']):
        if not isinstance(record, dict):
            continue
        crowd, area, own = record.get('iscrowd'), record.get('area'), record.get('id')
        example = f'annotations[{index}]'
        form = _text_of_box(record.get('bbox'))
        if form:
            faults.add(form, example)
        if type(crowd) is int and type(own) is int and own and not isinstance(area, str):
            continue
        if 'iscrowd' not in record:
            faults.add('annotations without iscrowd', example)
        elif crowd is None or (isinstance(crowd, str) and crowd.strip() != '1'):
            faults.add('iscrowd that is no number', f'{example} has {crowd!r:.50}')
        if isinstance(area, str):
            faults.add('area that is text', f'{example} has {area!r:.50}')
        if read_number(own) == 0:
            faults.add("id 0, which stands for 'no match' there", example)
        elif isinstance(own, str) and read_number(own) is None:
            faults.add('id that is no number', f'{example} has {own!r:.50}')
    return faults


def _text_of_box(box: Any) -> str | None:
    """Return the form of a box that is text, or has numbers that are text."""
    if isinstance(box, str):
        return 'bbox that is one text'
    if isinstance(box, list) and any(isinstance(side, str) for side in box):
        return 'bbox with numbers that are text'
    return None


def complete_annotations(coco: dict[str, Any]) -> None:
    """Give all annotations the keys that COCO's evaluation needs, in place.

    These are an area above 0, ``iscrowd``, and ids from 1 on, as 0 stands for "no match" there.

    Args:
        coco: Contents of a COCO file with usable annotations, after :func:`normalise_values`.
    """
    for number, record in enumerate(coco['annotations'], start=1):
        record.update(id=number, iscrowd=int(bool(read_flag(record.get('iscrowd')))))
        area = record.get('area')
        is_number = isinstance(area, (int, float)) and not isinstance(area, bool)
        if not (is_number and 0 < area < math.inf):
            record['area'] = record['bbox'][2] * record['bbox'][3]


def check_box_unit(name: str, content: dict[str, Any]) -> None:
    """Raise if the boxes of a file are in fractions of the image's size, instead of px.

    Args:
        name: Name of the file in the message.
        content: Contents of a COCO file, after :func:`normalise_values`.

    Raises:
        LayoutError: If most boxes lie in 0..1; the message counts them and names the first ones.
    """
    boxes = map(usable_box, content['annotations'])
    found = [(index, box) for index, box in enumerate(boxes) if box]
    if not any(box[2] < 1 or box[3] < 1 for _, box in found):
        return  # saves most of the work
    if not in_fractions(box for _, box in found):
        return
    certain = [
        f'annotations[{index}] has bbox {box}' for index, box in found if is_fraction_box(*box)
    ]
    raise LayoutError(
        f'{name}: boxes are in fractions of the size of the image, within 0..1, not in px: '
        f'{listed(certain)}. Multiply x and width by the width of the image in px, y and height by '
        'its height; bbox is [x, y, width, height] with the upper left corner x, y'
    )


def usable_box(record: Any) -> list[float] | None:
    """Return the box of an annotation if it has four finite numbers, otherwise None."""
    box = record.get('bbox') if isinstance(record, dict) else None
    if not isinstance(box, list) or len(box) != 4:
        return None
    for side in box:
        if type(side) not in (int, float) or not -math.inf < side < math.inf:
            return None
    return box
