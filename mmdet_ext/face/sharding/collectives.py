"""Exchange between the processes of a training whose classes are split over them.

All functions use MMEngine's default group, and return their input where there is none. Tensors that
every process computes alike (labels, cosines to the own centre, the loss) are called replicated;
their gradients are replicated as well, so that the backward pass needs no exchange for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from mmengine.dist import all_gather, all_reduce, get_backend, get_rank, get_world_size
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from mmdet_ext.functional.embedding.chunked_competition import Kind
from mmdet_ext.functional.embedding.competition import Competition

# Signs in messages of gloo, NCCL and their sockets that an exchange was cut off.
_SIGNS = (
    'connection closed by peer',
    'connection reset by peer',
    'connection refused',
    'broken pipe',
    'timed out',
    'timeout',
    'gloo',
    'nccl',
    'socket',
)


class ProcessEndedError(RuntimeError):
    """Error of a process whose exchange with the others was cut off."""


@contextmanager
def explained() -> Iterator[None]:
    """Explain errors of an exchange within the block.

    Raises:
        ProcessEndedError: in place of an error of the exchange, which is its cause.
    """
    try:
        yield
    except ProcessEndedError:
        raise
    except RuntimeError as error:
        ours = isinstance(error, distributed.DistError) or any(
            sign in str(error).lower() for sign in _SIGNS
        )
        if not ours:
            raise
        raise ProcessEndedError(
            f'process {get_rank()} of {get_world_size()} could not exchange data with the others: '
            'another process of this training ended, or no longer answers. The reason is the '
            'first error in the log of that process. Correct it, and resume from the last '
            f'checkpoint (--resume). This process saw: {str(error).partition(chr(10))[0]}'
        ) from error


def summed(value: Tensor) -> Tensor:
    """Return the sum over processes, without a gradient."""
    return _reduced(value, 'sum')


def _reduced(value: Tensor, op: str) -> Tensor:
    """Return a reduction over processes as a new tensor."""
    value = value.detach().clone()
    # Every process has the same shape, so that all leave an empty tensor alone.
    if value.numel():
        with explained():
            all_reduce(value, op)
    return value


def batch_sizes(number: int, device: torch.device) -> list[int]:
    """Return the number of samples of each process, in the order of the ranks."""
    with explained():
        return torch.cat(all_gather(torch.tensor([number], device=device))).tolist()


def gathered(rows: Tensor, sizes: list[int]) -> Tensor:
    """Return the rows of all processes, in the order of the ranks, without a gradient.

    Args:
        rows: those of this process, along the first dimension.
        sizes: number of rows of each process, from `batch_sizes`.
    """
    most = max(sizes)
    if not most:
        return rows.detach()
    padded = rows.detach().contiguous()
    if len(rows) < most:
        padded = torch.cat([padded, rows.new_zeros(most - len(rows), *rows.shape[1:])])
    with explained():
        parts = all_gather(padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def gathered_features(x: Tensor, norm: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Return features and their lengths of all processes, with gradients for the own ones.

    The gradient for ``x`` is the sum over the processes, each of which knows the part of its
    classes. That for ``norm`` is replicated. Both are multiplied by the number of processes:
    ``DistributedDataParallel`` averages gradients over processes, and the loss is already a mean
    over the whole batch.

    Args:
        x: (n, D).
        norm: (n,), of the same precision.
        sizes: number of samples of each process.
    """
    apply: Any = _Gathered.apply
    return cast(tuple[Tensor, Tensor], apply(x, norm, sizes))


class _Gathered(torch.autograd.Function):
    """Autograd node of `gathered_features`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
        ctx.sizes = sizes
        both = gathered(torch.cat([x, norm[:, None]], 1), sizes)
        return both[:, :-1].contiguous(), both[:, -1].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_x: Tensor, grad_norm: Tensor) -> tuple[Tensor, Tensor, None]:
        sizes, rank = ctx.sizes, get_rank()
        start = sum(sizes[:rank])
        own = grad_norm[start : start + sizes[rank]]
        return _own_sum(grad_x, sizes) * len(sizes), own * len(sizes), None


def _own_sum(rows: Tensor, sizes: list[int]) -> Tensor:
    """Return the rows of this process of a sum over processes."""
    rank, most = get_rank(), max(sizes)
    if get_backend() != 'nccl' or not most:
        start = sum(sizes[:rank])
        return summed(rows)[start : start + sizes[rank]]
    padded = rows.new_zeros(len(sizes), most, *rows.shape[1:])
    for place, part in zip(padded, rows.split(sizes), strict=True):
        place[: len(part)] = part
    found = torch.empty_like(padded[0])
    with explained():
        distributed.reduce_scatter_tensor(found, padded.flatten(0, 1))
    return found[: sizes[rank]]


def combined(part: Competition, kind: Kind) -> Competition:
    """Return the competition with all classes from those with the classes of each process.

    ``target`` and ``center_norm`` are summed, as all processes but one have 0. ``others`` of the
    softmax is the logarithm of the summed weights, and of the sigmoid the sum::

        others = log sum_r exp(others_r)

    Args:
        part: with the classes of this process, from `class_competition` with ``elsewhere``.
        kind: of the competition.
    """
    apply: Any = _Combined.apply
    return Competition(*apply(*part, kind))


class _Combined(torch.autograd.Function):
    """Autograd node of `combined`; its outputs, and therefore their gradients, are replicated."""

    @staticmethod
    def forward(
        ctx: Any, target: Tensor, norm: Tensor, others: Tensor, kind: Kind
    ) -> tuple[Tensor, Tensor, Tensor]:
        target, norm = summed(torch.stack([target, norm])).unbind(0)
        if kind == 'sigmoid':
            return target.clone(), norm.clone(), summed(others)
        highest = _reduced(others, 'max')
        total = highest + summed((others - highest).exp()).log()
        ctx.save_for_backward((others - total).exp())
        return target.clone(), norm.clone(), total

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_target: Tensor, grad_norm: Tensor, grad_others: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        for share in ctx.saved_tensors:
            grad_others = grad_others * share
        return grad_target, grad_norm, grad_others, None


def own_part(bias: Tensor, first: int, stop: int) -> Tensor:
    """Return entries ``first`` to below ``stop``; each process gets the gradients of all entries.

    Args:
        bias: one value per class, (C,), replicated.
        first: first class of this process.
        stop: the class behind the last one of this process.
    """
    apply: Any = _OwnPart.apply
    return cast(Tensor, apply(bias, first, stop))


class _OwnPart(torch.autograd.Function):
    """Autograd node of `own_part`."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor, first: int, stop: int) -> Tensor:
        ctx.place = len(bias), first, stop
        return bias[first:stop].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        classes, first, stop = ctx.place
        whole = grad.new_zeros(classes)
        whole[first:stop] = grad
        return summed(whole), None, None
