"""Values and gradients of losses, for comparison."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def seeded(seed: int = 0) -> torch.Generator:
    """Return a random generator with a fixed seed."""
    return torch.Generator().manual_seed(seed)


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    """Return the gradient of the sum of a loss; its graph is kept."""
    (found,) = torch.autograd.grad(loss.sum(), leaf, retain_graph=True)
    return found


def value_and_gradient(loss: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values of a loss without their graph, and the gradient of their sum."""
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


def graded(
    loss: Callable[..., Tensor], pred: Tensor, *inputs: object, **options: object
) -> tuple[Tensor, Tensor]:
    """Return the values of ``loss(pred, *inputs, **options)``, and the gradient of their sum."""
    leaf = pred.detach().clone().requires_grad_()
    return value_and_gradient(loss(leaf, *inputs, **options), leaf)


def saved_tables(loss: Callable[[Tensor], Tensor], pred: Tensor) -> list[tuple[int, ...]]:
    """List the shapes of the tables (more than one column) that the backward pass keeps."""
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.dim() > 1 and tensor.shape[1] > 1:
            kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(pred.clone().requires_grad_())
    return kept
