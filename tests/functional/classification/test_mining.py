"""Hard negatives: by hand, and against a slow reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.classification.mining import hard_negative_mask, mining_samples, ohem_loss

WAYS: list[dict[str, Any]] = [
    {},
    {'negatives_per_positive': 0},
    {'negatives_per_positive': 1.5},
    {'negatives_per_positive': 2, 'min_negatives': 3},
    {'num_negatives': 0},
    {'num_negatives': 4},
    {'loss_threshold': 0.5},
    {'loss_threshold': 0.875, 'min_negatives': 2},
]
each_way = pytest.mark.parametrize('way', WAYS, ids=str)


def slow_mask(
    loss: list[float],
    positive: list[bool],
    valid: list[bool],
    group: list[int],
    negatives_per_positive: float | None = None,
    num_negatives: int | None = None,
    loss_threshold: float | None = None,
    min_negatives: int = 0,
) -> list[bool]:
    """Apply the rule to one group after the other."""
    kept = [False] * len(loss)
    for name in set(group):
        members = [i for i in range(len(loss)) if group[i] == name and valid[i]]
        hardest = sorted((i for i in members if not positive[i]), key=lambda i: (-loss[i], i))
        if num_negatives is not None:
            wanted = num_negatives
        elif loss_threshold is not None:
            wanted = max(min_negatives, sum(loss[i] >= loss_threshold for i in hardest))
        else:
            ratio = 3 if negatives_per_positive is None else negatives_per_positive
            wanted = max(min_negatives, math.floor(ratio * sum(positive[i] for i in members)))
        for i in hardest[:wanted]:
            kept[i] = True
    return kept


def scene(seed: int, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make losses with ties; a fifth is positive, a fifth ignored (some of them positive)."""
    generator = torch.Generator().manual_seed(seed)
    loss = torch.rand(shape, generator=generator).mul(20).round() / 20
    positive, ignored = (torch.rand(shape, generator=generator) < 0.2 for _ in range(2))
    return loss, positive, ~ignored


@each_way
def test_rows_equal_the_slow_reference(way: dict[str, Any]) -> None:
    for seed in range(10):
        loss, positive, valid = scene(seed, 5, 17)
        positive[2] = False
        valid[3] = False
        expected = [
            slow_mask(*(part.tolist() for part in row), [0] * 17, **way)
            for row in zip(loss, positive, valid, strict=True)
        ]
        mask = hard_negative_mask(loss, positive, valid, **way)
        assert mask.tolist() == expected
        whole = [slow_mask(loss[0].tolist(), positive[0].tolist(), [True] * 17, [0] * 17, **way)]
        assert hard_negative_mask(loss[:1], positive[:1], **way).tolist() == whole


@each_way
def test_groups_in_any_order_equal_the_slow_reference(way: dict[str, Any]) -> None:
    for seed in range(10):
        loss, positive, valid = scene(seed, 60)
        generator = torch.Generator().manual_seed(100 + seed)
        group = torch.tensor([-3, 0, 7, 2_000_000_000])[
            torch.randint(4, (60,), generator=generator)
        ]
        expected = slow_mask(
            loss.tolist(), positive.tolist(), valid.tolist(), group.tolist(), **way
        )
        assert hard_negative_mask(loss, positive, valid, group, **way).tolist() == expected


@pytest.mark.parametrize('grouped', [False, True])
def test_every_float_is_ranked_by_its_value(grouped: bool) -> None:
    """Compare all sizes and signs, with infinities and ties."""
    generator = torch.Generator().manual_seed(0)
    size = 10 ** (76 * torch.rand(500, generator=generator, dtype=torch.float64) - 38)
    loss = (size * torch.randn(500, generator=generator).sign()).float()
    loss[::20] = loss[1::20]
    loss[7::50] = 0.0
    loss[8::50] = -0.0
    loss[9::100], loss[10::100] = math.inf, -math.inf
    valid = torch.rand(500, generator=generator) < 0.9
    positive = torch.zeros(500, dtype=torch.bool)
    group = torch.zeros(500, dtype=torch.long)
    for count in (0, 1, 10, 100, 250, 400, 600):
        mask = hard_negative_mask(
            loss, positive, valid, group if grouped else None, num_negatives=count
        )
        expected = slow_mask(
            loss.tolist(), [False] * 500, valid.tolist(), [0] * 500, num_negatives=count
        )
        assert mask.tolist() == expected


def test_three_negatives_per_positive_by_hand() -> None:
    loss = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]])
    positive = torch.zeros(2, 6, dtype=torch.bool)
    positive[0, 5] = True  # the second image has no positive, and keeps no negative
    kept = ohem_loss(loss, positive)
    assert torch.equal(kept[0], torch.tensor([0.0, 0.0, 0.3, 0.4, 0.5, 0.6]))
    assert torch.equal(kept[1], torch.zeros(6))
    least = ohem_loss(loss, positive, min_negatives=1)
    assert torch.equal(least[1], torch.tensor([0.6, 0.0, 0.0, 0.0, 0.0, 0.0]))


def test_a_quota_is_rounded_down_without_rounding_errors() -> None:
    loss = torch.rand(400, generator=torch.Generator().manual_seed(0))
    positive = torch.arange(400) < 100
    for ratio, count in ((0.29, 29), (0.07, 7), (1.999, 199), (2.5, 250)):
        mask = hard_negative_mask(loss, positive, negatives_per_positive=ratio)
        assert mask.sum() == count


def test_rows_of_classes_are_ranked_by_their_sum_and_kept_whole() -> None:
    loss = torch.tensor([[0.6, 0.0], [0.4, 0.4], [0.1, 0.1], [9.0, 9.0]])
    positive = torch.tensor([False, False, True, False])
    valid = torch.tensor([True, True, True, False])
    kept = ohem_loss(loss, positive, valid, negatives_per_positive=1)
    expected = torch.tensor([[0.0, 0.0], [0.4, 0.4], [0.1, 0.1], [0.0, 0.0]])
    assert torch.equal(kept, expected)


def test_only_kept_samples_have_a_gradient() -> None:
    loss, positive, valid = scene(1, 3, 40)
    loss.requires_grad_()
    ohem_loss(loss, positive, valid, num_negatives=5).sum().backward()
    kept = hard_negative_mask(loss, positive, valid, num_negatives=5) | (positive & valid)
    assert torch.equal(loss.grad, kept.float())


def test_ignored_nan_is_dropped_and_a_nan_negative_is_kept() -> None:
    loss = torch.tensor([0.5, math.nan, 0.75], requires_grad=True)
    valid = torch.tensor([True, False, True])
    positive = torch.zeros(3, dtype=torch.bool)
    kept = ohem_loss(loss, positive, valid, num_negatives=1)
    kept.sum().backward()
    assert kept.tolist() == [0.0, 0.0, 0.75] and loss.grad.tolist() == [0.0, 0.0, 1.0]
    assert ohem_loss(loss, positive, num_negatives=1).isnan().tolist() == [False, True, False]


@each_way
@pytest.mark.parametrize('grouped', [False, True])
def test_compiles_in_one_graph_and_takes_no_samples(way: dict[str, Any], grouped: bool) -> None:
    loss, positive, valid = scene(3, 30)
    group = torch.arange(30) % 3 if grouped else None
    torch.compiler.reset()  # each rule is a graph of its own, and their number is limited
    compiled = torch.compile(ohem_loss, fullgraph=True, backend='aot_eager')
    expected = ohem_loss(loss, positive, valid, group, **way)
    assert torch.equal(compiled(loss, positive, valid, group, **way), expected)
    empty = ohem_loss(
        loss[:0], positive[:0], valid[:0], None if group is None else group[:0], **way
    )
    assert empty.shape == (0,)


def test_half_precision_is_ranked_and_kept_in_float32() -> None:
    # The sums over classes are 2048 + 1 and 2048 + 0.5: equal in float16.
    loss = torch.tensor([[2048.0, 0.5], [2048.0, 1.0]]).half()
    kept = ohem_loss(loss, torch.zeros(2, dtype=torch.bool), num_negatives=1)
    assert kept.dtype == torch.float32 and kept.tolist() == [[0, 0], [2048, 1]]


def test_labels_are_sorted() -> None:
    label = torch.tensor([0, 2, 3, -1, 255])
    target, positive, valid = mining_samples(torch.zeros(5, 3), label, True, ignore_index=255)
    assert target.tolist() == [0, 2, 3, 3, 3]
    assert positive.tolist() == [True, True, False, False, False]
    assert valid.tolist() == [True, True, True, False, False]
    target, positive, valid = mining_samples(torch.zeros(5, 4), label.clamp(max=3), False)
    assert target.tolist() == [0, 2, 3, 3, 3] and positive.tolist() == [True, True] + [False] * 3


def test_dense_targets_are_sorted() -> None:
    dense = torch.tensor([[0.0, 0.3], [0.0, 0.0], [-1.0, -1.0], [-1.0, 1.0]])
    target, positive, valid = mining_samples(torch.zeros(4, 2), dense, True)
    assert positive.tolist() == [True, False, False, True]
    assert valid.tolist() == [True, True, False, True]
    assert target.tolist() == [[0.0, dense[0, 1].item()], [0, 0], [0, 0], [-1, 1]]
    # With softmax, the last column is background.
    assert mining_samples(torch.zeros(4, 2), dense, False).positive_mask.sum() == 0
    binary = mining_samples(torch.zeros(3), torch.tensor([1, 0, -1]), True)
    assert binary.positive_mask.tolist() == [True, False, False]
    assert binary.valid_mask.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ('way', 'message'),
    [
        (
            {'num_negatives': 3, 'loss_threshold': 0.1},
            'num_negatives=3 and loss_threshold=0.1 contradict each other',
        ),
        ({'negatives_per_positive': 3.0, 'num_negatives': 3}, 'contradict each other'),
        ({'num_negatives': 3, 'min_negatives': 1}, 'min_negatives=1 goes with'),
        ({'negatives_per_positive': -1}, 'negatives_per_positive must be at least 0 and finite'),
        ({'loss_threshold': math.nan}, 'loss_threshold must be at least 0 and finite, got nan'),
        ({'num_negatives': 2.5}, 'num_negatives must be a whole number'),
        ({'min_negatives': -1}, 'min_negatives must be a whole number'),
    ],
)
def test_bad_options_are_reported(way: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hard_negative_mask(*scene(0, 4), **way)


def test_bad_shapes_are_reported() -> None:
    loss, positive, valid = scene(0, 4)
    with pytest.raises(ValueError, match=r'loss of shape \(3,\) must begin with .* \(4,\)'):
        hard_negative_mask(loss[:3], positive)
    with pytest.raises(ValueError, match=r'valid_mask must have the shape .* got \(3,\)'):
        hard_negative_mask(loss, positive, valid[:3])
    with pytest.raises(ValueError, match=r'must be \(N,\) for samples'):
        hard_negative_mask(loss[None], positive[None], None, torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r'target of shape \(3,\) does not fit .* \(4, 2\)'):
        mining_samples(torch.zeros(4, 2), torch.zeros(3), True)
