"""Clipping and loss scaling that see the gradients of all processes, where each trains a shard."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from mmdet_ext.face.sharding.collectives import explained
from mmdet_ext.functional.numerics.checks import check_number

__all__ = ['clip_global_norm', 'share_decisions']


@torch.no_grad()
def clip_global_norm(
    parameters: Iterable[Tensor],
    max_norm: float,
    norm_type: float | str = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
    *,
    sharded: frozenset[int],
) -> Tensor:
    """Clip gradients by the norm that one process with all shards would see.

    With the gradients g of replicated parameters, which are equal on all processes, and those g_r
    of the shard of process r::

        norm = (|g|^p + sum_r |g_r|^p)^(1/p)        max(|g|, max_r |g_r|) for p = inf

    Args:
        parameters: those with gradients, as `torch.nn.utils.clip_grad_norm_` takes them.
        max_norm: gradients are multiplied by max_norm / norm where that is below 1.
        norm_type: p, above 0; also 'inf'.
        error_if_nonfinite: whether a norm that is not finite is an error.
        foreach: taken for the sake of the same call, and not used.
        sharded: ``id`` of the parameters that each process trains alone.

    Returns:
        Tensor: the norm, the same on all processes.

    Raises:
        RuntimeError: as ``error_if_nonfinite`` says, on all processes.
    """
    p = float(norm_type)
    check_number('norm_type', p, above=0)
    params = [param for param in parameters if param.grad is not None]
    norms: dict[bool, list[Tensor]] = {False: [], True: []}
    for param in params:
        if param.grad is not None and param.grad.numel():
            norm = torch.linalg.vector_norm(param.grad, p)
            norms[id(param) in sharded].append(norm.float() if norm.dtype.itemsize < 4 else norm)
    device = params[0].device if params else torch.device('cpu')
    # float64 on all processes, whatever gradients a process happens to have.
    one, other = (_power_sum(found, p, device) for found in (norms[False], norms[True]))
    with explained():
        all_reduce(other, 'max' if math.isinf(p) else 'sum')
    total = torch.maximum(one, other) if math.isinf(p) else (one + other) ** (1 / p)
    if error_if_nonfinite and not bool(total.isfinite()):
        raise RuntimeError(f'the norm of the gradients of all processes is {float(total)}')
    factor = (max_norm / (total + 1e-6)).clamp(max=1)
    for param in params:
        if param.grad is not None:
            param.grad.mul_(factor.to(param.grad.device, param.grad.dtype))
    return total


def _power_sum(norms: list[Tensor], p: float, device: torch.device) -> Tensor:
    """Return the sum of p-th powers of norms, or their largest for p = inf, in float64."""
    if not norms:
        return torch.zeros((), dtype=torch.float64, device=device)
    stacked = torch.stack([norm.to(device, torch.float64) for norm in norms])
    return stacked.amax() if math.isinf(p) else (stacked**p).sum()


def share_decisions(optim_wrapper: Any, sharded: frozenset[int]) -> None:
    """Make an ``OptimWrapper`` clip by the global norm, and skip a step on all processes or none.

    Clipping by value needs no exchange, and stays. Later calls change nothing.

    Args:
        optim_wrapper: MMEngine's wrapper of an optimizer, or of several (``OptimWrapperDict``).
        sharded: ``id`` of the parameters that each process trains alone.
    """
    for wrapper in getattr(optim_wrapper, 'optim_wrappers', {'': optim_wrapper}).values():
        if getattr(wrapper, 'clip_func', None) is torch.nn.utils.clip_grad_norm_:
            wrapper.clip_func = partial(clip_global_norm, sharded=sharded)
        scaler: Any = getattr(wrapper, 'loss_scaler', None)
        if hasattr(scaler, 'unscale_') and 'unscale_' not in vars(scaler) and scaler.is_enabled():
            # Optimizers that skip a step themselves take the second way.
            for name in ('unscale_', '_check_inf_per_device'):
                setattr(scaler, name, _shared(scaler, getattr(scaler, name)))


def _shared(scaler: Any, look: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a look at gradients after which all processes know of any that is not finite."""

    @wraps(look)
    def look_everywhere(optimizer: Any) -> Any:
        seen = look(optimizer)
        found = scaler._per_optimizer_states[id(optimizer)]['found_inf_per_device']
        flags = list(found.values())
        worst = torch.zeros((), device=flags[0].device if flags else None)
        for flag in flags:
            worst = torch.maximum(worst, flag.to(worst.device))
        with explained():
            all_reduce(worst, 'max')
        for flag in flags:
            flag.copy_(worst)
        return seen

    return look_everywhere
