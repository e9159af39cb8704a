"""Reader of COCO detection files that checks every record and reports what it leaves out.

Standard library only, so that a command-line tool can refuse a wrong file at once.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mmdet_ext.data.coco.ids import check_ids, check_links
from mmdet_ext.data.coco.normal_form import check_box_unit, evaluation_faults, normalise_values
from mmdet_ext.data.reports import LayoutError, Tally, listed

_SHOWN = 100
#: Advice for keys of annotations that a tool gives.
_REWRITTEN = {
    'area': ', or write the file anew with tools/data/rewrite_coco.py, which fills it in',
}
_LISTS = ('images', 'annotations', 'categories')
_IMAGE_KEYS = ('id', 'file_name')
_CATEGORY_KEYS = ('id', 'name')
_LINK_KEYS = ('image_id', 'category_id', 'bbox')


def load_coco(ann_file: Path, name: str | None = None) -> dict[str, Any]:
    """Read a COCO detection file and check its images and categories.

    Flags, boxes, areas and sizes may be texts of numbers, and are read as such. Beyond that,
    annotations are not checked: see :func:`usable_annotations` and :func:`check_records`. A size
    may be absent or unusable: see :mod:`mmdet_ext.data.coco.image_files`.

    Args:
        ann_file: Path of the json.
        name: Name of the file in messages, by default its path.

    Returns:
        The contents: a dict with the lists 'images' (each with id and file_name), 'annotations' and
        'categories' (each with id and name).

    Raises:
        LayoutError: If the file cannot be read, is no json or lacks one of the three lists; if an
            image or category lacks a key or has the id of another; if ids are text here and numbers
            there; if a flag is neither true nor false; or if boxes are in fractions of the size.
    """
    name = name or str(ann_file)
    content = _open(ann_file, name)
    normalise_values(name, content)
    check_box_unit(name, content)
    return content


def read_coco(ann_file: Path, name: str | None = None) -> tuple[dict[str, Any], Tally]:
    """Read a COCO detection file as :func:`load_coco` does.

    Returns:
        The contents, and the values of the file for which COCO's evaluation fails or evaluates
        something else, see :func:`evaluation_faults`.

    Raises:
        LayoutError: As :func:`load_coco` does.
    """
    name = name or str(ann_file)
    content = _open(ann_file, name)
    faults = evaluation_faults(content)
    _note_encoding(ann_file, faults)
    normalise_values(name, content)
    check_box_unit(name, content)
    return content, faults


def check_records(name: str, kind: str, records: Iterable[Any], keys: Sequence[str]) -> None:
    """Raise unless each record has all keys with values that can be used.

    Args:
        name: Name of the file in the message.
        kind: Name of the list: 'images', 'annotations' or 'categories'.
        records: The list.
        keys: Keys that each record needs; keys of COCO's records.

    Raises:
        LayoutError: If a record fails; the message names the first such record and its key, and
            counts the others.
    """
    bad = [
        (index, record, key)
        for index, record in enumerate(records)
        if (key := _unusable_key(record, keys)) is not None
    ]
    if bad:
        index, record, key = bad[0]
        others = listed([f'{kind}[{number}]' for number, _, _ in bad[1:]])
        raise LayoutError(
            f'{name}: {kind}[{index}] {_fault(record, key)}; expected {_FORMS[key][1]}. '
            f'Mend this record or remove it{_REWRITTEN.get(key, "")}: {record!r:.{_SHOWN}}'
            + (f'. {len(bad) - 1} more {kind} are faulty: {others}' if others else '')
        )


def usable_annotations(coco: dict[str, Any]) -> tuple[list[dict[str, Any]], Tally]:
    """Select the annotations that have a box of finite size, an image and a category.

    Args:
        coco: Contents of a file, from :func:`load_coco`.

    Returns:
        The selected annotations, and a tally of the problems of the others.
    """
    known = {
        'image_id': {image['id'] for image in coco['images']},
        'category_id': {category['id'] for category in coco['categories']},
    }
    kept, dropped = [], Tally()
    for index, record in enumerate(coco['annotations']):
        key = _unusable_key(record, _LINK_KEYS)
        unknown = [] if key else [link for link, ids in known.items() if record[link] not in ids]
        if key:
            dropped.add(f'without a usable {key}', f'annotations[{index}] {_fault(record, key)}')
        elif unknown:
            key = unknown[0]
            dropped.add(f'of an unknown {key}', f'annotations[{index}] {_fault(record, key)}')
        elif not all(map(is_finite, record['bbox'])):
            dropped.add('of no finite size', f'annotations[{index}] {_fault(record, "bbox")}')
        else:
            kept.append(record)
    return kept, dropped


def number_categories(
    coco: dict[str, Any], classes: Sequence[str]
) -> tuple[dict[str, Any], Counter[str]]:
    """Renumber the categories: the classes get the ids 1 to n in their order.

    Categories are matched by name, and those of the same name become one.

    Args:
        coco: Contents of a file, all annotations usable.
        classes: Names of the categories to keep, length n.

    Returns:
        The contents with category ids 1 to n, and the number of boxes left out per name.
    """
    new_ids = {name: number for number, name in enumerate(classes, start=1)}
    names = {category['id']: category['name'] for category in coco['categories']}
    boxes, left_out = [], Counter[str]()
    for box in coco['annotations']:
        name = names[box['category_id']]
        if name in new_ids:
            boxes.append({**box, 'category_id': new_ids[name]})
        else:
            left_out[name] += 1
    categories = [{'id': number, 'name': name} for name, number in new_ids.items()]
    return {**coco, 'annotations': boxes, 'categories': categories}, left_out


def repeated_names(coco: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the names that several categories share, each with the ids of those categories."""
    ids = defaultdict(list)
    for category in coco['categories']:
        ids[category['name']].append(category['id'])
    return {name: found for name, found in ids.items() if len(found) > 1}


def is_number(value: Any) -> bool:
    """Return whether a value is a number in json, which excludes true and false."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_finite(value: float) -> bool:
    """Return whether a number is neither infinite nor NaN, both of which Python's json reads.

    Integers beyond the range of floats are finite.
    """
    return abs(value) < float('inf')


def _open(ann_file: Path, name: str) -> dict[str, Any]:
    """Read the lists of a file and check ids and names, with all values as they are written."""
    try:
        content = json.loads(ann_file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LayoutError(f'{name} cannot be read as json: {error}') from error
    keys = sorted(content) if isinstance(content, dict) else type(content).__name__
    absent = [
        key
        for key in _LISTS
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if absent:
        raise LayoutError(
            f'{name} is not a COCO detection file: no list {", ".join(absent)}; found {keys}'
        )
    for kind, needed in (('images', _IMAGE_KEYS), ('categories', _CATEGORY_KEYS)):
        check_records(name, kind, content[kind], needed)
        check_ids(name, kind, content[kind])
    check_links(name, content)
    return dict(content)


def _note_encoding(ann_file: Path, faults: Tally) -> None:
    """Count a file that Python's json reads from bytes, but not from text in UTF-8."""
    with ann_file.open('rb') as file:
        encoding = json.detect_encoding(file.read(4))  # it looks at no more
    if encoding != 'utf-8':
        faults.add('file that is not plain UTF-8', f'it is {encoding}')


def _unusable_key(record: Any, keys: Sequence[str]) -> str | None:
    """Return the first key that the record lacks or has with an unusable value, or None."""
    values = record if isinstance(record, dict) else {}
    for key in keys:
        if not _FORMS[key][0](values.get(key)):
            return key
    return None


def _fault(record: Any, key: str) -> str:
    """Describe the problem of a record with a key, as the end of a sentence."""
    if not isinstance(record, dict):
        return f'is {record!r:.{_SHOWN}}, no record with {key!r}'
    return f'has {key} {record[key]!r:.{_SHOWN}}' if key in record else f'has no {key}'


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (is_number(value) and is_finite(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ''


def _is_side(value: Any) -> bool:
    return is_number(value) and is_finite(value) and value > 0


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


#: Check and description of the value of each key.
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'id': (_is_id, 'a number or text'),
    'image_id': (_is_id, 'a number or text'),
    'category_id': (_is_id, 'a number or text'),
    'file_name': (_is_text, 'text'),
    'name': (_is_text, 'text'),
    'width': (_is_side, 'a number of px above 0'),
    'height': (_is_side, 'a number of px above 0'),
    'area': (is_number, 'a number of px'),
    'bbox': (_is_box, '[x, y, width, height] in numbers of px'),
}
