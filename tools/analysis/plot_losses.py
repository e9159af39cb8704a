"""Draw each loss and its gradient.

    python tools/analysis/plot_losses.py --out docs/images/losses

Box losses, all of mmdet_ext.catalog.cases, along three paths of a prediction by a target of
32 x 32 px: box_shift.png (moved past it), box_scale.png (about its centre, smaller to larger) and
box_aspect.png (about its centre, of its area, high to wide), and with their options
(box_options.png). Classification losses by the predicted probability: classification.png,
quality.png and long_tail.png. Losses a coordinate by the error: regression.png. Where mmdet has the
loss too, its value lies beneath, broad and pale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_ext.catalog.cases import LOSSES, LossCase
from mmdet_ext.plots.losses import Curve, Panel, draw_panels

SIDE = 32.0
#: Odd, so that prediction and target are equal in the middle of a path.
STEPS = 961
LINES_A_PANEL = 6
VARIANTS = {'power': (0.5, 1.0, 3.0), 'inner_ratio': (0.7, 1.0, 1.3)}

#: A path (N, ...), such as logits (N,) -> predictions and target as a loss takes them.
MakeInputs = Callable[[Tensor], tuple[Tensor, Any]]


@dataclass(frozen=True)
class Line:
    """A classification loss with its options and target.

    Attributes:
        label: in the legend.
        name: registered name.
        inputs: from the logits of the path.
        options: config beside ``type``.
        stock: whether mmdet has the loss with these options.
    """

    label: str
    name: str
    inputs: MakeInputs
    options: dict[str, Any] = field(default_factory=dict)
    stock: bool = False


def main(argv: list[str] | None = None) -> int:
    """Draw all pictures and print their names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=Path('docs/images/losses'), help='folder')
    args = parser.parse_args(argv)
    for name, (panels, gradient_label) in pictures().items():
        path = args.out / f'{name}.png'
        draw_panels(panels, gradient_label, path)
        print(path)
    return 0


def pictures() -> dict[str, tuple[list[Panel], str]]:
    """Panels and the gradient's name, by the picture's name."""
    length = f'length of the gradient x {SIDE:g} px'
    by_logit = 'derivative by the logit'
    return {
        **{f'box_{path}': (box_panels(path), length) for path in PATHS},
        'box_options': (option_panels(), length),
        'classification': (probability_panels(CLASSIFICATION), by_logit),
        'quality': (probability_panels(QUALITY), by_logit),
        'long_tail': (probability_panels(LONG_TAIL), by_logit),
        'regression': (regression_panels(), 'derivative'),
    }


def evenly() -> Tensor:
    """From -3 to 3, exactly 0 in the middle."""
    return (torch.arange(STEPS) - STEPS // 2) * (6 / (STEPS - 1))


# Boxes


def shifted() -> tuple[Tensor, Tensor]:
    """How many sides a box of the target's size lies to the right, and the boxes (N, 4)."""
    x = evenly()
    low, high = (x + k for k in (0, 1))
    return x, SIDE * torch.stack([low, torch.zeros(STEPS), high, torch.ones(STEPS)], dim=1)


def scaled() -> tuple[Tensor, Tensor]:
    """How many times the target's sides a box has, and the boxes."""
    factor = evenly().exp2()
    return factor, _centered(factor, factor)


def stretched() -> tuple[Tensor, Tensor]:
    """Width over height of a box of the target's area, and the boxes."""
    ratio = evenly().exp2()
    return ratio, _centered(ratio.sqrt(), ratio.rsqrt())


def _centered(width: Tensor, height: Tensor) -> Tensor:
    low_x, low_y = (0.5 - side / 2 for side in (width, height))
    return SIDE * torch.stack([low_x, low_y, low_x + width, low_y + height], dim=1)


PATHS: dict[str, tuple[Callable[[], tuple[Tensor, Tensor]], str]] = {
    'shift': (shifted, 'shift / side'),
    'scale': (scaled, "side / target's side"),
    'aspect': (stretched, 'width / height'),
}


def plain_box_cases() -> list[LossCase]:
    """The registered box losses, each with its own options, without those that all have."""
    found = {}
    for case in LOSSES:
        if case.family == 'overlap' and not VARIANTS.keys() & case.options.keys():
            found[case_label(case)] = case
    return list(found.values())


def case_label(case: LossCase) -> str:
    """Name and options, short; a loss that takes the mean of a batch takes that of the path."""
    options = [f'{name}={value}' for name, value in case.options.items()] or ['defaults']
    mean = ' (mean of the path)' if case.together else ''
    return f'{case.name.removesuffix("Loss")}: {", ".join(options)}{mean}'


def box_panels(path: str) -> list[Panel]:
    """All box losses along a path, some a panel."""
    cases = plain_box_cases()
    groups = [cases[at : at + LINES_A_PANEL] for at in range(0, len(cases), LINES_A_PANEL)]
    titles = {'shift': 'moved past the target', 'scale': 'scaled', 'aspect': 'stretched'}
    return [
        box_panel(
            path, titles[path], [(case_label(c), c.name, c.options, bool(c.twin)) for c in group]
        )
        for group in groups
    ]


def option_panels() -> list[Panel]:
    """The options that all overlap losses have, moved past the target."""
    panels = []
    for option, values in VARIANTS.items():
        for name, options in (('IoULoss', {'mode': 'linear'}), ('CIoULoss', {})):
            lines = [(f'{option}={v}', name, {**options, option: v}, False) for v in values]
            panels.append(box_panel('shift', f'{name.removesuffix("Loss")}, moved', lines))
    return panels


def box_panel(
    path: str, title: str, lines: Sequence[tuple[str, str, dict[str, Any], bool]]
) -> Panel:
    """Losses (label, name, options, whether stock has it) along a path."""
    make, xlabel = PATHS[path]
    x, boxes = make()
    target = (SIDE * torch.tensor([0.0, 0.0, 1.0, 1.0])).expand_as(boxes)
    curves = []

    def pair(pred: Tensor) -> tuple[Tensor, Tensor]:
        return pred, target

    for label, name, options, has_twin in lines:
        value, gradient = evaluate('mmdet_ext', name, options, boxes, pair)
        stock = evaluate('mmdet', name, options, boxes, pair)[0] if has_twin else None
        length = SIDE * np.linalg.norm(gradient, axis=1)
        length[STEPS // 2] = np.nan  # at the optimum, where most losses have a kink
        curves.append(Curve(label, value, length, stock))
    return Panel(title, xlabel, x.numpy(), curves, doubling=path != 'shift')


def evaluate(
    scope: str, name: str, options: dict[str, Any], path: Tensor, inputs: MakeInputs
) -> tuple[np.ndarray, np.ndarray]:
    """A loss of each element of a path, (N,), and its derivative by it, (N, ...)."""
    loss = MODELS.build({'type': f'{scope}.{name}', **options})
    leaf = path.detach().clone().requires_grad_()
    each: Tensor = loss(*inputs(leaf), reduction_override='none')
    each.sum().backward()
    assert leaf.grad is not None
    return each.detach().reshape(len(path), -1).sum(1).numpy(), leaf.grad.numpy()


# Classification


def _label(label: int) -> MakeInputs:
    """One column, foreground for label 0, background for 1."""
    return lambda x: (x[:, None], torch.full((len(x),), label))


def _softmax(label: int = 0) -> MakeInputs:
    """Two columns, of which the path is the label's."""

    def inputs(x: Tensor) -> tuple[Tensor, Tensor]:
        columns = [torch.zeros_like(x), x] if label else [x, torch.zeros_like(x)]
        return torch.stack(columns, dim=1), torch.full((len(x),), label)

    return inputs


def _score(score: float, label: int = 0) -> MakeInputs:
    """A label and the quality of its box."""
    return lambda x: (x[:, None], (torch.full((len(x),), label), torch.full((len(x),), score)))


def _dense(score: float) -> MakeInputs:
    """A score an entry."""
    return lambda x: (x[:, None], torch.full((len(x), 1), score))


def _value(value: float) -> MakeInputs:
    """A distribution over the values 0 and 1, of which the path is the share of 1."""
    return lambda x: (torch.stack([torch.zeros_like(x), x], dim=1), torch.full((len(x),), value))


SOFTMAX = {'use_sigmoid': False}
FOREGROUND, BACKGROUND = _label(0), _label(1)
#: A class seen 1,000 times and one seen 10 times.
COUNTS = {'counts': [1000, 10]}

#: Title and what the probability is of -> lines.
CLASSIFICATION: dict[tuple[str, str], list[Line]] = {
    ('focal, sigmoid, foreground', 'p of the foreground'): [
        Line('cross entropy', 'CrossEntropyLoss', FOREGROUND, {'use_sigmoid': True}, True),
        *(
            Line(f'focal gamma={g:g}', 'FocalLoss', FOREGROUND, {'gamma': g, 'alpha': 0.5}, True)
            for g in (0.0, 0.5, 1.0, 2.0, 5.0)
        ),
    ],
    ('focal, alpha at gamma 2', 'p of the foreground'): [
        Line(f'alpha={alpha}, {name}', 'FocalLoss', inputs, {'alpha': alpha}, True)
        for alpha in (0.25, 0.5, 0.75)
        for name, inputs in (('foreground', FOREGROUND), ('background', BACKGROUND))
    ],
    ('focal, softmax', "p of the label's class"): [
        Line('cross entropy', 'CrossEntropyLoss', _softmax(), {}, True),
        *(
            Line(
                f'focal gamma={g:g}',
                'FocalLoss',
                _softmax(),
                {**SOFTMAX, 'gamma': g, 'alpha': None},
            )
            for g in (0.5, 1.0, 2.0, 5.0)
        ),
        Line('focal gamma=2, alpha=0.25', 'FocalLoss', _softmax(), SOFTMAX),
    ],
    ('cross entropy, softmax', "p of the label's class"): [
        *(
            Line(f'label_smoothing={s:g}', 'CrossEntropyLoss', _softmax(), {'label_smoothing': s})
            for s in (0.0, 0.1, 0.2)
        ),
        *(
            Line(
                f'class_weight={w:g}',
                'CrossEntropyLoss',
                _softmax(),
                {'class_weight': [w, 1.0]},
                True,
            )
            for w in (0.5, 2.0)
        ),
    ],
}
QUALITY: dict[tuple[str, str], list[Line]] = {
    ('quality focal', 'predicted score'): [
        *(
            Line(f'score {y:g}', 'QualityFocalLoss', _score(y), {}, True)
            for y in (0.25, 0.5, 0.75, 1.0)
        ),
        Line('background', 'QualityFocalLoss', _score(0.0, label=1), {}, True),
    ],
    ('varifocal', 'predicted score'): [
        *(
            Line(f'score {y:g}', 'VarifocalLoss', _dense(y), {}, True)
            for y in (0.25, 0.5, 0.75, 1.0)
        ),
        Line('background', 'VarifocalLoss', _dense(0.0), {}, True),
    ],
    ('generalized focal, score 0.5', 'predicted score'): [
        Line(f'beta={beta:g}', 'GeneralizedFocalLoss', _score(0.5), {'beta': beta})
        for beta in (0.0, 1.0, 2.0, 3.0)
    ],
    ('distribution focal', 'share of the upper value'): [
        Line(f'{y:g} of the way up', 'DistributionFocalLoss', _value(y), {}, y < 1)
        for y in (0.0, 0.25, 0.5, 0.75, 1.0)
    ],
    ('slide, mu=0.5', 'p of the foreground'): [
        *(
            Line(f'quality {y:g}', 'SlideLoss', _score(y), {'mu': 0.5})
            for y in (0.2, 0.45, 0.6, 0.9)
        ),
        Line('background', 'SlideLoss', _score(0.0, label=1), {'mu': 0.5}),
    ],
}
LONG_TAIL: dict[tuple[str, str], list[Line]] = {
    **{
        (f'equalized focal, {name}', 'p of the foreground'): [
            Line(f'gradient_ratio={r:g}', 'EqualizedFocalLoss', inputs, {'gradient_ratio': [r]})
            for r in (1.0, 0.75, 0.5, 0.25, 0.0)
        ]
        for name, inputs in (('foreground', FOREGROUND), ('background', BACKGROUND))
    },
    **{
        (f'logit adjusted, label {name}', "p of the label's class"): [
            Line('cross entropy', 'CrossEntropyLoss', _softmax(label), {}, True),
            *(
                Line(f'tau={tau:g}', 'LogitAdjustedLoss', _softmax(label), {**COUNTS, 'tau': tau})
                for tau in (0.5, 1.0, 1.5)
            ),
            Line('balanced softmax', 'BalancedSoftmaxLoss', _softmax(label), COUNTS),
        ]
        for label, name in enumerate(('seen 1,000 times', 'seen 10 times'))
    },
}


def probability_panels(table: dict[tuple[str, str], list[Line]]) -> list[Panel]:
    """Losses by a probability, whose logits are the path."""
    p = torch.linspace(0.002, 0.998, STEPS, dtype=torch.float64)
    return [
        Panel(title, xlabel, p.numpy(), [curve(line, p.logit().float()) for line in lines])
        for (title, xlabel), lines in table.items()
    ]


def curve(line: Line, path: Tensor) -> Curve:
    """A line's value and derivative, and stock's value where it has the loss."""
    value, gradient = evaluate('mmdet_ext', line.name, line.options, path, line.inputs)
    stock = None
    if line.stock:
        stock, _ = evaluate('mmdet', line.name, line.options, path, line.inputs)
    return Curve(line.label, value, gradient, stock)


# Losses a coordinate


def regression_panels() -> list[Panel]:
    """Losses a coordinate by the error."""
    x = evenly()
    lines = {
        'smooth L1': [
            Line(f'beta={beta:g}', 'SmoothL1Loss', _error, {'beta': beta}, beta > 0)
            for beta in (0.0, 0.11, 0.5, 1.0)
        ],
        'balanced L1': [
            Line(f'beta={beta:g}', 'BalancedL1Loss', _error, {'beta': beta}, True)
            for beta in (0.5, 1.0, 2.0)
        ],
    }
    return [
        Panel(title, 'error', x.numpy(), [curve(line, x) for line in of])
        for title, of in lines.items()
    ]


def _error(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.zeros_like(x)


if __name__ == '__main__':
    sys.exit(main())
