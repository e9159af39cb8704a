"""Values that carry their derivative with them, for losses whose derivative is short to write."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def with_derivative(pred: Tensor, value: Tensor, derivative: Tensor) -> Tensor:
    """``value``, whose derivative by ``pred`` is ``derivative``, element by element.

    A loss that computes both in one pass keeps one tensor for its backward pass, where autograd
    would keep one an operation.

    Args:
        pred: any shape.
        value: the shape of ``pred``, or that of its leading dimensions: then one value is a
            function of all elements below it. Computed without a graph.
        derivative: the shape of ``pred``, likewise; for fewer values, each element's derivative
            of its one value.

    Returns:
        Tensor: ``value`` with a graph to ``pred``, in the same memory. It can be differentiated
        once, and written into.

    >>> x = torch.tensor([3.], requires_grad=True)
    >>> with_derivative(x, torch.tensor([9.]), torch.tensor([6.])).backward()
    >>> x.grad
    tensor([6.])
    """
    result: Tensor = _WithDerivative.apply(pred, value, derivative)  # type: ignore[no-untyped-call]
    return result


class _WithDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pred: Tensor, value: Tensor, derivative: Tensor) -> Tensor:
        ctx.save_for_backward(derivative)
        # Detached, not a view of it: whoever calls may write into the result.
        return value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (derivative,) = ctx.saved_tensors
        trailing = (1,) * (derivative.dim() - gradient.dim())
        return gradient.reshape(gradient.shape + trailing) * derivative, None, None
