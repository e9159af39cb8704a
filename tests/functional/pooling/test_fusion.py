"""Fast normalised fusion: a weighted mean, for any weights."""

from __future__ import annotations

import pytest
import torch

from mmdet_ext.functional.pooling.fusion import normalized_fusion


def maps_of(count: int, *shape: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


def test_equals_a_slow_sum() -> None:
    maps, weights, epsilon = maps_of(3, 2, 3, 4, 5), [0.7, -0.4, 2.1], 0.05
    found = normalized_fusion(maps, torch.tensor(weights), epsilon)
    total = epsilon + sum(max(weight, 0) for weight in weights)
    for place in ((0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3)):
        expected = sum(
            max(weight, 0) / total * each[place].item()
            for weight, each in zip(weights, maps, strict=True)
        )
        assert found[place].item() == pytest.approx(expected, rel=1e-5)


def test_equal_weights_give_the_mean_but_for_epsilon() -> None:
    maps = maps_of(2, 1, 2, 3, 3)
    found = normalized_fusion(maps, torch.ones(2), 1e-4)
    torch.testing.assert_close(found, (maps[0] + maps[1]) / 2.0001)


def test_a_weight_not_above_0_takes_its_map_out_and_has_no_gradient() -> None:
    maps = maps_of(3, 1, 2, 3, 3)
    weights = torch.tensor([1.0, 0.0, -3.0], requires_grad=True)
    found = normalized_fusion(maps, weights, 1e-4)
    torch.testing.assert_close(found, maps[0] / 1.0001)
    found.sum().backward()
    assert weights.grad is not None and weights.grad[1:].tolist() == [0.0, 0.0]


def test_without_a_weight_above_0_the_result_is_0_and_its_gradient_finite() -> None:
    maps = [each.requires_grad_() for each in maps_of(2, 1, 2, 3, 3)]
    weights = torch.zeros(2, requires_grad=True)
    found = normalized_fusion(maps, weights)
    assert not found.any()
    found.sum().backward()
    assert weights.grad is not None and torch.isfinite(weights.grad).all()


def test_gradients_equal_finite_differences() -> None:
    maps = [each.double().requires_grad_() for each in maps_of(2, 1, 1, 2, 2)]
    weights = torch.tensor([0.5, 1.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b, w: normalized_fusion([a, b], w), (*maps, weights))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_stays_and_is_finite(dtype: torch.dtype) -> None:
    maps = [torch.full((1, 1, 2, 2), 1000.0, dtype=dtype) for _ in range(3)]
    found = normalized_fusion(maps, torch.full((3,), 1e4))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), torch.full((1, 1, 2, 2), 1000.0), rtol=0.01, atol=0)


def test_bad_input_is_named() -> None:
    maps = maps_of(2, 1, 1, 2, 2)
    with pytest.raises(ValueError, match=r'weights must have one number per map, got .*\(3,\).* 2'):
        normalized_fusion(maps, torch.ones(3))
    with pytest.raises(ValueError, match=r'maps must have one shape, got .*\(1, 1, 4, 4\)'):
        normalized_fusion([maps[0], torch.ones(1, 1, 4, 4)], torch.ones(2))
    with pytest.raises(ValueError, match='epsilon must be above 0 and finite, got 0'):
        normalized_fusion(maps, torch.ones(2), 0)
