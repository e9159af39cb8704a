"""Clipping by the norm of all gradients in one process, against PyTorch's."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmdet_ext.face.sharding.clipping import clip_global_norm, share_decisions


def parameters(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = [nn.Parameter(torch.zeros(n, 3, dtype=dtype)) for n in (4, 1, 0, 2)]
    for param in found:
        param.grad = torch.randn(param.shape, generator=generator).to(dtype)
    return [*found, nn.Parameter(torch.zeros(2))]


@pytest.mark.parametrize('norm_type', [1.0, 2.0, 3.5, math.inf, 'inf'])
@pytest.mark.parametrize('max_norm', [0.1, 100.0])
@pytest.mark.parametrize('shard', [(), (0, 2), (0, 1, 2, 3)], ids=str)
def test_one_process_clips_as_pytorch_does(
    norm_type: Any, max_norm: float, shard: tuple[int, ...]
) -> None:
    ours, theirs = parameters(), parameters()
    sharded = frozenset(id(ours[place]) for place in shard)
    norm = clip_global_norm(ours, max_norm, norm_type, sharded=sharded)
    # PyTorch has no largest entry of an empty gradient.
    full = [param for param in theirs if param.numel()]
    expected = nn.utils.clip_grad_norm_(full, max_norm, float(norm_type))
    torch.testing.assert_close(norm.float(), expected)
    for one, other in zip(ours, theirs, strict=True):
        if other.grad is not None and other.numel():
            torch.testing.assert_close(one.grad, other.grad)


def test_gradients_without_length_stay() -> None:
    params = parameters()
    for param in params[:4]:
        param.grad = torch.zeros_like(param)
    assert clip_global_norm(params, 1.0, sharded=frozenset()) == 0
    assert all(not param.grad.any() for param in params[:4] if param.grad is not None)


def test_a_norm_that_is_not_finite_is_an_error_on_request() -> None:
    params = parameters()
    params[0].grad = torch.full_like(params[0], torch.inf)
    assert clip_global_norm(params, 1.0, sharded=frozenset()) == torch.inf
    with pytest.raises(RuntimeError, match='norm of the gradients of all processes is (inf|nan)'):
        clip_global_norm(params, 1.0, error_if_nonfinite=True, sharded=frozenset())


def test_a_norm_of_type_0_is_refused() -> None:
    with pytest.raises(ValueError, match=r'norm_type must be above 0, got 0\.0'):
        clip_global_norm(parameters(), 1.0, 0, sharded=frozenset())


def test_wrappers_clip_by_the_norm_of_all_and_by_value_as_before() -> None:
    norm = SimpleNamespace(clip_func=nn.utils.clip_grad_norm_)
    value = SimpleNamespace(clip_func=nn.utils.clip_grad_value_)
    several = SimpleNamespace(optim_wrappers=dict(one=norm, other=value))
    share_decisions(several, frozenset())
    once = norm.clip_func
    share_decisions(several, frozenset())
    assert norm.clip_func is once and once.func is clip_global_norm
    assert value.clip_func is nn.utils.clip_grad_value_


def test_a_scaler_is_changed_once() -> None:
    scaler = torch.amp.GradScaler('cpu')
    wrapper = SimpleNamespace(loss_scaler=scaler)
    share_decisions(wrapper, frozenset())
    once = vars(scaler)['unscale_']
    share_decisions(wrapper, frozenset())
    assert vars(scaler)['unscale_'] is once
    disabled = torch.amp.GradScaler('cpu', enabled=False)
    share_decisions(SimpleNamespace(loss_scaler=disabled), frozenset())
    assert 'unscale_' not in vars(disabled)
