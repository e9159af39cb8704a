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

from mmdet_ext.testing.cases import LOSSES, LossCase

Result = tuple[Tensor, Tensor]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(__doc__, argv, elements={'type': int, 'default': 100_000})
    rows: list[tuple[str, list[Timing]]] = []
    for case in LOSSES:
        if case.twin is None:
            continue
        inputs = case.inputs(torch.Generator().manual_seed(args.seed), args.elements)
        contenders = {scope: step(case, scope, inputs) for scope in ('mmdet', 'mmdet_ext')}
        work = f'{case.name}, {args.elements:,} elements'
        rows.append((work, compare(contenders, differing, args.runs, warmup=5)))
    report('Losses, forward and backward', rows, args.out)
    return 0


def step(case: LossCase, scope: str, inputs: Result) -> Callable[[], Result]:
    """Forward and backward of one package's loss; gives the mean loss and the gradient."""
    loss = MODELS.build({'type': f'{scope}.{case.name}', **case.options})
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
