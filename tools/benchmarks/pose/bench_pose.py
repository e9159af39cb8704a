"""Benchmark of poses beside MMPose's: the loss of tags, decoding by tags; fields alone.

    python tools/benchmarks/pose/bench_pose.py [--people 3 30] [--out FILE.json]

Work: the grouping loss forward and backward (batch 8, 17 joints, 128 x 128), with equal values and
gradients; decoding of people by tags, with equal people. MMPose has no part affinity fields: their
targets stand beside one write of maps of their size, and their decoding stands alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmpose.registry import KEYPOINT_CODECS, MODELS
from torch import Tensor

from mmdet_ext.functional.pose import paf_targets

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from timing import Timing, compare, parse_arguments, report

BATCH, JOINTS, SIDE = 8, 17, 128
SIZES = dict(input_size=(4 * SIDE, 4 * SIDE), heatmap_size=(SIDE, SIDE), sigma=2)
ORDER = [0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16]
#: Joints of a person around his middle, in parts of his height.
FIGURE = np.array(
    [[0, -40], [2, -42], [-2, -42], [4, -41], [-4, -41], [10, -30], [-10, -30], [14, -15]]
    + [[-14, -15], [15, 0], [-15, 0], [6, 0], [-6, 0], [7, 22], [-7, 22], [7, 44], [-7, 44]],
    np.float32,
)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__, argv, people={'nargs': '+', 'type': int, 'default': [3, 30], 'metavar': 'N'}
    )
    rows: list[tuple[str, list[Timing]]] = []
    for people in args.people:
        work = {scope: loss_step(scope, people, args.seed) for scope in ('mmpose', 'mmdet_ext')}
        rows.append((f'grouping loss, {people} people', compare(work, apart, args.runs)))
    for people in args.people:
        rows.append(
            (f'decoding by tags, {people} people', compare(by_tags(people), apart, args.runs))
        )
        targets, decoding = by_fields(people)
        rows.append((f'targets of fields, {people} people', compare(targets, never, args.runs)))
        rows.append((f'decoding of fields, {people} people', compare(decoding, apart, args.runs)))
    report('Poses', rows, args.out)
    return 0


def loss_step(scope: str, people: int, seed: int) -> Callable[[], list[Tensor]]:
    """Make the forward and backward pass of one package's grouping loss."""
    generator = torch.Generator().manual_seed(seed)
    tags = torch.randn(BATCH, JOINTS, SIDE, SIDE, generator=generator)
    cells = torch.randint(SIDE**2, (BATCH, people, JOINTS), generator=generator)
    indices = list(torch.stack([cells, torch.ones_like(cells)], -1))
    loss = MODELS.build({'type': f'{scope}.AssociativeEmbeddingLoss'})

    def run() -> list[Tensor]:
        leaf = tags.detach().requires_grad_()
        pull, push = loss(leaf, indices)
        (pull + push).backward()
        assert leaf.grad is not None
        return [pull.detach(), push.detach(), leaf.grad]

    return run


def crowd(people: int) -> np.ndarray:
    """Place people on a grid, px of the input, (N, 17, 2)."""
    number = np.arange(people)
    middle = np.stack([40 + 80 * (number % 6), 55 + 95 * (number // 6 % 5)], -1)
    shift = np.random.default_rng(0).uniform(-4, 4, (people, JOINTS, 2))
    return (middle[:, None] + FIGURE + shift).astype(np.float32)


def by_tags(people: int) -> dict[str, Callable[[], Any]]:
    """Make the decoding of people by tags, of both packages."""
    stock = KEYPOINT_CODECS.build(
        dict(type='AssociativeEmbedding', decode_keypoint_order=ORDER, **SIZES)
    )
    ours = KEYPOINT_CODECS.build(
        dict(type='mmdet_ext.AssociativeEmbeddingCodec', decode_keypoint_order=ORDER, **SIZES)
    )
    encoded = ours.encode(crowd(people))
    heatmaps = torch.from_numpy(encoded['heatmaps'])[None]
    tags = 0.05 * torch.randn(heatmaps.shape, generator=torch.Generator().manual_seed(0))
    for person, joints in enumerate(encoded['keypoint_indices']):
        for joint, (cell, _) in enumerate(joints):
            tags.view(JOINTS, -1)[joint, cell] += 3.0 * person

    def work(codec: Any) -> Callable[[], Any]:
        return lambda: [torch.from_numpy(each[0]) for each in codec.batch_decode(heatmaps, tags)]

    return {'mmpose': work(stock), 'mmdet_ext': work(ours)}


def by_fields(people: int) -> tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]:
    """Make targets of fields beside a write of their maps, and both ways of decoding them."""
    codec, greedy = (
        KEYPOINT_CODECS.build(dict(type='mmdet_ext.PartAffinityField', matching=each, **SIZES))
        for each in ('optimal', 'greedy')
    )
    encoded = codec.encode(crowd(people))
    maps = [torch.from_numpy(encoded[name])[None] for name in ('heatmaps', 'limb_fields')]
    places = torch.from_numpy(crowd(people) / 4)[None]
    shown = torch.ones(places.shape[:3])
    targets = {
        'one write': lambda: torch.zeros(1, 2 * len(codec.limbs), SIDE, SIDE).fill_(1.0),
        'mmdet_ext': lambda: paf_targets(places, shown, codec.limbs, (SIDE, SIDE), 1.0, 1.0),
    }

    def decode(each: Any) -> Callable[[], Any]:
        return lambda: [torch.from_numpy(part[0]) for part in each.batch_decode(*maps)]

    decoding = {'greedy': decode(greedy), 'optimal': decode(codec)}
    return targets, decoding


def apart(one: list[Tensor], other: list[Tensor]) -> str | None:
    """Return None if results are equal up to rounding, else how far they are apart."""
    if any(a.shape != b.shape for a, b in zip(one, other, strict=True)):
        return f'shapes {[tuple(a.shape) for a in one]} and {[tuple(b.shape) for b in other]}'
    gaps = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True)]
    return f'relative gaps {gaps}' if max(gaps) > 1e-5 else None


def never(one: Any, other: Any) -> None:
    """Return None: a write of maps holds no targets to compare."""


if __name__ == '__main__':
    sys.exit(main())
