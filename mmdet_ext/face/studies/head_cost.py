"""Cost of a classifier over many identities: what a GPU holds, computes and exchanges in a step.

All of it follows from shapes. `tools/benchmarks/face_scale.py` prints it beside what it measures on
a CPU, and beside figures that others have published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from mmdet_ext.functional.numerics.checks import check_count, check_number, check_one_of

Optimizer = Literal['sgd', 'adamw']

#: Tables with a value per element of the centres that an optimizer keeps.
STATES: dict[str, int] = {'sgd': 1, 'adamw': 2}
_FLOAT, _LONG = 4, 8
# Elements of a chunk of scores, as `class_competition` chooses them.
_CHUNK = {'cpu': 2**18, 'gpu': 2**25}


class Published(NamedTuple):
    """Figures of InsightFace's training with 8 V100 GPUs and a rate of 0.1.

    Attributes:
        identities: number of classes.
        images_per_s: images per second, of all GPUs, of the whole training.
        gigabytes: memory per GPU of the whole training: network, activations and classifier.
    """

    identities: int
    images_per_s: int
    gigabytes: float


#: From the table of training speed in the readme of InsightFace's `arcface_torch`, rate 0.1.
PUBLISHED = (Published(5_500_000, 3975, 9.9), Published(29_000_000, 1855, 32.0))
PUBLISHED_GPUS = 8


@dataclass(frozen=True)
class HeadCost:
    """Cost of the classifier in one step, for one of several GPUs.

    Attributes:
        centers: bytes of its centres.
        gradient: bytes of their gradient.
        state: bytes of the optimizer's state.
        working: bytes beyond these at the peak of a step.
        flops: floating-point operations of the matrix products.
        exchanged: bytes that `ShardedMarginHead` gathers and reduces, whatever the number of
            identities; 0 on one GPU.
    """

    centers: int
    gradient: int
    state: int
    working: int
    flops: int
    exchanged: int

    @property
    def total(self) -> int:
        """Bytes in all at the peak of a step."""
        return self.centers + self.gradient + self.state + self.working


def head_cost(
    identities: int,
    gpus: int = 1,
    rate: float = 1.0,
    samples: int = 128,
    channels: int = 512,
    optimizer: Optimizer = 'sgd',
    device: Literal['cpu', 'gpu'] = 'gpu',
) -> HeadCost:
    """Compute what a step costs one GPU, in float32, with classes split evenly over the GPUs.

    With C classes, W GPUs, N samples on each, D channels, and K = rate C / W::

        centers = 4 D C / W,   state = 1 or 2 times that,   gradient = 4 D K
        rate 1: working = 4 (C / W + c W N + c D + W N D)          c classes per chunk
        below:  working = the larger of    4 (D K + K + W N K + 2 c W N + W N D)  backward
                                           4 D K (1 + states) + 8 K               step
        flops   = 2 W N D K times 4 products, or 3 where the products are kept (W N <= D)
        exchanged = 4 W N (2 D + 1)        features with their lengths, and their gradient
                    + 8 W + 24 W N         labels; own similarity and length; largest and sum

    Where the products are not kept, 2 c W N + W N K is c W N + c D. A CPU keeps the memory of the
    drawn rows' states, 4 D K states, from step to step, beside that of backward. The optimizer must
    work in place (``fused=True``), and W N K be above 65,536: smaller tables are held whole.

    Args:
        identities: C.
        gpus: W.
        rate: share of the classes that compete, above 0 and at most 1.
        samples: N, per GPU.
        channels: D.
        optimizer: 'sgd' with momentum, or 'adamw'.
        device: chunks are those of a 'cpu' or a 'gpu'.

    Raises:
        ValueError: for counts below 1, a rate out of range, an unknown optimizer or device.
    """
    for name, count in dict(
        identities=identities, gpus=gpus, samples=samples, channels=channels
    ).items():
        check_count(name, count)
    check_number('rate', rate, above=0, most=1)
    check_one_of('optimizer', optimizer, Optimizer)
    check_one_of('device', device, Literal['cpu', 'gpu'])
    own = -(-identities // gpus)
    drawn = own if rate == 1 else max(round(rate * own), 1)
    gathered = gpus * samples
    row, states = _FLOAT * channels, STATES[optimizer]
    chunk = min(max(_CHUNK[device] // gathered, 64), drawn)
    kept = rate < 1 and gathered <= channels
    table = chunk * (gathered + (gathered if kept else channels))
    backward = _FLOAT * (table + gathered * channels + drawn)
    if rate < 1:
        backward += row * drawn * (1 + (states if device == 'cpu' else 0))
        backward += _FLOAT * gathered * drawn if kept else 0
    step = 0 if rate == 1 else row * drawn * (1 + states) + _LONG * drawn
    several = _FLOAT * gathered * (2 * channels + 1) + _LONG * gpus + 6 * _FLOAT * gathered
    return HeadCost(
        centers=row * own,
        gradient=row * drawn,
        state=row * own * states,
        working=max(backward, step),
        flops=(3 if kept else 4) * 2 * gathered * channels * drawn,
        exchanged=several if gpus > 1 else 0,
    )


@dataclass(frozen=True)
class Line:
    """Line a + b C through measurements, with relative errors that are as small as possible.

    Attributes:
        start: a.
        slope: b, per identity.
        residuals: (measured - line) / measured, in the order of the measurements.
    """

    start: float
    slope: float
    residuals: tuple[float, ...]


def fit_line(identities: Sequence[int], values: Sequence[float]) -> Line:
    """Fit a + b C to positive values by least squares of the relative errors.

    Args:
        identities: C of each measurement, at least two different ones.
        values: as many, above 0.

    Raises:
        ValueError: for fewer than two different numbers of identities, and values not above 0.

    >>> fit_line([1, 2, 3], [5.0, 7.0, 9.0]).slope.__round__(6)
    2.0
    """
    if len(set(identities)) < 2 or len(identities) != len(values):
        raise ValueError(
            f'a line needs measurements at two numbers of identities, got {list(identities)} with '
            f'{len(values)} values: measure more'
        )
    y = np.asarray(values, float)
    if not (y > 0).all():
        raise ValueError(f'values must be above 0, got {y.tolist()}')
    x = np.stack([np.ones(len(y)), np.asarray(identities, float)], 1) / y[:, None]
    (start, slope), *_ = np.linalg.lstsq(x, np.ones(len(y)), rcond=None)
    line = start + slope * np.asarray(identities, float)
    return Line(float(start), float(slope), tuple(((y - line) / y).tolist()))


def cost_table(
    identities: Sequence[int] = (10**6, 10**7, 10**8),
    gpus: Sequence[int] = (1, 8, 64),
    rates: Sequence[float] = (1.0, 0.1),
    samples: int = 128,
    channels: int = 512,
) -> str:
    """Format a Markdown table of `head_cost`, with the published figures, each row with its kind.

    Memory is in GB (1e9 bytes) per GPU, what is exchanged in MB per step.
    """
    columns = [
        *('kind', 'identities', 'GPUs', 'rate', 'centres', 'gradient', 'momentum', 'working'),
        *('all, SGD', 'all, AdamW', 'TFLOP', 'exchanged, MB', 'images/s'),
    ]
    lines = [f'| {" | ".join(columns)} |', f'| --- {"| ---: " * (len(columns) - 1)}|']
    for count in identities:
        for number in gpus:
            lines += [_row(count, number, rate, samples, channels) for rate in rates]
    for published in PUBLISHED:
        lines.append(_row(published.identities, PUBLISHED_GPUS, 0.1, samples, channels))
        lines.append(
            f'| published | {published.identities:,} | {PUBLISHED_GPUS} | 0.1 |  |  |  |  '
            f'| {published.gigabytes:.1f}, with the network |  |  |  '
            f'| {published.images_per_s:,} (V100) |'
        )
    return '\n'.join(lines)


def _row(identities: int, gpus: int, rate: float, samples: int, channels: int) -> str:
    """Format the row of a computed cost."""
    sgd, adamw = (
        head_cost(identities, gpus, rate, samples, channels, optimizer)
        for optimizer in ('sgd', 'adamw')
    )
    sizes = [sgd.centers, sgd.gradient, sgd.state, sgd.working, sgd.total, adamw.total]
    return (
        f'| computed | {identities:,} | {gpus} | {rate:g} | '
        + ' | '.join(f'{size / 1e9:.2f}' for size in sizes)
        + f' | {sgd.flops / 1e12:.2f} | {sgd.exchanged / 1e6:.1f} |  |'
    )


def bytes_per_identity(gpus: int = PUBLISHED_GPUS, rate: float = 0.1) -> tuple[float, float]:
    """Compute how many bytes per GPU an identity adds, times the GPUs.

    Between two sizes, the network drops out, so that this compares classifiers alone.

    Returns:
        tuple: from `head_cost` with SGD, and between the two published figures.
    """
    first, last = PUBLISHED
    costs = [head_cost(each.identities, gpus, rate).total for each in PUBLISHED]
    more = last.identities - first.identities
    return (
        gpus * (costs[1] - costs[0]) / more,
        gpus * (last.gigabytes - first.gigabytes) * 1e9 / more,
    )
