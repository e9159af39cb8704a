"""Last scores of a dense head, per prior, for samplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.detection.host import as_tensor

#: Attributes of a head that the loss of its scores needs, in the order of `_Pass`.
_HEAD_ATTRIBUTES = ('cls_out_channels', 'use_sigmoid_cls', 'prior_generator')


class _Pass(NamedTuple):
    """Detached scores of one forward pass of a head, and the attributes that explain them."""

    cls_scores: tuple[Tensor, ...]
    columns: int
    use_sigmoid: bool
    prior_generator: Any


class HeadScores:
    """Store of a head's last scores, filled by a forward hook and read image by image.

    It holds no reference to the head. A copy of the head, by ``deepcopy`` or pickle, gets an empty
    store of its own, which its hook fills.
    """

    def __init__(self) -> None:
        self._forget()

    def __reduce__(self) -> tuple[type[HeadScores], tuple[()]]:
        return type(self), ()

    def _forget(self) -> None:
        self._pass: _Pass | None = None
        # Loss of background (B, P) and priors (P, 4), computed when the first image needs them.
        self._table: tuple[Tensor, Tensor] | None = None
        self._image = 0

    def remember(self, head: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the scores of a forward pass that losses may follow; this is the hook."""
        self._forget()
        if not (head.training or torch.is_grad_enabled()):
            return
        scores: Any = output[0] if isinstance(output, Sequence) and output else None
        if _are_score_maps(scores) and all(hasattr(head, name) for name in _HEAD_ATTRIBUTES):
            maps = tuple(score.detach() for score in scores)
            self._pass = _Pass(maps, *(getattr(head, name) for name in _HEAD_ATTRIBUTES))

    def hardness(self, priors: Tensor) -> Tensor:
        """Compute the loss of background (P,) at each prior of the next image.

        Args:
            priors: (P, 4), all or some of the head's priors, in their order.

        Raises:
            RuntimeError: if all images of the last forward pass were read, or there was none.
            ValueError: if the priors are not the head's.
        """
        if self._table is None:
            self._table = self._measure(priors.device)
        loss, grid = self._table
        result = loss[self._image][subsequence_index(priors, grid)]
        self._image += 1
        if self._image == len(loss):
            self._forget()
        return result

    def _measure(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Compute the loss of background (B, P) and the priors (P, 4) of the last pass."""
        if self._pass is None:
            raise RuntimeError(
                'HardNegativeSampler has no scores of its head. It takes each image of a '
                'forward pass once, and the pass must call the head itself, in training mode or '
                'with gradients on, and give maps (B, A * C, H, W) first. Otherwise give '
                'sample() the losses'
            )
        maps, columns, use_sigmoid, generator = self._pass
        loss = background_loss(maps, columns, use_sigmoid)
        levels = generator.grid_priors([score.shape[-2:] for score in maps], device=device)
        grid = torch.cat([as_tensor(level) for level in levels])
        if len(grid) != loss.shape[1]:
            raise ValueError(
                f'the head scores {loss.shape[1]} priors per image, but its prior_generator '
                f'makes {len(grid)}: HardNegativeSampler can not tell which is which. Give '
                'sample() the losses'
            )
        self._pass = None
        return loss, grid


def _are_score_maps(scores: Any) -> bool:
    return isinstance(scores, Sequence) and all(
        isinstance(score, Tensor) and score.dim() == 4 for score in scores
    )


def background_loss(cls_scores: Sequence[Tensor], columns: int, use_sigmoid: bool) -> Tensor:
    """Compute the cross entropy of background for each prior of each image.

    With sigmoid it is the sum over the columns of log(1 + exp(z)), with softmax it is
    logsumexp(z) - z_background, where z are the logits of the prior.

    Args:
        cls_scores: logits (B, A * columns, H, W) per level, for A priors per cell.
        columns: number of columns: the classes for sigmoid; the classes and the background, which
            is last, for softmax.
        use_sigmoid: whether the logits are of sigmoid, not of softmax.

    Returns:
        Tensor: (B, P) float32.

    >>> background_loss([torch.zeros(1, 2, 1, 1)], 2, use_sigmoid=False)
    tensor([[0.6931]])
    """
    levels = []
    for score in cls_scores:
        rows = score.permute(0, 2, 3, 1).reshape(len(score), -1, columns).float()
        if use_sigmoid:
            levels.append(F.softplus(rows).sum(-1))
        else:
            levels.append(rows.logsumexp(-1) - rows[..., -1])
    return torch.cat(levels, 1)


def subsequence_index(rows: Tensor, table: Tensor) -> Tensor:
    """Find the places of rows in a table from which some rows were removed.

    A head removes priors beyond the image before it samples. This finds the scores of the others.
    Rows are compared bit by bit. Equal rows of the table must be removed together or not at all.

    Args:
        rows: (N, K), rows of the table that are left, in their order.
        table: (M, K), M at least N.

    Returns:
        Tensor: (N,) indices into the table, ascending.

    Raises:
        ValueError: if the rows are not such a part of the table.

    >>> table = torch.tensor([[0., 0.], [0., 1.], [2., 0.]])
    >>> subsequence_index(table[[0, 2]], table)
    tensor([0, 2])
    """
    if rows.shape == table.shape and torch.equal(rows, table):
        return torch.arange(len(table), device=table.device)
    if 0 < len(rows) <= len(table) and rows.shape[1] == table.shape[1]:
        key, order = _keys(table).sort(stable=True)
        row_key, row_order = _keys(rows).sort(stable=True)
        # The n-th of several equal rows is the n-th of the equal rows of the table.
        place = torch.arange(len(rows), device=rows.device)
        repeat = place - torch.searchsorted(row_key, row_key)
        found = (torch.searchsorted(key, row_key) + repeat).clamp(max=len(table) - 1)
        index = torch.empty_like(place).scatter_(0, row_order, order[found])
        if torch.equal(table[index], rows) and bool((index.diff() > 0).all()):
            return index
    raise ValueError(
        f'pred_instances.priors ({len(rows)}) are not priors of the head ({len(table)}) in their '
        'order, so that HardNegativeSampler can not tell their scores; give sample() the losses'
    )


def _keys(rows: Tensor) -> Tensor:
    """Hash each row to an int64, which is equal for equal rows and hardly ever for others."""
    bits = (rows.float() + 0.0).contiguous().view(torch.int32).long()
    key = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for column in bits.unbind(1):
        key = (key ^ column) * 0x5851F42D4C957F2D
        key = key ^ (key >> 29)
    return key
