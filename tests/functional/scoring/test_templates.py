"""Templates pooled by media, and counts of their pairs, compared with loops over the protocol."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.scoring.similarity import pair_similarities
from mmdet_ext.functional.scoring.templates import (
    Pooling,
    add_to_templates,
    count_template_pairs,
    medium_shares,
    pool_templates,
)
from mmdet_ext.functional.scoring.verification import count_scores
from tests.functional.scoring.scores import collapsed


def scene(images: int = 200, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Make embeddings of very different lengths, their templates, media and detector scores."""
    generator = torch.Generator().manual_seed(seed)
    template = torch.randint(12, (images,), generator=generator) * 7 + 100
    medium = torch.randint(9, (images,), generator=generator) * 1000
    length = 10 ** (2 * torch.rand(images, 1, generator=generator) - 1)
    embeddings = length * torch.randn(images, 16, generator=generator)
    return embeddings, template, medium, torch.rand(images, generator=generator)


def slow_pool(
    embeddings: Tensor, template: Tensor, medium: Tensor, scores: Tensor, pooling: Pooling
) -> tuple[list[list[float]], list[int]]:
    """Follow the protocol image by image, in Python's floats."""
    faces: dict[int, dict[int, list[list[float]]]] = {}
    for row, t, m, score in zip(
        embeddings.tolist(), template.tolist(), medium.tolist(), scores.tolist(), strict=True
    ):
        length = math.sqrt(math.fsum(x * x for x in row)) if pooling == 'equal' else 1.0
        face = [score * x / length for x in row]
        faces.setdefault(t, {}).setdefault(m, []).append(face)
    pooled = []
    for t in sorted(faces):
        means = [
            [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
            for rows in faces[t].values()
        ]
        total = [math.fsum(column) for column in zip(*means, strict=True)]
        length = math.sqrt(math.fsum(x * x for x in total))
        pooled.append([x / length for x in total])
    return pooled, sorted(faces)


@pytest.mark.parametrize('pooling', ['length', 'equal'])
@pytest.mark.parametrize('scored', [True, False])
def test_pooling_equals_a_loop_over_templates_media_and_images(
    pooling: Pooling, scored: bool
) -> None:
    embeddings, template, medium, scores = scene()
    expected, numbers = slow_pool(
        embeddings, template, medium, scores if scored else torch.ones(200), pooling
    )
    found, ids = pool_templates(embeddings, template, medium, scores if scored else None, pooling)
    assert ids.tolist() == numbers
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6
    )
    if pooling == 'length':  # no step in float32
        error = (found - torch.tensor(expected, dtype=torch.float64)).abs().max()
        assert float(error) < 1e-13


def test_a_mean_over_the_media_gives_the_same_templates_as_their_sum() -> None:
    embeddings, template, medium, _ = scene()
    found, numbers = pool_templates(embeddings, template, medium)
    for row, number in zip(found, numbers, strict=True):
        own = template == number
        media = medium[own].unique()
        means = torch.stack([embeddings[own & (medium == m)].double().mean(0) for m in media])
        torch.testing.assert_close(
            row, torch.nn.functional.normalize(means.mean(0), dim=0), rtol=0, atol=1e-13
        )


def test_a_medium_of_many_frames_counts_as_one_image() -> None:
    still, frame = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    embeddings = torch.cat([still, frame.expand(300, 2)])
    medium = torch.tensor([1] + [2] * 300)
    found, _ = pool_templates(embeddings, torch.zeros(301, dtype=torch.int64), medium)
    torch.testing.assert_close(
        found, torch.full((1, 2), math.sqrt(0.5), dtype=torch.float64), rtol=0, atol=1e-12
    )
    # The same frames as media of their own outweigh the photograph.
    each, _ = pool_templates(embeddings, torch.zeros(301, dtype=torch.int64), torch.arange(301))
    assert float(each[0, 1]) > 0.9999


def test_a_medium_in_two_templates_is_divided_by_the_images_in_each() -> None:
    template, medium = torch.tensor([3, 3, 3, 8, 8]), torch.tensor([-1, -1, 4, -1, 4])
    assert medium_shares(template, medium).tolist() == [0.5, 0.5, 1, 1, 1]


def test_order_of_images_and_blocks_change_nothing() -> None:
    embeddings, template, medium, scores = scene()
    expected, numbers = pool_templates(embeddings, template, medium, scores)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    found, _ = pool_templates(embeddings[order], template[order], medium[order], scores[order])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    sums = torch.zeros(len(numbers), 16, dtype=torch.float64)
    rows = torch.searchsorted(numbers, template)
    share = medium_shares(template, medium) * scores
    for part in order.split(7):
        add_to_templates(sums, embeddings[part], rows[part], share[part])
    torch.testing.assert_close(torch.nn.functional.normalize(sums), expected, rtol=0, atol=1e-14)


def test_half_precision_is_added_in_the_precision_of_the_sums() -> None:
    """In float16 the sum of 5,000 ones would stop at 2,048."""
    ones = torch.ones(5000, 1, dtype=torch.float16)
    where = torch.zeros(5000, dtype=torch.int64)
    for dtype in (torch.float32, torch.float64):
        sums = add_to_templates(torch.zeros(1, 1, dtype=dtype), ones, where, torch.ones(5000))
        assert sums.item() == 5000
    embeddings, template, medium, _ = scene()
    half = embeddings.half()
    found, _ = pool_templates(half, template, medium)
    expected, _ = pool_templates(half.double(), template, medium)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_equal_weights_leave_length_out_and_zeros_add_nothing() -> None:
    embeddings, template, medium, _ = scene()
    longer = embeddings * torch.linspace(0.01, 100, 200)[:, None]
    one, other = (
        pool_templates(rows, template, medium, pooling='equal')[0] for rows in (embeddings, longer)
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    zeros, _ = pool_templates(torch.zeros(2, 3), torch.tensor([1, 1]), torch.tensor([1, 2]))
    assert zeros.tolist() == [[0, 0, 0]]


def pairs_of(count: int, templates: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(templates, (count, 2), generator=generator, dtype=torch.int32)
    return index, torch.rand(count, generator=generator) < 0.3


@pytest.mark.parametrize('block', [1, 64, 4096])
@pytest.mark.parametrize('close', [False, True], ids=['wide', 'collapsed'])
def test_counts_equal_those_of_the_listed_similarities(block: int, close: bool) -> None:
    templates = collapsed(1e3, 50)[0] if close else scene(50)[0]
    index, same = pairs_of(500, 50)
    expected = count_scores(pair_similarities(templates, index.long()), same)
    found = count_template_pairs(templates, index, same, block)
    assert (found.scores[0] > 0.99) == close
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-12)
    assert found.genuine.tolist() == expected.genuine.tolist()
    assert found.impostors.tolist() == expected.impostors.tolist()


def test_wrong_shapes_rows_and_scores_are_named() -> None:
    embeddings, template, medium, scores = scene(5)
    with pytest.raises(ValueError, match=r'must both be \(R,\), got \(5,\) and \(4,\)'):
        medium_shares(template, medium[1:])
    with pytest.raises(ValueError, match=r'\(R, D\) and \(R,\), got \(5, 16\) and \(4,\)'):
        pool_templates(embeddings, template[1:], medium)
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r'scores must be \(5,\), finite .* with 1 others'):
            pool_templates(
                embeddings, template, medium, scores.index_fill(0, medium[:1] * 0, wrong)
            )
    with pytest.raises(ValueError, match="pooling must be one of .*got 'norm'"):
        pool_templates(embeddings, template, medium, pooling='norm')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'got \(2, 8\), \(5, 16\), \(5,\), \(5,\)'):
        add_to_templates(torch.zeros(2, 8), embeddings, template, scores)
    index, same = pairs_of(6, 9)
    with pytest.raises(IndexError, match='index names rows .*, but there are 5 templates'):
        count_template_pairs(embeddings, index.fill_(5), same)
    with pytest.raises(ValueError, match=r'got \(6, 2\) and \(5,\)'):
        count_template_pairs(embeddings, index, same[1:])
    with pytest.raises(ValueError, match='block'):
        count_template_pairs(embeddings, index, same, block=0)
