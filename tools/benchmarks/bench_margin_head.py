"""ArcFace over many identities: ours against three others, forward and backward, and the floor.

    python tools/benchmarks/bench_margin_head.py [--out FILE.json]

The others are mmpretrain's ``ArcFaceClsHead``, ArcFace as InsightFace has it (the target's logit
gathered, then cross entropy), and pytorch-metric-learning's ``ArcFaceLoss`` where that package is
installed. Memory is counted beyond the centres' and features' gradients, which all must have. The
floor is the time of the four matrix products alone, in the same chunks.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from mmengine.structures import BaseDataElement
from timing import Timing, compare, parse_arguments, report
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.face.heads import MarginHead

MARGIN, SCALE = 0.5, 64.0
Step = Callable[[], tuple[Tensor, Tensor, Tensor]]
Maker = Callable[[Tensor, Tensor, Tensor], 'Step | None']


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        classes={'type': int, 'default': 100_000},
        many={'type': int, 'default': 1_000_000, 'help': 'classes for ours alone; 0 for none'},
        samples={'type': int, 'default': 256},
        channels={'type': int, 'default': 512},
    )
    rows: list[tuple[str, list[Timing]]] = []
    floors: dict[str, float] = {}
    ours: dict[str, Maker] = {'mmdet_ext.MarginHead': our_step}
    for classes, makers in ((args.classes, {**OTHERS, **ours}), (args.many, ours)):
        if not classes:
            continue
        generator = torch.Generator().manual_seed(args.seed)
        features = torch.randn(args.samples, args.channels, generator=generator)
        centres = torch.randn(classes, args.channels, generator=generator)
        labels = torch.randint(classes, (args.samples,), generator=generator)
        steps = {name: make(features, centres, labels) for name, make in makers.items()}
        known = {name: step for name, step in steps.items() if step is not None}
        gradients = 4 * (centres.numel() + features.numel()) / 2**20
        work = f'ArcFace, {args.samples} x {args.channels}, {classes:,} classes'
        rows.append((work, beyond(compare(known, differing, args.runs, warmup=1), gradients)))
        floors[work] = floor_ms(features, centres, args.runs)
    report('Margin head, forward and backward', rows, args.out, floor_ms=floors)
    for work, timings in rows:
        say(work, timings, floors[work])
    return 0


def say(work: str, timings: list[Timing], floor: float) -> None:
    """Print how ours stands to the first, to the best, and to the floor."""
    ours = timings[-1]
    print(
        f'{work}: ours {ours.median_ms:.0f} ms, {ours.median_ms / floor:.2f} x the floor of '
        f'{floor:.0f} ms (four matrix products)'
    )
    if len(timings) > 1:
        first, others = timings[0], timings[:-1]
        best, least = (min(getattr(t, key) for t in others) for key in ('median_ms', 'peak_mib'))
        print(
            f'  time: {ours.median_ms / first.median_ms:.2f} of the first, '
            f'{ours.median_ms / best:.2f} of the best other'
        )
        print(
            f'  memory: {ours.peak_mib / first.peak_mib:.3f} of the first, '
            f'{ours.peak_mib / least:.3f} of the least other'
        )


def our_step(features: Tensor, centres: Tensor, labels: Tensor) -> Step:
    """The registered head, as a classifier calls it."""
    margin = {'type': 'ArcFace', 'm': MARGIN}
    head = MarginHead(len(centres), centres.shape[1], margin, SCALE, path='exact')
    head.weight.data = centres.clone()
    return _step(features, head.weight, lambda x: head.loss((x,), _samples(labels))['loss'])


def mmpretrain_step(features: Tensor, centres: Tensor, labels: Tensor) -> Step:
    """Stock mmpretrain's head."""
    from mmpretrain.models.heads import ArcFaceClsHead
    from mmpretrain.structures import DataSample

    head = ArcFaceClsHead(len(centres), centres.shape[1], scale=SCALE, margins=MARGIN)
    head.norm_product.weight.data = centres.clone()
    samples = [DataSample().set_gt_label(int(label)) for label in labels]
    return _step(features, head.norm_product.weight, lambda x: head.loss((x,), samples)['loss'])


def insightface_step(features: Tensor, centres: Tensor, labels: Tensor) -> Step:
    """ArcFace by the paper's formula on the target's cosine alone, then cross entropy."""
    weight = nn.Parameter(centres.clone())
    rows = torch.arange(len(labels))

    def loss(x: Tensor) -> Tensor:
        cosine = F.linear(F.normalize(x), F.normalize(weight)).clamp(-1, 1)
        target = cosine[rows, labels]
        turned = torch.cos(torch.acos(target) + MARGIN)
        beyond_pi = target <= -torch.cos(torch.tensor(MARGIN))
        turned = torch.where(beyond_pi, target - MARGIN * torch.sin(torch.tensor(MARGIN)), turned)
        cosine[rows, labels] = turned
        return F.cross_entropy(SCALE * cosine, labels)

    return _step(features, weight, loss)


def metric_learning_step(features: Tensor, centres: Tensor, labels: Tensor) -> Step | None:
    """pytorch-metric-learning's, None (and said so) where it is not installed."""
    try:
        from pytorch_metric_learning.losses import ArcFaceLoss
    except ImportError:
        print(
            'pytorch-metric-learning is not installed (`pip install pytorch-metric-learning`): '
            'left out',
            file=sys.stderr,
        )
        return None
    degrees = float(torch.rad2deg(torch.tensor(MARGIN, dtype=torch.float64)))
    loss = ArcFaceLoss(len(centres), centres.shape[1], margin=degrees, scale=SCALE)
    loss.W.data = centres.t().contiguous()
    step = _step(features, loss.W, lambda x: loss(x, labels))

    def run() -> tuple[Tensor, Tensor, Tensor]:
        value, grad, weight_grad = step()
        return value, grad, weight_grad.t()

    return run


def _step(features: Tensor, weight: Tensor, loss: Callable[[Tensor], Tensor]) -> Step:
    def run() -> tuple[Tensor, Tensor, Tensor]:
        x = features.detach().requires_grad_()
        weight.grad = None
        value = loss(x)
        value.backward()
        assert x.grad is not None and weight.grad is not None
        return value.detach(), x.grad, weight.grad

    return run


def _samples(labels: Tensor) -> list[BaseDataElement]:
    samples = []
    for label in labels:
        sample = BaseDataElement()
        sample.set_field(label.view(1), 'gt_label')
        samples.append(sample)
    return samples


def differing(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> str | None:
    """None when loss and gradients agree to float32's rounding, else by how much they do not."""
    gaps = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True)]
    return f'relative gaps {gaps}' if max(gaps) > 1e-4 else None


def beyond(timings: list[Timing], mib: float) -> list[Timing]:
    """The timings with memory beyond the gradients that each must give."""
    peaks = [max(t.peak_mib - mib, 0.0) for t in timings]
    return [
        replace(t, peak_mib=peak, memory_share=peak / max(peaks[0], 1e-9))
        for t, peak in zip(timings, peaks, strict=True)
    ]


def floor_ms(features: Tensor, centres: Tensor, runs: int, columns: int = 1024) -> float:
    """The products alone: scores, scores again, and the gradients of features and centres."""
    table = features.new_empty(len(features), columns)
    grad, grad_centres = torch.zeros_like(features), torch.empty_like(centres)

    def products() -> None:
        for recomputed in (False, True):
            for start in range(0, len(centres) - columns + 1, columns):
                rows = centres[start : start + columns]
                torch.mm(features, rows.t(), out=table)
                if recomputed:
                    torch.mm(table.t(), features, out=grad_centres[start : start + columns])
                    grad.addmm_(table, rows)

    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        products()
        seconds.append(time.perf_counter() - start)
    # The whole chunks alone were counted.
    share = len(centres) / (len(centres) // columns * columns)
    return statistics.median(seconds[1:]) * share * 1e3


OTHERS: dict[str, Maker] = {
    'mmpretrain.ArcFaceClsHead': mmpretrain_step,
    'ArcFace as InsightFace': insightface_step,
    'pytorch-metric-learning': metric_learning_step,
}


if __name__ == '__main__':
    sys.exit(main())
