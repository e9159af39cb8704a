"""Margin head at test: embeddings, fusion of mirror images, and names in each scope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope

from mmdet_ext.catalog.cases import cases_of
from tests._helpers.face.margin_heads import build_head, elements, samples

# The catalog's margins per class are for seven classes.
CLASSES, CHANNELS = 7, 8


def test_embedding_is_written_unnormalised_in_float32() -> None:
    head = build_head()
    x = 7 * torch.randn(3, CHANNELS)
    given = elements(3)
    found = head.predict((x.half(),), given)
    assert all(one is two for one, two in zip(found, given, strict=True))
    for i, sample in enumerate(given):
        assert sample.embedding.equal(x[i].half().float()) and sample.sample_idx == i
    assert [one.embedding.tolist() for one in head.predict((x,))] == x.tolist()


@pytest.mark.parametrize('number', [1, 3])
def test_mirror_images_are_fused(number: int) -> None:
    x = torch.randn(2 * number, CHANNELS)
    for given in (elements(number), None):
        for fusion, expected in (
            ('concat', torch.cat([x[:number], x[number:]], 1)),
            ('sum', x[:number] + x[number:]),
            (None, x[:number] + x[number:] if given else x),
        ):
            found = build_head(flip_fusion=fusion).predict((x,), given)
            assert torch.stack([sample.embedding for sample in found]).equal(expected)


@pytest.mark.parametrize(
    ('fusion', 'embeddings', 'wanted'), [('concat', 3, 6), ('sum', 4, 6), (None, 5, 3)]
)
def test_numbers_of_embeddings_that_do_not_fit_are_errors(
    fusion: Any, embeddings: int, wanted: int
) -> None:
    message = f'flip_fusion={fusion!r} wants {wanted} embeddings for 3 images, got {embeddings}'
    with pytest.raises(ValueError, match=f'{message}.*flip_at_test'):
        build_head(flip_fusion=fusion).predict((torch.zeros(embeddings, CHANNELS),), elements(3))
    if fusion:
        with pytest.raises(ValueError, match='wants 2 embeddings for 1 images, got 3'):
            build_head(flip_fusion=fusion).predict((torch.zeros(3, CHANNELS),))


@pytest.fixture(params=['mmdet', 'mmpretrain', 'mmengine', 'mmdet_ext'])
def scope(request: Any) -> Iterator[str]:
    with DefaultScope.overwrite_default_scope(request.param):
        yield request.param


@pytest.mark.parametrize('name', sorted({case.name for case in cases_of('margin')}))
def test_margins_are_found_by_name_in_each_scope(name: str, scope: str) -> None:
    heads = [build_head(dict(type=f'{prefix}{name}')) for prefix in ('', 'mmdet_ext.')]
    assert [type(head.margin).__name__ for head in heads] == [name] * 2
    x = torch.randn(4, CHANNELS)
    values = [head.loss((x,), samples([0, 1, 2, 3]))['loss'] for head in heads]
    assert values[0].equal(values[1]) and values[0] > 0
