"""Facts and edge cases of the class weights from class counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.classification.class_weights import (
    CLASS_WEIGHT_SCHEMES,
    append_background_weight,
    count_labels,
    effective_number_weights,
    inverse_frequency_weights,
    inverse_log_weights,
)

COUNTS = [4155, 372, 361, 0]


def slow_log_weights(histogram: list[int]) -> list[float]:
    """Compute 1 / ln(1.10 + share), in Python numbers."""
    return [1 / math.log(1.10 + count / sum(histogram)) for count in histogram]


def test_inverse_log_equals_the_formula() -> None:
    assert inverse_log_weights(COUNTS).tolist() == pytest.approx(slow_log_weights(COUNTS))
    # A class that never occurs, and the only class that occurs.
    assert inverse_log_weights([0, 7]).tolist() == pytest.approx([10.492059, 1.347822])
    assert inverse_log_weights([1, 1], offset=1.5).tolist() == pytest.approx([1 / math.log(2)] * 2)


def test_inverse_frequency_keeps_the_total_and_inverts_the_proportions() -> None:
    weight = inverse_frequency_weights(COUNTS)
    assert sum(n * w for n, w in zip(COUNTS, weight.tolist(), strict=True)) == pytest.approx(4888)
    assert (weight[1] / weight[0]).item() == pytest.approx(4155 / 372)
    assert weight[3] == weight[2]
    torch.testing.assert_close(inverse_frequency_weights([n * 10 for n in COUNTS]), weight)


def test_effective_number_equals_its_series() -> None:
    # The effective number of n examples is 1 + beta + ... + beta^(n - 1).
    counts, beta = [1, 2, 5], 0.9
    raw = [1 / sum(beta**k for k in range(n)) for n in counts]
    expected = [3 * w / sum(raw) for w in raw]
    assert effective_number_weights(counts, beta).tolist() == pytest.approx(expected)


def test_effective_number_lies_between_equal_and_inverse_frequency() -> None:
    assert effective_number_weights(COUNTS, beta=0.0).tolist() == pytest.approx([1.0] * 4)
    near_one = effective_number_weights(COUNTS, beta=1 - 1e-12)
    inverse = inverse_frequency_weights(COUNTS)
    torch.testing.assert_close(near_one / near_one[0], inverse / inverse[0])


@pytest.mark.parametrize('name', CLASS_WEIGHT_SCHEMES)
def test_rare_classes_weigh_more_and_all_weights_are_finite(name: str) -> None:
    scheme = CLASS_WEIGHT_SCHEMES[name]
    for counts in (COUNTS, [0, 0], [1], [10**9, 1], [0, 3]):
        weight = scheme(counts)
        assert torch.isfinite(weight).all() and (weight > 0).all()
        ranks = sorted(range(len(counts)), key=lambda k: counts[k])
        assert weight[ranks].diff().le(1e-6).all()
    assert len(set(scheme([0, 0]).tolist())) == 1


@pytest.mark.parametrize('name', CLASS_WEIGHT_SCHEMES)
def test_tensors_give_the_same_as_lists(name: str) -> None:
    scheme = CLASS_WEIGHT_SCHEMES[name]
    expected = scheme(COUNTS)
    torch.testing.assert_close(scheme(torch.tensor(COUNTS)), expected)
    assert scheme(torch.tensor(COUNTS, dtype=torch.float64)).dtype == torch.float64
    compiled = torch.compile(scheme, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(torch.tensor(COUNTS)), expected)


@pytest.mark.parametrize('name', CLASS_WEIGHT_SCHEMES)
def test_arrays_are_checked_and_give_the_same_as_lists(name: str) -> None:
    scheme = CLASS_WEIGHT_SCHEMES[name]
    for kind in (np.int64, np.float32):
        assert torch.equal(scheme(np.array(COUNTS, kind)), scheme(COUNTS))
    with pytest.raises(ValueError, match='counts must be numbers from 0, got -1'):
        scheme(np.array([3, -1]))
    with pytest.raises(ValueError, match=r'counts must be numbers from 0, got \[3, 1\]'):
        scheme(np.array([[3, 1]]))


def test_background_has_the_mean_weight_of_the_foreground() -> None:
    weight = torch.tensor([1.0, 2.0, 6.0])
    assert append_background_weight(weight).tolist() == [1.0, 2.0, 6.0, 3.0]


def test_labels_outside_the_classes_are_not_counted() -> None:
    labels = torch.tensor([[0, 1, 1], [-1, 3, 2]])
    assert count_labels(labels, 3).tolist() == [1.0, 2.0, 1.0]
    assert count_labels(labels[:0], 2).tolist() == [0.0, 0.0]


def scheme_error(*arguments: object, **options: float) -> str:
    """Return the error of a scheme."""
    with pytest.raises(ValueError) as error:
        inverse_log_weights(*arguments, **options)  # type: ignore[arg-type]
    return str(error.value)


def test_wrong_input_is_reported() -> None:
    assert scheme_error([1, 2], offset=1.0).startswith('offset must be above 1, got 1.0')
    assert scheme_error([1, -2]) == 'counts must be numbers from 0, got -2 in [1, -2]'
    for empty in ([], torch.zeros(0), torch.zeros(2, 2)):
        assert scheme_error(empty).startswith('counts must be one number per class')
    with pytest.raises(ValueError, match='beta must be from 0 to below 1, got 1'):
        effective_number_weights([1], beta=1.0)


def test_weights_stay_on_the_gpu() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        labels: Tensor = torch.empty(3, dtype=torch.long, device='cuda')
        for scheme in CLASS_WEIGHT_SCHEMES.values():
            assert scheme(count_labels(labels, 4)).device.type == 'cuda'
