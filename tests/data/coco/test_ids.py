"""Tests of the ids of COCO files: kinds that differ are named as such."""

from __future__ import annotations

from typing import Any

import pytest

from mmdet_ext.data.coco.ids import check_ids, check_links
from mmdet_ext.data.reports import LayoutError


def records(*ids: Any) -> list[dict[str, Any]]:
    return [{'id': value} for value in ids]


@pytest.mark.parametrize(
    'ids', [(1, 2, 3), ('1', '2'), ('a', '1'), (1, 2.5), (), (1,), ('1', '01', '1.0')]
)
def test_different_ids_of_one_kind_pass(ids: tuple[Any, ...]) -> None:
    check_ids('a.json', 'images', records(*ids))


@pytest.mark.parametrize('ids', [(1, 2, 1), (1, 1.0), ('a', 'a')])
def test_repeated_ids_are_named(ids: tuple[Any, ...]) -> None:
    with pytest.raises(LayoutError, match="a.json: 1 ids stand more than once in 'images'"):
        check_ids('a.json', 'images', records(*ids))


@pytest.mark.parametrize('ids', [(1, '1'), (7, 1, '2'), ('1', 5, 2.0)])
def test_two_kinds_in_one_list_are_named_with_an_example_of_each(ids: tuple[Any, ...]) -> None:
    text = next(value for value in ids if isinstance(value, str))
    number = next(value for value in ids if not isinstance(value, str))
    with pytest.raises(
        LayoutError,
        match=rf"ids of 'images' are of two kinds: 1 are text, such as '{text}', and "
        rf'{len(ids) - 1} are numbers, such as {number}\. Write all of them as numbers',
    ):
        check_ids('a.json', 'images', records(*ids))


def linked(image_ids: list[Any], *links: Any, key: str = 'image_id') -> dict[str, Any]:
    lists = {'image_id': 'images', 'category_id': 'categories'}
    content: dict[str, Any] = {kind: records(1) for kind in lists.values()}
    content[lists[key]] = records(*image_ids)
    other = next(name for name in lists if name != key)
    content['annotations'] = [{other: 1, key: link} for link in links]
    return content


@pytest.mark.parametrize(
    ('ids', 'links'),
    [
        ([1, 2], [1, 2, 1.0, 404]),
        (['1', '2'], ['1', '2', '404']),
        ([1, 2], [1, 'gone']),  # one strange record, which readers count
        ([1, 2], [None, [1], True, {}]),  # named by other checks
        ([], [1]),
        ([1, 2], []),
    ],
)
def test_links_of_one_kind_pass(ids: list[Any], links: list[Any]) -> None:
    check_links('a.json', linked(ids, *links))


@pytest.mark.parametrize('key', ['image_id', 'category_id'])
@pytest.mark.parametrize(
    ('ids', 'links', 'kinds', 'count'),
    [
        ([1, 2], ['1', '2', '2'], ('text', 'numbers'), 3),
        ([1, 2], [1, '2'], ('text', 'numbers'), 1),  # some alone
        ([1, 2], ['1.0'], ('text', 'numbers'), 1),
        ([1, 2], ['0002'], ('text', 'numbers'), 1),
        (['1', '2'], [1, 2], ('numbers', 'text'), 2),
        (['0001'], [1.0], ('numbers', 'text'), 1),
        ([1, 2], ['a', 'b'], ('text', 'numbers'), 2),
        (['a', 'b'], [0, 1, 0], ('numbers', 'text'), 3),
    ],
)
def test_links_of_another_kind_are_named(
    key: str, ids: list[Any], links: list[Any], kinds: tuple[str, str], count: int
) -> None:
    kind = {'image_id': 'images', 'category_id': 'categories'}[key]
    with pytest.raises(LayoutError) as caught:
        check_links('a.json', linked(ids, *links, key=key))
    message = str(caught.value)
    first = next(link for link in links if isinstance(link, str) != isinstance(ids[0], str))
    assert f"a.json: {key} and the ids of '{kind}' are of different kinds: " in message
    assert f'{key} is {kinds[0]} in {count} annotations (annotations[' in message
    assert f'has {key} {first!r}' in message and f"ids of '{kind}' are {kinds[1]}" in message
    assert 'Write both as numbers, or both as text' in message
