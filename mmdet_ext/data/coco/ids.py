"""Checks of the ids of COCO files: numbers and texts do not mix, and none stands twice.

The number 1 and the text '1' are different ids to every program, so that a box whose ``image_id``
is text belongs to no image with numbers as ids. Standard library only.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from mmdet_ext.data.coco.values import read_number
from mmdet_ext.data.reports import LayoutError, listed

#: List whose ids each key of an annotation refers to.
LINKS = {'image_id': 'images', 'category_id': 'categories'}


def check_ids(name: str, kind: str, records: list[dict[str, Any]]) -> None:
    """Raise unless the ids of a list are different, and all numbers or all texts.

    Args:
        name: Name of the file in the message.
        kind: Name of the list: 'images', 'annotations' or 'categories'.
        records: The list, each with a usable id.

    Raises:
        LayoutError: If that is not so.
    """
    counts = Counter(record['id'] for record in records)
    repeated = [repr(found) for found, count in counts.items() if count > 1]
    if repeated:
        raise LayoutError(
            f'{name}: {len(repeated)} ids stand more than once in {kind!r}: '
            f'{listed(repeated, len(repeated))}. Give each of the {kind} an id of its own'
            + (', as tools/data/rewrite_coco.py does' if kind == 'annotations' else '')
        )
    texts = [found for found in counts if isinstance(found, str)]
    if texts and len(texts) < len(counts):
        number = next(found for found in counts if not isinstance(found, str))
        raise LayoutError(
            f'{name}: ids of {kind!r} are of two kinds: {len(texts)} are text, such as '
            f'{texts[0]!r}, and {len(counts) - len(texts)} are numbers, such as {number!r}. '
            'Write all of them as numbers, or all as text, here and in the annotations'
        )


def check_links(name: str, content: dict[str, Any]) -> None:
    """Raise if annotations refer to images or categories by ids of another kind than those have.

    Args:
        name: Name of the file in the message.
        content: Contents of a COCO file; each image and category has a usable id.

    Raises:
        LayoutError: If an id is text where the same id is a number, or a number where it is text;
            or if all annotations refer to ids of another kind.
    """
    for key, kind in LINKS.items():
        known = {record['id'] for record in content[kind]}
        read = {read_number(found) for found in known} - {None}
        foreign, certain, linked = [], False, False
        for index, record in enumerate(content['annotations']):
            value = record.get(key) if isinstance(record, dict) else None
            if type(value) not in (int, float, str):
                continue  # named by other checks
            if value in known:
                linked = True
            elif is_other_kind(value, known):
                foreign.append(f'annotations[{index}] has {key} {value!r:.50}')
                certain = certain or read_number(value) in read
        if foreign and (certain or not linked):
            example = next(iter(known))
            kinds = ('numbers', 'text') if isinstance(example, str) else ('text', 'numbers')
            raise LayoutError(
                f'{name}: {key} and the ids of {kind!r} are of different kinds: {key} is '
                f'{kinds[0]} in {len(foreign)} annotations ({listed(foreign)}), ids of {kind!r} '
                f'are {kinds[1]}, such as {example!r}. Write both as numbers, or both as text'
            )


def is_other_kind(value: Any, known: set[Any]) -> bool:
    """Return whether an id is text where known ids are numbers, or a number where they are text.

    Args:
        value: The id.
        known: Ids of one kind.
    """
    example = next(iter(known), value)
    return isinstance(value, str) != isinstance(example, str)
