"""Number of hard cases on which a loss, or mmdet's loss of the same name, fails.

A case counts if its loss or its gradient is NaN or infinite, or if the loss raises an error because
of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases import cast

#: Dtypes of predictions and targets.
PRECISIONS = {
    'float32': (torch.float32, torch.float32),
    'float16': (torch.float16, torch.float16),
    'bfloat16': (torch.bfloat16, torch.bfloat16),
    'float16 to float32': (torch.float16, torch.float32),
    'bfloat16 to float32': (torch.bfloat16, torch.float32),
}

Call = Callable[[Tensor, Any], Tensor]


@dataclass
class Count:
    """Number of cases on which one loss fails in one precision.

    Attributes:
        loss: Registered name with its scope, and options.
        precision: Key of PRECISIONS.
        cases: Number of cases.
        bad_values: Cases whose loss is NaN or infinite.
        bad_gradients: Cases whose gradient has a NaN or infinite element.
        raised: Cases that make the loss raise an error.
        error: Message of the first such error.
    """

    loss: str
    precision: str
    cases: int
    bad_values: int = 0
    bad_gradients: int = 0
    raised: int = 0
    error: str = ''


def count_failures(case: Case, scope: str, precision: str, cases: int, seed: int) -> Count:
    """Run one loss on its hard cases, with an independent gradient per case.

    Args:
        case: Case of the loss.
        scope: Package of the loss, 'mmdet_ext' or 'mmdet'.
        precision: Key of PRECISIONS.
        cases: Number of hard cases.
        seed: Seed of the hard cases.
    """
    options = case.options
    if scope == 'mmdet' and case.stock_options is not None:
        options = case.stock_options
    loss: nn.Module = MODELS.build({'type': f'{scope}.{case.name}', **options})
    pred_dtype, target_dtype = PRECISIONS[precision]
    pred, target = case.hard_inputs(torch.Generator().manual_seed(seed), cases)
    shown = ', '.join(f'{key}={value!r}' for key, value in case.options.items())
    count = Count(f'{scope}.{case.name}' + (f' ({shown})' if shown else ''), precision, cases)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        _count(
            lambda p, t: loss(p, t, reduction_override='none'),
            pred.to(pred_dtype),
            cast(target, target_dtype),
            count,
        )
    return count


def _count(call: Call, pred: Tensor, target: Any, count: Count) -> None:
    """Add the failing cases to ``count``; if the loss raises, each half is run by itself."""
    leaf = pred.clone().requires_grad_()
    try:
        each = call(leaf, target)
        each.sum().backward()
    except (RuntimeError, IndexError, ValueError, AssertionError) as error:
        if len(pred) == 1:
            count.raised += 1
            count.error = count.error or str(error).splitlines()[0]
            return
        middle = len(pred) // 2
        for part in (slice(None, middle), slice(middle, None)):
            _count(call, pred[part], _part(target, part), count)
        return
    assert leaf.grad is not None
    count.bad_values += _bad(each)
    count.bad_gradients += _bad(leaf.grad)


def _part(target: Any, part: slice) -> Any:
    if isinstance(target, tuple):
        return tuple(_part(tensor, part) for tensor in target)
    return target[part]


def _bad(values: Tensor) -> int:
    """Count the cases that have an element that is NaN or infinite."""
    return int((~torch.isfinite(values)).reshape(len(values), -1).any(-1).sum())


def robustness_table(counts: list[Count]) -> str:
    """Format a Markdown table, one line per loss, one column per precision, with the errors."""
    precisions = list(dict.fromkeys(count.precision for count in counts))
    cells = {(count.loss, count.precision): _cell(count) for count in counts}
    lines = [
        f'| loss | {" | ".join(precisions)} |',
        f'| --- | {" | ".join("---:" for _ in precisions)} |',
    ]
    lines += [
        f'| `{loss}` | {" | ".join(cells[loss, precision] for precision in precisions)} |'
        for loss in dict.fromkeys(count.loss for count in counts)
    ]
    errors = {c.loss: c.error for c in reversed(counts) if c.error}
    if errors:
        lines += ['', 'Messages of the losses that raise an error:', '']
        lines += [f'- `{loss}`: {error}' for loss, error in sorted(errors.items())]
    return '\n'.join(lines)


def _cell(count: Count) -> str:
    """Format the failures of one loss in one precision per kind, 0 if there is none."""
    kinds = (
        (count.bad_values, 'loss'),
        (count.bad_gradients, 'gradient'),
        (count.raised, 'raises'),
    )
    return ', '.join(f'{number:,} {kind}' for number, kind in kinds if number) or '0'
