"""How often each loss, and its stock twin, gives no number on inputs that losses stumble over.

    python tools/analysis/loss_robustness.py [--out docs/results/losses_robustness]

For every registered loss: 20,000 hard cases in float32, float16, bfloat16, and half precision
predictions against float32 targets. Boxes: identical, disjoint, nested, without area, inverted,
near; 1e-3 to 1e4 px. Logits: up to +-1e4, with ignored labels and samples without positives. A case
counts when its loss, or its gradient, is NaN or infinite, or when the loss raises an error because
of it. Writes the table as OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmdet_ext.catalog.loss_cases import LOSSES, LossCase, cast
from mmdet_ext.utils.files import write_json, write_text

PRECISIONS = {
    'float32': (torch.float32, torch.float32),
    'float16': (torch.float16, torch.float16),
    'bfloat16': (torch.bfloat16, torch.bfloat16),
    'float16 to float32': (torch.float16, torch.float32),
    'bfloat16 to float32': (torch.bfloat16, torch.float32),
}

PAGE = """# Losses on hard cases

{cases:,} cases a loss and precision, made by

    {command}

A cell counts the cases whose loss is no finite number, whose gradient is none, or that make the
loss raise an error. `mmdet` is stock, and stands before its twin. In the last two columns the
predictions are in half precision and the targets in float32.

{table}
"""

Call = Callable[[Tensor, Any], Tensor]


@dataclass
class Count:
    """Cases of one loss in one precision that gave no number.

    Attributes:
        loss: registered name with its scope, and options.
        precision: key of PRECISIONS.
        cases: how many were run.
        bad_values: of them, those whose loss is NaN or infinite.
        bad_gradients: likewise.
        raised: those that make the loss raise an error.
        error: what the first of those said.
    """

    loss: str
    precision: str
    cases: int
    bad_values: int = 0
    bad_gradients: int = 0
    raised: int = 0
    error: str = ''


def main(argv: list[str] | None = None) -> int:
    """Count, print and, with --out, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--cases', type=int, default=20_000)
    parser.add_argument('--losses', nargs='+', metavar='NAME', help='default: all')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='files to write, without suffix')
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    unknown = set(args.losses or ()) - {case.name for case in LOSSES}
    if unknown:
        parser.error(f'--losses: there is no {", ".join(sorted(unknown))}')
    counts = []
    for case in LOSSES:
        if args.losses and case.name not in args.losses:
            continue
        for precision in PRECISIONS:
            for scope in ('mmdet', 'mmdet_ext') if case.twin else ('mmdet_ext',):
                counts.append(count_failures(case, scope, precision, args.cases, args.seed))
                if sys.stderr.isatty():
                    print(f'\r{counts[-1].loss}, {precision}\033[K', end='', file=sys.stderr)
    text = table(counts)
    print(text)
    if args.out is not None:
        command = (
            f'python tools/analysis/loss_robustness.py --cases {args.cases} --seed {args.seed}'
        )
        page = PAGE.format(cases=args.cases, command=command, table=text)
        write_text(args.out.with_suffix('.md'), page)
        rows = {'torch': torch.__version__, 'rows': [asdict(count) for count in counts]}
        write_json(args.out.with_suffix('.json'), rows)
    return 0


def count_failures(case: LossCase, scope: str, precision: str, cases: int, seed: int) -> Count:
    """Run one loss on its hard cases, each case's gradient its own."""
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
    """Add up the cases; where some make the loss raise, each half by itself."""
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
    """Cases of which an element is NaN or infinite."""
    return int((~torch.isfinite(values)).reshape(len(values), -1).any(-1).sum())


def table(counts: list[Count]) -> str:
    """A Markdown table, a line a loss, a column a precision, and the errors below it."""
    precisions = list(dict.fromkeys(count.precision for count in counts))
    cells = {(count.loss, count.precision): cell(count) for count in counts}
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
        lines += ['', 'What those that raise say:', '']
        lines += [f'- `{loss}`: {error}' for loss, error in sorted(errors.items())]
    return '\n'.join(lines)


def cell(count: Count) -> str:
    """The failures of one loss in one precision, by kind; 0 where there is none."""
    kinds = (
        (count.bad_values, 'loss'),
        (count.bad_gradients, 'gradient'),
        (count.raised, 'raises'),
    )
    return ', '.join(f'{number:,} {kind}' for number, kind in kinds if number) or '0'


if __name__ == '__main__':
    sys.exit(main())
