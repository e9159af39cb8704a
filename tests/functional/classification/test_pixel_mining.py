"""The choice of hard pixels."""

from __future__ import annotations

import pytest
import torch

from mmdet_ext.functional.classification.pixel_mining import (
    check_pixel_mining,
    hard_pixel_mask,
    label_log_probability,
)


def slow_mask(p: list[float], valid: list[bool], thresh: float | None, least: int) -> list[bool]:
    """Mark hard pixels by sorting."""
    ranked = sorted((i for i in range(len(p)) if valid[i]), key=lambda i: (p[i], i))
    kept = set(ranked[:least])
    if thresh is not None:
        kept |= {i for i in ranked if p[i] < thresh}
    return [i in kept for i in range(len(p))]


@pytest.mark.parametrize('thresh', [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize('least', [1, 7, 30, 1000])
def test_equals_sorting_also_where_pixels_tie(thresh: float | None, least: int) -> None:
    generator = torch.Generator().manual_seed(0)
    log_p = (torch.randint(1, 9, (2, 5, 6), generator=generator) / 10).log()
    valid = torch.rand(2, 5, 6, generator=generator) < 0.7
    found = hard_pixel_mask(log_p, valid, thresh, least)
    p = log_p.exp().flatten().tolist()
    assert found.flatten().tolist() == slow_mask(p, valid.flatten().tolist(), thresh, least)


def test_hardness_of_its_own_ranks_where_it_is_given() -> None:
    log_p, hardness = torch.tensor([0.1, 0.5, 0.9]).log(), torch.tensor([1.0, 2.0, 3.0])
    every = torch.ones(3, dtype=torch.bool)
    assert hard_pixel_mask(log_p, every, None, 1, hardness).tolist() == [False, False, True]
    assert hard_pixel_mask(log_p, every, 0.3, 2, hardness).tolist() == [True, True, True]
    # The hardest may be others than the least probable, also where these are enough.
    assert hard_pixel_mask(log_p, every, 0.3, 1, hardness).tolist() == [True, False, True]


def test_a_nan_is_kept_and_an_invalid_pixel_never() -> None:
    log_p = torch.tensor([float('nan'), -5.0, -0.1])
    valid = torch.tensor([True, False, True])
    assert hard_pixel_mask(log_p, valid, 0.5, 0).tolist() == [True, False, False]
    assert not hard_pixel_mask(log_p, torch.zeros(3, dtype=torch.bool), 0.5, 9).any()


def test_the_probability_of_a_label_by_hand() -> None:
    pred = torch.tensor([[0.0, torch.log(torch.tensor(3.0)).item()]])
    for label, softmax, sigmoid in ((0, 0.25, 0.5), (1, 0.75, 0.75)):
        rows, maps = torch.tensor([label]), torch.tensor([[label]])
        for use_sigmoid, expected in ((False, softmax), (True, sigmoid)):
            for p in (
                label_log_probability(pred, rows, use_sigmoid),
                label_log_probability(pred.unsqueeze(2), maps, use_sigmoid),
            ):
                assert p.exp().item() == pytest.approx(expected)
    # The background of sigmoid: 1 minus the highest.
    background = label_log_probability(pred, torch.tensor([2]), use_sigmoid=True)
    assert background.exp().item() == pytest.approx(0.25)


def test_options_out_of_range_are_reported() -> None:
    with pytest.raises(ValueError, match=r'thresh must be in \[0, 1\], got 1.5'):
        check_pixel_mining(1.5, 3)
    with pytest.raises(ValueError, match='min_kept must be a whole number from 0 on, got 2.5'):
        check_pixel_mining(0.5, 2.5)
    with pytest.raises(ValueError, match='min_kept must be a whole number from 1 on, got 0'):
        check_pixel_mining(None, 0)
