"""How often each loss and its stock twin give no number, on pairs that losses stumble over.

    python tools/loss_robustness.py [--out docs/results/losses_robustness]

For every registered loss with a stock twin: 20,000 pairs (identical, disjoint, nested, without
area, inverted, near; 1e-3 to 1e4 px) in float32, float16, bfloat16, and half precision predictions
against float32 targets. A case counts when its loss, or its gradient, is NaN or infinite. Writes
the table as OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmdet_ext.testing.cases import LOSSES, LossCase
from mmdet_ext.utils.files import write_json, write_text

PRECISIONS = {
    'float32': (torch.float32, torch.float32),
    'float16': (torch.float16, torch.float16),
    'bfloat16': (torch.bfloat16, torch.bfloat16),
    'float16 to float32': (torch.float16, torch.float32),
    'bfloat16 to float32': (torch.bfloat16, torch.float32),
}


@dataclass(frozen=True)
class Count:
    """Cases of one loss in one precision that gave no number."""

    loss: str
    precision: str
    cases: int
    bad_values: int
    bad_gradients: int


def main(argv: list[str] | None = None) -> int:
    """Count, print and, with --out, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--cases', type=int, default=20_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='files to write, without suffix')
    args = parser.parse_args(argv)
    counts = []
    for case in LOSSES:
        if case.twin is None:
            continue
        for precision in PRECISIONS:
            for scope in ('mmdet', 'mmdet_ext'):
                counts.append(count_failures(case, scope, precision, args.cases, args.seed))
    text = table(counts)
    print(text)
    if args.out is not None:
        command = f'python tools/loss_robustness.py --cases {args.cases} --seed {args.seed}'
        page = f'# Losses on hard pairs\n\nMade by `{command}`.\n\n{text}\n'
        write_text(args.out.with_suffix('.md'), page)
        rows = {'torch': torch.__version__, 'rows': [asdict(count) for count in counts]}
        write_json(args.out.with_suffix('.json'), rows)
    return 0


def count_failures(case: LossCase, scope: str, precision: str, cases: int, seed: int) -> Count:
    """Run one loss on the hard pairs, each pair's gradient its own."""
    loss: nn.Module = MODELS.build({'type': f'{scope}.{case.name}', **case.options})
    pred_dtype, target_dtype = PRECISIONS[precision]
    pred, target = case.hard_inputs(torch.Generator().manual_seed(seed), cases)
    leaf = pred.to(pred_dtype).requires_grad_()
    each: Tensor = loss(leaf, target.to(target_dtype), reduction_override='none')
    each.sum().backward()
    assert leaf.grad is not None
    return Count(
        loss=f'{scope}.{case.name}',
        precision=precision,
        cases=cases,
        bad_values=int((~torch.isfinite(each)).sum()),
        bad_gradients=int((~torch.isfinite(leaf.grad)).any(-1).sum()),
    )


def table(counts: list[Count]) -> str:
    """A Markdown table, a line a loss and precision."""
    lines = [
        '| loss | precision | cases | loss is no number | gradient is no number |',
        '| --- | --- | ---: | ---: | ---: |',
    ]
    lines += [
        f'| `{c.loss}` | {c.precision} | {c.cases:,} | {c.bad_values:,} | {c.bad_gradients:,} |'
        for c in counts
    ]
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
