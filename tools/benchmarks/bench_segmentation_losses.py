"""Benchmark of the losses of label maps against MMSegmentation's: forward and backward.

    python tools/benchmarks/bench_segmentation_losses.py [--out FILE.json]

Results must be equal. A tenth of the pixels has the label 255, which is ignored; with Dice loss
none has, because MMSegmentation's counts such pixels. `DiceCELoss` stands beside two losses of
MMSegmentation. On a CPU, MMSegmentation's FocalLoss fails on labels, so that it is given targets of
each element, made before, and a weight of 0 for the ignored pixels. Beside the peak of what torch
allocates there is the peak of the resident memory of a process of its own, where Linux lets a
process reset that.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmseg.registry import MODELS
from timing import Timing, compare, parse_arguments, report
from torch import Tensor

Result = tuple[Tensor, Tensor]

IGNORED = 255
SCOPES = ('mmseg', 'mmdet_ext')
Loss = dict[str, Any]
SOFTMAX_DICE = {'type': 'DiceLoss', 'use_sigmoid': False}
#: Name of the work -> the losses of MMSegmentation, whose sum is meant, and ours.
WORK: dict[str, tuple[list[Loss], Loss]] = {
    'cross entropy': ([{'type': 'CrossEntropyLoss'}], {'type': 'CrossEntropyLoss'}),
    'cross entropy, sigmoid': (
        [{'type': 'CrossEntropyLoss', 'use_sigmoid': True}],
        {'type': 'CrossEntropyLoss', 'use_sigmoid': True},
    ),
    'focal loss': (
        [{'type': 'FocalLoss', 'alpha': 0.25, 'gamma': 2.0}],
        {'type': 'FocalLoss', 'alpha': 0.25, 'gamma': 2.0},
    ),
    'Dice': ([SOFTMAX_DICE], SOFTMAX_DICE),
    'Tversky': ([{'type': 'TverskyLoss'}], {'type': 'TverskyLoss'}),
    'cross entropy and Dice': (
        [{'type': 'CrossEntropyLoss'}, SOFTMAX_DICE],
        {'type': 'DiceCELoss', 'per_class': False, 'naive_dice': False},
    ),
}
#: Losses of MMSegmentation that do not leave out ignored pixels.
COUNTS_IGNORED = {'DiceLoss'}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        size={
            'nargs': 4,
            'type': int,
            'default': [2, 19, 512, 1024],
            'metavar': ('N', 'C', 'H', 'W'),
            'help': 'size of the logits, default: 2 19 512 1024',
        },
        losses={'nargs': '+', 'metavar': 'WORK', 'choices': list(WORK), 'help': 'default: all'},
        resident={'nargs': 2, 'metavar': ('SCOPE', 'WORK'), 'help': 'measure one process alone'},
    )
    warnings.filterwarnings('ignore', message='Default ``avg_non_ignore`` is False')
    logits, label = inputs(args.seed, *args.size)
    if args.resident:
        scope, work = args.resident
        print(peak_resident(step(scope, work, logits, label)))
        return 0
    size = ' x '.join(f'{size:,}' for size in args.size)
    rows: list[tuple[str, list[Timing]]] = []
    resident: dict[str, dict[str, str]] = {}
    for work in args.losses or WORK:
        contenders = {scope: step(scope, work, logits, label) for scope in SCOPES}
        rows.append((f'{work}, {size}', compare(contenders, differing, args.runs)))
        resident[work] = {scope: in_new_process(scope, work, args.size) for scope in SCOPES}
        print(f'{work}: peak of resident memory beyond that before, MiB: {resident[work]}')
    report('Losses of label maps, forward and backward', rows, args.out, resident_mib=resident)
    return 0


def inputs(seed: int, images: int, classes: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Make logits, and labels of which a tenth is ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, classes, height, width, generator=generator)
    label = torch.randint(classes, (images, height, width), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.1] = IGNORED
    return logits, label


def step(scope: str, work: str, logits: Tensor, label: Tensor) -> Callable[[], Result]:
    """Make the forward and backward pass of one package's loss.

    Returns:
        Callable: returns the mean loss and the gradient.
    """
    theirs, ours = WORK[work]
    chosen = theirs if scope == 'mmseg' else [ours]
    losses = [MODELS.build({**loss, 'type': f'{scope}.{loss["type"]}'}) for loss in chosen]
    if any(loss['type'] in COUNTS_IGNORED for loss in theirs):
        label = label.where(label != IGNORED, 0)
    target, weight = label, None
    if scope == 'mmseg' and work == 'focal loss':
        kept = label != IGNORED
        one_hot = torch.nn.functional.one_hot(label.where(kept, 0), logits.shape[1])
        target = one_hot.permute(0, 3, 1, 2).float().contiguous()
        weight = kept.float().flatten()

    def run() -> Result:
        leaf = logits.detach().requires_grad_()
        values = [loss(leaf, target, weight=weight, ignore_index=IGNORED) for loss in losses]
        value = torch.stack(values).sum()
        value.backward()
        assert leaf.grad is not None
        return value.detach(), leaf.grad

    return run


def differing(one: Result, other: Result) -> str | None:
    """Return None if loss and gradient are equal up to float32's rounding, else their gaps."""
    gaps = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True)]
    return f'relative gaps of loss and gradient {gaps}' if max(gaps) > 1e-5 else None


def in_new_process(scope: str, work: str, size: list[int]) -> str:
    """Return `peak_resident` of a process that does this work alone, MiB."""
    command = [sys.executable, '-W', 'ignore', __file__, '--resident', scope, work]
    command += ['--size', *map(str, size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def peak_resident(work: Callable[[], Any]) -> float | None:
    """Measure the peak of the process's memory in a run beyond that before it, MiB.

    Returns:
        float | None: None where the system has no such figure.
    """
    try:
        before = resident_kib('VmRSS')
        Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
    except OSError:
        return None
    work()
    return round((resident_kib('VmHWM') - before) / 1024, 1)


def resident_kib(name: str) -> int:
    """Return a figure of ``/proc/self/status``, KiB."""
    lines = Path('/proc/self/status').read_text(encoding='ascii').splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f'{name}:')))


if __name__ == '__main__':
    sys.exit(main())
