"""Values with a known derivative, for losses whose derivative is short to write."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ['with_derivative']


def with_derivative(pred: Tensor, value: Tensor, derivative: Tensor) -> Tensor:
    """Attach the derivative of ``value`` with respect to ``pred``, element by element.

    A loss that computes both in one pass keeps one tensor for its backward pass, where autograd
    would keep one per operation.

    Args:
        pred: any shape.
        value: the shape of ``pred``, or of its leading dimensions: then each value is a function
            of all elements of ``pred`` below its index. Computed without a graph.
        derivative: the shape of ``pred``; the derivative of the value that an element of ``pred``
            belongs to, with respect to that element.

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
    """Autograd node of `with_derivative`."""

    @staticmethod
    def forward(ctx: Any, pred: Tensor, value: Tensor, derivative: Tensor) -> Tensor:
        ctx.save_for_backward(derivative)
        # Detached instead of a view, so that the caller may write into the result.
        return value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (derivative,) = ctx.saved_tensors
        trailing = (1,) * (derivative.dim() - gradient.dim())
        return gradient.reshape(gradient.shape + trailing) * derivative, None, None
