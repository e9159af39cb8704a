"""Counts over all pairs, compared with listing every pair."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mmdet_ext.functional.scoring.all_pairs import AllPairs, count_all_pairs
from mmdet_ext.functional.scoring.similarity import (
    GRID,
    NARROW,
    pair_similarities,
    unit_embeddings,
)
from mmdet_ext.functional.scoring.verification import (
    ScoreCounts,
    count_scores,
    equal_error_rate,
    roc_auc,
)
from tests.functional.scoring.scores import collapsed


def brute_force(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """List the index, similarity and kind of every pair."""
    index = torch.combinations(torch.arange(len(embeddings)))
    same = labels[index[:, 0]] == labels[index[:, 1]]
    return index, pair_similarities(unit_embeddings(embeddings), index), same


def exact_embeddings(seed: int, count: int = 300) -> Tensor:
    """Make embeddings whose cosines are not rounded, so that blocks of any size agree.

    Each has four entries of +-1: its length is 2, and cosines are quarters, with many ties.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(count, 16)
    for row in rows:
        places = torch.randperm(16, generator=generator)[:4]
        row[places] = torch.randint(2, (4,), generator=generator).float() * 2 - 1
    return rows


def assert_same_counts(found: ScoreCounts, expected: ScoreCounts) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


BLOCKS = [1, 7, 64, 299, 300, 1000]


@pytest.mark.parametrize('block', BLOCKS[1:])
def test_all_pairs_equal_listing_every_pair(block: int) -> None:
    embeddings = exact_embeddings(0)
    labels = torch.randint(40, (300,), generator=torch.Generator().manual_seed(1))
    found = count_all_pairs(embeddings, labels, block=block)
    _, similarities, same = brute_force(embeddings, labels)
    assert_same_counts(found.counts, count_scores(similarities, same))
    assert len(found.counts.scores) == 8  # quarters from -0.75 to 1, so most pairs tie
    assert roc_auc(found.counts) == pytest.approx(roc_auc_score(same, similarities), abs=1e-14)


@pytest.mark.parametrize('identities', [1, 2, 300])
def test_all_pairs_of_one_two_or_only_single_identities(identities: int) -> None:
    embeddings = exact_embeddings(2)
    labels = torch.arange(300) % identities
    _, similarities, same = brute_force(embeddings, labels)
    for block in (64, 300):
        found = count_all_pairs(embeddings, labels, block=block)
        assert_same_counts(found.counts, count_scores(similarities, same))


@pytest.mark.parametrize('block', BLOCKS)
def test_blocks_of_any_size_agree_to_a_step_of_the_grid(block: int) -> None:
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(12, (300 if block > 1 else 60,), generator=generator)
    embeddings = torch.randn(12, 64, generator=generator)[labels]
    embeddings = embeddings + 2 * torch.randn(embeddings.shape, generator=generator)
    counts = count_all_pairs(embeddings, labels, block=block).counts
    _, similarities, same = brute_force(embeddings, labels)
    for kind, chosen in ((counts.genuine, same), (counts.impostors, ~same)):
        listed = counts.scores.repeat_interleave(kind)
        gap = (listed - similarities[chosen].sort().values).abs().max()
        assert float(gap) <= 1 / GRID
    expected = count_scores(similarities, same)
    assert roc_auc(counts) == pytest.approx(roc_auc_score(same, similarities), abs=1e-6)
    assert equal_error_rate(counts)[0] == pytest.approx(equal_error_rate(expected)[0], abs=1e-3)


def test_equal_embeddings_tie_in_blocks_of_any_size() -> None:
    for seed, size in enumerate((2, 33, 128, 500)):
        row = torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
        labels = torch.arange(200) // 2
        for block in (8, 64, 512):
            counts = count_all_pairs(row.expand(200, size) * 3, labels, block=block).counts
            assert counts.scores.tolist() == [1.0]
            assert counts.genuine.tolist() == [100] and counts.impostors.tolist() == [19_800]
            assert roc_auc(counts) == 0.5


@pytest.mark.parametrize('factor', [0.0, 3.0, 30.0, 300.0, 3e3, 3e4])
def test_pairs_are_distinguished_however_close_their_cosines(factor: float) -> None:
    embeddings, labels = collapsed(factor)
    index = torch.combinations(torch.arange(len(labels)))
    unit = torch.nn.functional.normalize(embeddings.double())
    apart = (unit[index[:, 0]] - unit[index[:, 1]]).square().sum(1) / 2
    same = labels[index[:, 0]] == labels[index[:, 1]]
    auc = roc_auc_score(same, -apart)
    found = count_all_pairs(embeddings, labels, hardest=5, block=64)
    listed = pair_similarities(embeddings, index)
    for counts in (found.counts, count_scores(listed, same)):
        assert roc_auc(counts) == pytest.approx(auc, abs=2e-5)
    # Within steps of the ordinary grid, or of the finer grid of a set that has collapsed.
    reach = float(apart.max())
    step = (1 if reach > 2 * NARROW else 8 * reach) / GRID
    assert float((1 - listed.double() - apart).abs().max()) <= 2 * step
    for extreme, kind, sign in ((found.impostors, ~same, 1), (found.genuine, same, -1)):
        values = extreme.similarity.double()
        expected = (1 - apart[kind]).topk(5, largest=sign > 0).values
        assert float((values - expected).abs().max()) <= 2 * step


def test_zero_embeddings_have_similarity_zero() -> None:
    embeddings = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    counts = count_all_pairs(embeddings, torch.tensor([0, 1, 0])).counts
    assert counts.scores.tolist() == [0.0]
    assert (counts.genuine.tolist(), counts.impostors.tolist()) == ([1], [2])


def hardest_by_sorting(
    embeddings: Tensor, labels: Tensor, count: int
) -> tuple[list[list[int]], list[list[int]]]:
    """List the hardest pairs by sorting all pairs, ties in the order of labels and rows."""
    order = labels.argsort(stable=True)
    index, similarities, same = brute_force(embeddings[order], labels[order])
    index = order[index].sort(dim=1).values
    most = (-similarities[~same]).argsort(stable=True)[:count]
    least = similarities[same].argsort(stable=True)[:count]
    return index[~same][most].tolist(), index[same][least].tolist()


@pytest.mark.parametrize('block', BLOCKS[1:])
@pytest.mark.parametrize('count', [1, 5, 20, 2000])
def test_hardest_pairs_equal_sorting_all_pairs_with_ties_in_order(block: int, count: int) -> None:
    embeddings = exact_embeddings(7)
    labels = torch.randint(30, (300,), generator=torch.Generator().manual_seed(8))
    found = count_all_pairs(embeddings, labels, hardest=count, block=block)
    impostors, genuine = hardest_by_sorting(embeddings, labels, count)
    assert found.impostors.pairs.tolist() == impostors
    assert found.genuine.pairs.tolist() == genuine
    unit = unit_embeddings(embeddings)
    for extreme in (found.impostors, found.genuine):
        assert torch.equal(extreme.similarity, pair_similarities(unit, extreme.pairs))


def test_progress_ends_at_all_pairs() -> None:
    seen: list[tuple[int, int]] = []
    count_all_pairs(
        exact_embeddings(0, 100), torch.arange(100), block=30, progress=lambda *x: seen.append(x)
    )
    assert seen[-1] == (4950, 4950) and len(seen) == 10
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_wrong_options_of_all_pairs_are_named() -> None:
    def call(count: int = 3, labels: int = 3, **options: Any) -> AllPairs:
        return count_all_pairs(torch.eye(count), torch.arange(labels), **options)

    with pytest.raises(ValueError, match='at least 2 embeddings, got 1'):
        call(1, 1)
    with pytest.raises(ValueError, match=r'labels must be \(3,\).*got \(2,\)'):
        call(3, 2)
    with pytest.raises(ValueError, match='block must be at least 1, got 0'):
        call(block=0)
    with pytest.raises(ValueError, match='hardest must be at least 0, got -1'):
        call(hardest=-1)


def test_autocast_around_the_call_changes_nothing() -> None:
    embeddings = torch.randn(50, 16, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(50) // 5
    expected = count_all_pairs(embeddings, labels)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = count_all_pairs(embeddings, labels)
    assert_same_counts(found.counts, expected.counts)
