"""Benchmark of the losses that replace one of mmdet's: time and memory, forward and backward.

    python tools/benchmarks/bench_losses.py [--out FILE.json]

Results must be equal. Overlap losses of many boxes are also timed without the blocks that they are
computed by, which shows what the blocks save in memory and cost in time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from unittest import mock

import torch
from mmdet.registry import MODELS
from timing import Timing, compare, parse_arguments, report
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases import LOSSES, Inputs
from mmdet_ext.functional.boxes import pair

Result = tuple[Tensor, Tensor]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        elements={'type': int, 'default': 100_000, 'help': 'boxes, or rows of logits'},
        losses={'nargs': '+', 'metavar': 'NAME', 'help': 'default: all that replace one of mmdet'},
    )
    rows: list[tuple[str, list[Timing]]] = []
    for case in LOSSES:
        if case.twin_scope != 'mmdet' or (args.losses and case.name not in args.losses):
            continue
        make = case.bench_inputs or case.inputs
        inputs = make(torch.Generator().manual_seed(args.seed), args.elements)
        contenders = {scope: step(case, scope, inputs) for scope in ('mmdet', 'mmdet_ext')}
        if case.family == 'overlap' and args.elements >= pair.MANY_PAIRS:
            contenders['mmdet_ext, no blocks'] = without_blocks(contenders['mmdet_ext'])
        options = ''.join(f', {key}={value!r}' for key, value in case.options.items())
        size = ' x '.join(f'{size:,}' for size in inputs[0].shape)
        work = f'{case.name}{options}, {size}'
        rows.append((work, compare(contenders, differing, args.runs, warmup=3)))
    report('Losses, forward and backward', rows, args.out)
    return 0


def step(case: Case, scope: str, inputs: Inputs) -> Callable[[], Result]:
    """Make the forward and backward pass of one package's loss.

    Returns:
        Callable: returns the mean loss and the gradient.
    """
    options = case.options
    if scope == 'mmdet' and case.stock_options is not None:
        options = case.stock_options
    loss = MODELS.build({'type': f'{scope}.{case.name}', **options})
    pred, target = inputs

    def run() -> Result:
        leaf = pred.detach().requires_grad_()
        value = loss(leaf, target)
        value.backward()
        assert leaf.grad is not None
        return value.detach(), leaf.grad

    return run


def without_blocks(work: Callable[[], Result]) -> Callable[[], Result]:
    """Make the same work with all pairs of boxes computed at once."""

    def run() -> Result:
        with mock.patch.object(pair, 'MANY_PAIRS', sys.maxsize):
            return work()

    return run


def differing(one: Result, other: Result) -> str | None:
    """Return None if loss and gradient are equal up to float32's rounding, else their gaps."""
    gaps = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True)]
    return f'relative gaps of loss and gradient {gaps}' if max(gaps) > 1e-4 else None


if __name__ == '__main__':
    sys.exit(main())
