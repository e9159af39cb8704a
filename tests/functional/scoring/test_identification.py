"""Searches of a gallery, compared with a slow reference; ties and bounds by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.scoring.identification import (
    Searches,
    match_rates,
    search_gallery,
    tpir_at_fpir,
)


def exact_rows(generator: torch.Generator, count: int) -> Tensor:
    """Make rows whose cosines are quarters, without rounding, and so have many ties."""
    rows = torch.zeros(count, 16)
    for row in rows:
        places = torch.randperm(16, generator=generator)[:4]
        row[places] = torch.randint(2, (4,), generator=generator).float() * 2 - 1
    return rows


def scene(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Make 30 probes, some non-mated, and a gallery of 12 identities with 1 to 6 templates."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(12) * 3, torch.randint(12, (20,), generator=generator) * 3])[
        torch.randperm(32, generator=generator)
    ]
    gallery = exact_rows(generator, 32)
    probes = exact_rows(generator, 30)
    # Half of the probes equal a template.
    chosen = torch.randint(32, (30,), generator=generator)
    near = torch.rand(30, generator=generator) < 0.5
    probes = torch.where(near[:, None], gallery[chosen], probes)
    probe_labels = torch.where(torch.arange(30) % 4 == 0, labels[chosen] + 1, labels[chosen])
    return probes, probe_labels, gallery, labels


def slow_search(probe: Tensor, label: int, gallery: Tensor, labels: Tensor) -> tuple[float, ...]:
    """Search one probe: rank, similarity of the mate, highest similarity, and its label."""
    best: dict[int, float] = {}
    for template, owner in zip(gallery, labels.tolist(), strict=True):
        cosine = float(probe @ template / probe.norm() / template.norm())
        best[owner] = max(best.get(owner, -2.0), cosine)
    top = max(best.values())
    first = min(owner for owner, value in best.items() if value == top)
    if label not in best:
        return 0, -math.inf, top, first
    ahead = sum(value >= best[label] for owner, value in best.items() if owner != label)
    return 1 + ahead, best[label], top, first


@pytest.mark.parametrize('table_elements', [1, 30, 97, 2**24])
@pytest.mark.parametrize('seed', range(4))
def test_searches_equal_a_slow_reference_in_chunks_of_any_size(
    seed: int, table_elements: int
) -> None:
    probes, probe_labels, gallery, labels = scene(seed)
    found = search_gallery(probes, probe_labels, gallery, labels, table_elements=table_elements)
    expected = [
        slow_search(probe, label, gallery, labels)
        for probe, label in zip(probes, probe_labels.tolist(), strict=True)
    ]
    rank, mate, top, first = zip(*expected, strict=True)
    assert found.rank.tolist() == list(rank)
    assert found.mate.tolist() == list(mate)
    assert found.top.tolist() == list(top)
    assert found.top_label.tolist() == list(first)
    assert found.mated.tolist() == [place > 0 for place in rank]
    assert 5 < sum(found.mated) < 30 and len(set(rank)) > 4


def test_order_of_gallery_and_probes_changes_nothing() -> None:
    probes, probe_labels, gallery, labels = scene(5)
    found = search_gallery(probes, probe_labels, gallery, labels)
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randperm(30, generator=generator), torch.randperm(32, generator=generator)
    moved = search_gallery(probes[one], probe_labels[one], gallery[two], labels[two])
    for whole, part in zip(found, moved, strict=True):
        assert torch.equal(whole[one], part)


def test_a_network_with_one_embedding_for_all_is_ranked_last() -> None:
    found = search_gallery(torch.ones(4, 7), torch.arange(4), torch.ones(5, 7) * 3, torch.arange(5))
    assert found.rank.tolist() == [5] * 4
    assert match_rates(found, 6).tolist() == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize('factor', [1e3, 3e4])
def test_searches_among_collapsed_embeddings_equal_float64(factor: float) -> None:
    probes, probe_labels, gallery, labels = scene(5)
    size = probes.shape[1]
    generator = torch.Generator().manual_seed(1)
    shift = factor * torch.randn(size, generator=generator)
    probes = 5 * torch.rand(probes.shape, generator=generator) + probes + shift
    gallery = gallery + shift
    found = search_gallery(probes, probe_labels, gallery, labels)
    one, two = (torch.nn.functional.normalize(rows.double()) for rows in (probes, gallery))
    apart = torch.cdist(one, two, compute_mode='donot_use_mm_for_euclid_dist').square() / 2
    nearest = apart.min(1)
    assert found.top_label.tolist() == labels[nearest.indices].tolist()
    assert float((1 - found.top - nearest.values).abs().max()) < 1e-5 * float(apart.max())
    mates = torch.where(labels == probe_labels[:, None], apart, math.inf).amin(1)
    owners = labels.unique()
    best = torch.stack([apart[:, labels == owner].amin(1) for owner in owners], 1)
    rank = (best <= mates[:, None]).sum(1).where(found.mated, 0)
    assert found.rank.tolist() == rank.tolist() and len(rank.unique()) > 3
    assert found.mate[~found.mated].isneginf().all()


def test_an_identity_counts_once_with_its_best_template() -> None:
    # Identity 1 has three templates that are nearer than the mate, which is still second.
    gallery = torch.tensor([[1.0, 0.9], [1.0, 0.1], [1.0, 0.0], [1.0, 0.2], [-1.0, 0.0]])
    found = search_gallery(
        torch.tensor([[1.0, 0.0]]), torch.tensor([0]), gallery, torch.tensor([0, 1, 1, 1, 0])
    )
    assert found.rank.tolist() == [2] and found.top_label.tolist() == [1]


def searches(ranks: list[int], mates: list[float], strangers: list[float]) -> Searches:
    """Make mated searches of given ranks and similarities, and non-mated searches."""
    count = len(ranks) + len(strangers)
    return Searches(
        torch.arange(count) < len(ranks),
        torch.tensor(ranks + [0] * len(strangers)),
        torch.tensor(mates + [-math.inf] * len(strangers)),
        torch.tensor(mates + strangers),
        torch.zeros(count, dtype=torch.int64),
    )


def test_match_rates_cumulate_the_ranks_of_mated_searches_only() -> None:
    found = searches([1, 3, 1, 9], [0.5] * 4, [0.9, 0.9])
    assert match_rates(found, 4).tolist() == [0.5, 0.5, 0.75, 0.75]
    assert match_rates(found, 1).tolist() == [0.5]
    with pytest.raises(ValueError, match='no probe has its identity in the gallery'):
        match_rates(searches([], [], [0.1]), 1)
    with pytest.raises(ValueError, match='ranks is 0'):
        match_rates(found, 0)


def slow_tpir(found: Searches, allowed: int, rank: int) -> tuple[float, float, int]:
    """Try every occurring similarity, from the lowest on."""
    strangers = found.top[~found.mated].tolist()
    mated = found.mated.nonzero().squeeze(1).tolist()
    values = {*strangers, *found.mate[found.mated].tolist()}
    for threshold in [*sorted(values), math.inf]:
        false = sum(value >= threshold for value in strangers)
        if false <= allowed:
            hits = [k for k in mated if found.mate[k] >= threshold and found.rank[k] <= rank]
            return threshold, len(hits) / len(mated), false
    raise AssertionError


@pytest.mark.parametrize('rank', [1, 3, 20])
@pytest.mark.parametrize('seed', range(4))
def test_tpir_equals_trying_all_thresholds(seed: int, rank: int) -> None:
    found = search_gallery(*scene(seed))
    count = int((~found.mated).sum())
    bounds = [(k + 0.5) / count for k in range(1, count)] + [1.0]
    for k, point in enumerate(tpir_at_fpir(found, bounds, rank), start=1):
        threshold, tpir, false = slow_tpir(found, k, rank)
        assert (point.threshold, point.tpir, point.false_positives) == (threshold, tpir, false)
        assert point.fpir == false / count and point.bound == bounds[k - 1]


def test_tpir_by_hand() -> None:
    found = searches([1, 1, 2, 1], [0.9, 0.5, 0.8, 0.2], [0.6, 0.4, 0.1, 0.1])
    (point,) = tpir_at_fpir(found, [0.25])
    assert point.threshold == pytest.approx(0.5) and point.tpir == 0.5
    assert tpir_at_fpir(found, [0.25], rank=2)[0].tpir == 0.75
    tied = searches([1, 1], [0.9, 0.5], [0.9, 0.9, 0.1])
    assert tpir_at_fpir(tied, [0.34])[0][1:] == (math.inf, 0.0, 0.0, 0)


def test_fpir_below_one_search_is_refused_with_the_number_of_searches() -> None:
    found = searches([1], [0.5], [0.1] * 20)
    with pytest.raises(ValueError, match=r'fpirs holds 0\.01, below 1 / 20: 20 non-mated searches'):
        tpir_at_fpir(found, [0.01])
    with pytest.raises(ValueError, match='1 mated and 0 non-mated'):
        tpir_at_fpir(searches([1], [0.5], []), [0.1])
    with pytest.raises(ValueError, match='rank is 0'):
        tpir_at_fpir(found, [0.1], rank=0)


def test_wrong_galleries_are_named() -> None:
    probes, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(ValueError, match='gallery is empty'):
        search_gallery(probes, labels, torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r'gallery_labels must be \(2,\).*got \(3,\)'):
        search_gallery(probes, labels, torch.zeros(2, 3), labels)
    with pytest.raises(ValueError, match=r'one size, got \(3, 3\) and \(4, 4\)'):
        search_gallery(probes, labels, torch.eye(4), torch.arange(4))
    with pytest.raises(ValueError, match='1 of 6 rows hold NaN'):
        search_gallery(probes / (1 - labels[:, None]), labels, probes, labels)


def test_no_probes_give_no_searches() -> None:
    none = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    found = search_gallery(*none, torch.eye(3), torch.arange(3))
    assert [len(part) for part in found] == [0] * 5
