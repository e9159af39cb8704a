"""Simulation of box regression by gradient descent, after the DIoU paper.

Each anchor is moved to each target by steps on (x, y, w, h),

    box <- box - rate * (2 - IoU) * gradient of the loss,

with a rate of 0.1, then 0.01 after 80 % of the steps and 0.001 after 90 %. The error of a case is
|dx| + |dy| + |dw| + |dh|. Boxes are rows here, coordinates first: shape (4, N).

References:
    Zheng et al., Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression, AAAI
    2020, section "Simulation Experiment", algorithm 1. Program: github.com/Zzh-tju/DIoU.
"""

from __future__ import annotations

import ast
import functools
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS
from torch import Tensor

from mmdet_ext.analysis.box_simulation import GOOD_OVERLAP, SimulatedLoss
from mmdet_ext.studies.published_gradients import Gradient, corners, overlap, published_gradient

ASPECT_RATIOS = (1 / 4, 1 / 3, 1 / 2, 1.0, 2.0, 3.0, 4.0)
AREAS = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)
#: Both coordinates of the centre of all targets.
CENTER = 10.0
#: Radius of the disc of anchor points around the centre.
RADIUS = 3.0
CASES_PER_POINT = len(ASPECT_RATIOS) * len(AREAS) * len(ASPECT_RATIOS)
#: Points per chunk, few enough that the tensors of one step stay in a core's cache.
POINTS_PER_CHUNK = 64
#: Smallest side of a box: some losses have no gradient for a box without area.
SHORTEST_SIDE = 0.01

DEFAULT_LOSSES = (
    'mmdet_ext.IoULoss:mode=linear',
    'mmdet_ext.GIoULoss',
    'mmdet_ext.DIoULoss',
    'mmdet_ext.CIoULoss',
    'mmdet_ext.EfficientIoULoss',
    'mmdet_ext.SIoULoss:neg_gamma=True',
    'mmdet_ext.MPDIoULoss',
    'mmdet_ext.ShapeIoULoss',
    'mmdet_ext.WiseIoULoss:version=v1',
    'mmdet_ext.NWDLoss:constant=1',
    'published.IoU',
    'published.GIoU',
    'published.DIoU',
    'published.CIoU',
)


@dataclass(frozen=True)
class ChunkResult:
    """Result of the cases of a few anchor points.

    Attributes:
        errors: Error summed over the cases, before the first step and after each, shape (T + 1,).
        point_errors: Final error, mean over the cases of each point, shape (P,).
        good: Number of cases that end with an IoU above GOOD_OVERLAP.
        seconds: Processor time on one core.
    """

    errors: np.ndarray
    point_errors: np.ndarray
    good: int
    seconds: float


def anchor_points(count: int, seed: int) -> Tensor:
    """Draw points uniformly on the disc, shape (count, 2)."""
    radius, turn = torch.rand(2, count, generator=torch.Generator().manual_seed(seed))
    angle = 2 * math.pi * turn
    spokes = torch.stack([angle.cos(), angle.sin()], dim=1)
    return CENTER + RADIUS * radius.sqrt()[:, None] * spokes


def cases_of(points: Tensor) -> tuple[Tensor, Tensor]:
    """Pair the anchors at some points with all targets.

    Args:
        points: Anchor points, shape (P, 2).

    Returns:
        Anchors and their targets as rows x, y, w, h, both (4, P * CASES_PER_POINT). The cases of
        one point are adjacent.
    """
    ratio = torch.tensor(ASPECT_RATIOS)
    shapes = torch.stack([ratio.sqrt(), ratio.rsqrt()])
    anchors = torch.empty(4, len(points), len(ASPECT_RATIOS), len(AREAS), len(ASPECT_RATIOS))
    targets = torch.full_like(anchors, CENTER)
    targets[2:] = shapes[:, None, :, None, None]
    anchors[:2] = points.t()[:, :, None, None, None]
    sides = torch.tensor(AREAS).sqrt()[:, None] * shapes[:, None, :]
    anchors[2:] = sides[:, None, None]
    return anchors.flatten(1), targets.flatten(1)


def rate(step: int, iterations: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    if step >= 0.9 * iterations:
        return 0.001
    return 0.01 if step >= 0.8 * iterations else 0.1


def run_chunk(gradient: Gradient, points: Tensor, iterations: int) -> ChunkResult:
    """Move the anchors of some points, shape (P, 2), to their targets by gradient descent."""
    started = time.process_time()
    boxes, targets = cases_of(points)
    errors = np.zeros(iterations + 1)
    errors[0] = (boxes - targets).abs_().sum(dtype=torch.float64)
    for step in range(iterations):
        pace = (2 - overlap(boxes, targets)) * rate(step, iterations)
        boxes -= gradient(boxes, targets).mul_(pace)
        boxes[2:].clamp_(min=SHORTEST_SIDE)
        errors[step + 1] = (boxes - targets).abs_().sum(dtype=torch.float64)
    final = (boxes - targets).abs_().sum(0).reshape(len(points), CASES_PER_POINT)
    return ChunkResult(
        errors=errors,
        point_errors=final.mean(1, dtype=torch.float64).numpy(),
        good=int((overlap(boxes, targets) > GOOD_OVERLAP).sum()),
        seconds=time.process_time() - started,
    )


def exact_gradient(loss: torch.nn.Module) -> Gradient:
    """Return the derivative of a registered loss by x, y, w, h, each case independent."""

    def gradient(boxes: Tensor, targets: Tensor) -> Tensor:
        leaf = corners(boxes).requires_grad_()
        loss(leaf.t(), corners(targets).t(), reduction_override='sum').backward()
        assert leaf.grad is not None
        low, high = leaf.grad[:2], leaf.grad[2:]
        return torch.cat([low + high, (high - low) / 2])

    return gradient


def parse_loss(text: str) -> dict[str, Any]:
    """Parse ``SCOPE.NAME:option=value,option=value`` to a config.

    Raises:
        ValueError: For options in another form.

    >>> parse_loss('mmdet.IoULoss:mode=linear,eps=1e-3')
    {'type': 'mmdet.IoULoss', 'mode': 'linear', 'eps': 0.001}
    """
    name, _, options = text.partition(':')
    config: dict[str, Any] = {'type': name}
    for part in filter(None, options.split(',')):
        key, equals, value = part.partition('=')
        if not (key and equals):
            raise ValueError(f'{text!r}: {part!r} is no option; give NAME:option=value,...')
        try:
            config[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            config[key] = value
    return config


def build_gradient(text: str) -> Gradient:
    """Build the gradient of a loss that is given as on the command line.

    Raises:
        ValueError, KeyError, TypeError: For an unknown loss or option.
    """
    scope, _, name = text.partition('.')
    if scope == 'published':
        return published_gradient(name)
    return exact_gradient(MODELS.build(parse_loss(text)))


def simulate(
    losses: Iterable[str], points: Tensor, iterations: int, workers: int
) -> list[SimulatedLoss]:
    """Run every loss over all points.

    The points are split into chunks, which the workers share. The result does not depend on the
    number of workers.

    Args:
        losses: Losses as on the command line.
        points: Anchor points, shape (P, 2).
        iterations: Number of steps, at least 1.
        workers: Number of processes, at least 1; one runs in the calling process.

    Returns:
        One result per loss.

    Raises:
        ValueError, KeyError, TypeError: For an unknown loss or option, before any work is done.
    """
    losses = list(losses)
    for loss in losses:
        build_gradient(loss)
    chunks = points.split(POINTS_PER_CHUNK)
    work = [(loss, chunk.numpy(), iterations) for loss in losses for chunk in chunks]
    results = []
    with _runner(workers) as run:
        arriving = iter(run(_work, work))
        for number, loss in enumerate(losses):
            done: list[ChunkResult] = []
            for result in arriving:
                done.append(result)
                _progress(f'{loss} ({number + 1} of {len(losses)})', len(done), len(chunks))
                if len(done) == len(chunks):
                    break
            results.append(_collect(loss, done))
    return results


@contextmanager
def _runner(workers: int) -> Iterator[Callable[..., Iterable[ChunkResult]]]:
    """Yield a `map` that keeps the order: over processes of one thread, or in this process."""
    if workers > 1:
        context = multiprocessing.get_context('spawn')
        with context.Pool(workers, torch.set_num_threads, (1,)) as pool:
            yield pool.imap
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield map
    finally:
        torch.set_num_threads(threads)


def _work(task: tuple[str, np.ndarray, int]) -> ChunkResult:
    loss, points, iterations = task
    return run_chunk(_kept_gradient(loss), torch.from_numpy(points), iterations)


_kept_gradient = functools.cache(build_gradient)


def _collect(loss: str, done: list[ChunkResult]) -> SimulatedLoss:
    point_errors = np.concatenate([result.point_errors for result in done])
    cases = len(point_errors) * CASES_PER_POINT
    return SimulatedLoss(
        name=loss,
        cases=cases,
        errors=np.sum([result.errors for result in done], axis=0),
        point_errors=point_errors,
        good_share=sum(result.good for result in done) / cases,
        seconds=sum(result.seconds for result in done),
    )


def _progress(title: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = '\n' if done == total else '\r'
        print(f'\r{title}: {done / total:.0%}', end=end, file=sys.stderr, flush=True)
