"""Losses that have a stock twin against it: forward and backward, time, memory, equal values.

python tools/benchmarks/bench_losses.py [--out FILE.json]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from mmdet.registry import MODELS
from timing import Timing, compare, parse_arguments, report
from torch import Tensor

from mmdet_ext.catalog.loss_cases import LOSSES, Inputs, LossCase

Result = tuple[Tensor, Tensor]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        elements={'type': int, 'default': 100_000, 'help': 'boxes, or rows of logits'},
        losses={'nargs': '+', 'metavar': 'NAME', 'help': 'default: all that have a twin'},
    )
    rows: list[tuple[str, list[Timing]]] = []
    for case in LOSSES:
        if case.twin is None or (args.losses and case.name not in args.losses):
            continue
        make = case.bench_inputs or case.inputs
        inputs = make(torch.Generator().manual_seed(args.seed), args.elements)
        contenders = {scope: step(case, scope, inputs) for scope in ('mmdet', 'mmdet_ext')}
        options = ''.join(f', {key}={value!r}' for key, value in case.options.items())
        size = ' x '.join(f'{size:,}' for size in inputs[0].shape)
        work = f'{case.name}{options}, {size}'
        rows.append((work, compare(contenders, differing, args.runs, warmup=3)))
    report('Losses, forward and backward', rows, args.out)
    return 0


def step(case: LossCase, scope: str, inputs: Inputs) -> Callable[[], Result]:
    """Forward and backward of one package's loss; gives the mean loss and the gradient."""
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


def differing(one: Result, other: Result) -> str | None:
    """None when loss and gradient agree to float32's rounding, else by how much they do not."""
    gaps = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True)]
    return f'relative gaps of loss and gradient {gaps}' if max(gaps) > 1e-4 else None


if __name__ == '__main__':
    sys.exit(main())
