"""Centres of a random part of the classes in each step: the others keep values and momentum.

The head holds the whole table as the buffer ``weight``, and a parameter ``weight_drawn`` for the
optimizer, which is empty between steps::

    loss        draws classes, and copies their rows of the table to a leaf of the graph
    backward    moves rows and gradient of the leaf to ``weight_drawn``; rows of several backward
                passes before one step are united, and gradients of rows drawn twice added
    step        exchanges the optimizer's state of the whole table for that of the rows; afterwards
                writes rows and state back, and empties ``weight_drawn``

Between steps the optimizer thus holds the state of the whole table under ``weight_drawn``, and
checkpoints have the form of those of a head without sampling. Gradients are clipped and unscaled
before the step, when ``weight_drawn`` has its rows and their gradient like any parameter.

On a CPU the memory of the rows and of their state is kept for the next step. It is needed again
where memory is scarcest, and new memory of this size costs a page fault for every 4 KiB.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Protocol
from weakref import WeakSet

import torch
from mmengine.dist import get_world_size
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from mmdet_ext.functional.embedding.class_sampling import draw_classes

#: Key of the number of draws in checkpoints, beside ``weight``.
DRAWS = 'weight_draws'
# State per element that optimizers of PyTorch start with 0, as a row that is drawn late does.
_FROM_ZERO = (
    'momentum_buffer',
    'exp_avg',
    'exp_avg_sq',
    'max_exp_avg_sq',
    'square_avg',
    'grad_avg',
    'exp_inf',
)


class SampledHead(Protocol):
    """Module with the whole table of centres, and the parameter for the drawn rows of it."""

    weight: Tensor
    weight_drawn: Tensor


class Choice(Protocol):
    """Choice of the classes that a step trains."""

    def __call__(self, labels: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        """Return the chosen classes, ascending, and the place of each label among them.

        Args:
            labels: class of each sample, (N,), int64.
            draws: number of draws before.
        """


class ExactShare:
    """Choice of a share of the classes, rounded, by one process.

    Args:
        num_classes: C.
        rate: share of the classes to draw, from above 0 to below 1.
    """

    def __init__(self, num_classes: int, rate: float) -> None:
        self.num_classes, self.count = num_classes, max(round(rate * num_classes), 1)

    def __call__(self, labels: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        """Return the chosen classes, and the places of the labels.

        Raises:
            RuntimeError: in a training of several processes.
        """
        if get_world_size() > 1:
            raise RuntimeError(
                f'sample_rate below 1 of MarginHead trains in one process, got {get_world_size()}: '
                "each would draw and move other centres. Take type='mmdet_ext.ShardedMarginHead' "
                "with model_wrapper_cfg=dict(type='mmdet_ext.ShardedHeadDDP'), set sample_rate=1, "
                'or train on one device'
            )
        generator = torch.Generator(labels.device)
        generator.manual_seed((torch.initial_seed() * 1_000_003 + draws) % 2**63)
        return draw_classes(labels, self.num_classes, self.count, generator)


class SampledCenters:
    """Draws of classes, and the way of their rows through the optimizer.

    A draw depends on PyTorch's seed and on the number of draws before, which checkpoints hold.

    Args:
        head: its buffer ``weight`` is (C * num_subcenters, D), and its parameter ``weight_drawn``
            (0, D).
        num_subcenters: rows per class.
        choice: how the classes are chosen.

    Attributes:
        draws: number of draws so far.
        spare: tables of rows from earlier steps, whose memory later ones take.
    """

    def __init__(self, head: SampledHead, num_subcenters: int, choice: Choice) -> None:
        self.head, self.num_subcenters, self.choice = head, num_subcenters, choice
        self.draws = 0
        self.spare: list[Tensor] = []
        # Rows of the table that ``weight_drawn`` holds, ascending; and these rows, as the graph has
        # them: autograd sees that their memory is taken again.
        self.place: Tensor | None = None
        self.rows: Tensor | None = None
        # State of the whole table during a step, by name; None between steps.
        self.tables: dict[str, Tensor] | None = None

    def draw(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw classes, and copy their centres.

        Args:
            labels: class of each sample, (N,), int64.

        Returns:
            tuple: centres, the rows of the table of each drawn class in turn; the classes,
            ascending; and the place of each label among them, (N,).
        """
        classes, places = self.choice(labels, self.draws)
        self.draws += 1
        table, each = self.head.weight, self.num_subcenters
        place = (classes[:, None] * each + torch.arange(each, device=classes.device)).flatten()
        rows = self._rows(table, place)
        if torch.is_grad_enabled() and self.head.weight_drawn.requires_grad:
            rows.requires_grad_()
            rows.register_post_accumulate_grad_hook(partial(self._collect, place))
        return rows, classes, places

    def _rows(self, table: Tensor, place: Tensor) -> Tensor:
        """Copy rows of a table."""
        kind, count = (table.dtype, table.device), len(place)
        with torch.no_grad():
            while self.spare:
                spare = self.spare.pop(0)
                if (spare.dtype, spare.device) == kind and len(spare) >= count:
                    return torch.index_select(table, 0, place, out=spare[:count])
            return table.index_select(0, place)

    def _keep(self, rows: Tensor) -> None:
        """Keep the memory of rows that no step needs any more."""
        if rows.device.type == 'cpu':
            self.spare.append(rows)

    def _collect(self, place: Tensor, rows: Tensor) -> None:
        """Move a leaf's gradient, and its rows, to the parameter of the optimizer."""
        drawn = self.head.weight_drawn
        grad, rows.grad = rows.grad, None
        assert grad is not None
        values = rows.detach()
        if drawn.grad is not None:
            assert self.place is not None
            both = torch.cat([self.place, place]).unique()
            united = grad.new_zeros(len(both), grad.shape[1])
            for part, part_grad in ((self.place, drawn.grad), (place, grad)):
                united.index_add_(0, torch.searchsorted(both, part), part_grad)
            place, grad, values = both, united, self.head.weight[both]
        # A gradient must have the shape of its parameter.
        drawn.grad = None
        drawn.data, drawn.grad, self.place, self.rows = values, grad, place, values
        _hook_optimizers()
        _WAITING.add(self)

    def before_step(self, optimizer: Optimizer) -> None:
        """Give the optimizer the state of the drawn rows in place of that of the whole table."""
        state, drawn = optimizer.state.get(self.head.weight_drawn, {}), self.head.weight_drawn
        self.tables = {}
        if drawn.grad is None or self.place is None:
            return
        for name in _names(state, optimizer):
            if state[name].shape != self.head.weight.shape:
                raise ValueError(
                    f'{name} of {type(optimizer).__name__} is {tuple(state[name].shape)} for '
                    f'centres of {tuple(self.head.weight.shape)}: resume from a checkpoint of a '
                    'head of the same size'
                )
            self.tables[name], state[name] = state[name], self._rows(state[name], self.place)

    def after_step(self, optimizer: Optimizer) -> None:
        """Write the rows and their state back."""
        tables, drawn, place, rows = self.tables, self.head.weight_drawn, self.place, self.rows
        if tables is None or place is None or rows is None:
            raise RuntimeError(
                'sample_rate below 1: gradients of the centres were computed within the step of '
                f'{type(optimizer).__name__}, by a closure. Compute them before the step'
            )
        if drawn.grad is not None:
            self.head.weight.index_copy_(0, place, rows)
            self._keep(rows)
            state = optimizer.state.get(drawn, {})
            for name in _names(state, optimizer):
                if name not in tables:
                    tables[name] = state[name].new_zeros(self.head.weight.shape)
                self._keep(state[name])
                state[name] = tables[name].index_copy_(0, place, state[name])
        drawn.grad = self.place = self.rows = self.tables = None
        drawn.data = drawn.new_empty(0, drawn.shape[1])
        _WAITING.discard(self)


def _names(state: dict[str, Any], optimizer: Optimizer) -> list[str]:
    """List the entries of an optimizer's state that have a value per element.

    Raises:
        TypeError: for an entry that is not known to start with 0.
    """
    names = [name for name, value in state.items() if isinstance(value, Tensor) and value.dim()]
    for name in names:
        if name not in _FROM_ZERO:
            raise TypeError(
                'sample_rate below 1 needs an optimizer whose state has the shape of the centres '
                f'and starts with 0, such as SGD, Adam or AdamW; {type(optimizer).__name__} has '
                f'{name!r}. Take another, or sample_rate=1'
            )
    return names


# Those whose rows wait for a step.
_WAITING: WeakSet[SampledCenters] = WeakSet()


def _waiting(optimizer: Optimizer) -> list[SampledCenters]:
    """List those whose parameter the optimizer has."""
    if not _WAITING:
        return []
    known = {id(param) for group in optimizer.param_groups for param in group['params']}
    return [centers for centers in _WAITING if id(centers.head.weight_drawn) in known]


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Prepare the drawn rows of all heads that the optimizer trains."""
    for centers in _waiting(optimizer):
        centers.before_step(optimizer)


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Write back the drawn rows of all heads that the optimizer trains."""
    for centers in _waiting(optimizer):
        centers.after_step(optimizer)


@cache
def _hook_optimizers() -> None:
    """Let `_before_step` and `_after_step` run with each step of every optimizer of PyTorch.

    A head does not know the optimizer that trains it, and so a config needs no hook.
    """
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)
