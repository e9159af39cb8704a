"""Lines of the figures of losses: a loss with options and target, along a path of logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: Path of inputs, shape (N, ...), such as logits (N,) -> prediction and target that a loss takes.
MakeInputs = Callable[[Tensor], tuple[Tensor, Any]]
#: Lines of a panel by its title and the meaning of its path.
Panels = dict[tuple[str, str], list['Line']]


@dataclass(frozen=True)
class Line:
    """Loss with its options and target, to be drawn as one line.

    Attributes:
        label: Text in the legend.
        name: Registered name.
        inputs: Maker of prediction and target from the path.
        options: Config beside ``type``.
        stock: Whether mmdet has the loss with these options.
    """

    label: str
    name: str
    inputs: MakeInputs
    options: dict[str, Any] = field(default_factory=dict)
    stock: bool = False


def label_inputs(label: int) -> MakeInputs:
    """Make one column of logits; label 0 is the foreground, 1 the background."""
    return lambda x: (x[:, None], torch.full((len(x),), label))


def softmax_inputs(label: int = 0) -> MakeInputs:
    """Make two columns of logits, of which the path is that of the label."""

    def inputs(x: Tensor) -> tuple[Tensor, Tensor]:
        columns = [torch.zeros_like(x), x] if label else [x, torch.zeros_like(x)]
        return torch.stack(columns, dim=1), torch.full((len(x),), label)

    return inputs


def score_inputs(score: float, label: int = 0) -> MakeInputs:
    """Make one column of logits, with a label and the quality of its box as target."""
    return lambda x: (x[:, None], (torch.full((len(x),), label), torch.full((len(x),), score)))


def dense_inputs(score: float) -> MakeInputs:
    """Make one column of logits, with one score per element as target."""
    return lambda x: (x[:, None], torch.full((len(x), 1), score))


def value_inputs(value: float) -> MakeInputs:
    """Make a distribution over the values 0 and 1, of which the path is the logit of 1."""
    return lambda x: (torch.stack([torch.zeros_like(x), x], dim=1), torch.full((len(x),), value))


def error_inputs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Make predictions with the path as their error."""
    return x, torch.zeros_like(x)


SOFTMAX = {'use_sigmoid': False}
FOREGROUND, BACKGROUND = label_inputs(0), label_inputs(1)
#: Two classes: the first occurs 1,000 times, the second 10 times.
COUNTS = {'counts': [1000, 10]}

#: Lines by the title of their panel and the meaning of the probability.
CLASSIFICATION: Panels = {
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
        Line('cross entropy', 'CrossEntropyLoss', softmax_inputs(), {}, True),
        *(
            Line(
                f'focal gamma={g:g}',
                'FocalLoss',
                softmax_inputs(),
                {**SOFTMAX, 'gamma': g, 'alpha': None},
            )
            for g in (0.5, 1.0, 2.0, 5.0)
        ),
        Line('focal gamma=2, alpha=0.25', 'FocalLoss', softmax_inputs(), SOFTMAX),
    ],
    ('cross entropy, softmax', "p of the label's class"): [
        *(
            Line(
                f'label_smoothing={s:g}',
                'CrossEntropyLoss',
                softmax_inputs(),
                {'label_smoothing': s},
            )
            for s in (0.0, 0.1, 0.2)
        ),
        *(
            Line(
                f'class_weight={w:g}',
                'CrossEntropyLoss',
                softmax_inputs(),
                {'class_weight': [w, 1.0]},
                True,
            )
            for w in (0.5, 2.0)
        ),
    ],
}
QUALITY: Panels = {
    ('quality focal', 'predicted score'): [
        *(
            Line(f'score {y:g}', 'QualityFocalLoss', score_inputs(y), {}, True)
            for y in (0.25, 0.5, 0.75, 1.0)
        ),
        Line('background', 'QualityFocalLoss', score_inputs(0.0, label=1), {}, True),
    ],
    ('varifocal', 'predicted score'): [
        *(
            Line(f'score {y:g}', 'VarifocalLoss', dense_inputs(y), {}, True)
            for y in (0.25, 0.5, 0.75, 1.0)
        ),
        Line('background', 'VarifocalLoss', dense_inputs(0.0), {}, True),
    ],
    ('generalized focal, score 0.5', 'predicted score'): [
        Line(f'beta={beta:g}', 'GeneralizedFocalLoss', score_inputs(0.5), {'beta': beta})
        for beta in (0.0, 1.0, 2.0, 3.0)
    ],
    ('distribution focal', 'share of the upper value'): [
        Line(f'{y:g} of the way up', 'DistributionFocalLoss', value_inputs(y), {}, y < 1)
        for y in (0.0, 0.25, 0.5, 0.75, 1.0)
    ],
    ('slide, mu=0.5', 'p of the foreground'): [
        *(
            Line(f'quality {y:g}', 'SlideLoss', score_inputs(y), {'mu': 0.5})
            for y in (0.2, 0.45, 0.6, 0.9)
        ),
        Line('background', 'SlideLoss', score_inputs(0.0, label=1), {'mu': 0.5}),
    ],
}
LONG_TAIL: Panels = {
    **{
        (f'equalized focal, {name}', 'p of the foreground'): [
            Line(f'gradient_ratio={r:g}', 'EqualizedFocalLoss', inputs, {'gradient_ratio': [r]})
            for r in (1.0, 0.75, 0.5, 0.25, 0.0)
        ]
        for name, inputs in (('foreground', FOREGROUND), ('background', BACKGROUND))
    },
    **{
        (f'logit adjusted, label {name}', "p of the label's class"): [
            Line('cross entropy', 'CrossEntropyLoss', softmax_inputs(label), {}, True),
            *(
                Line(
                    f'tau={tau:g}',
                    'LogitAdjustedLoss',
                    softmax_inputs(label),
                    {**COUNTS, 'tau': tau},
                )
                for tau in (0.5, 1.0, 1.5)
            ),
            Line('balanced softmax', 'BalancedSoftmaxLoss', softmax_inputs(label), COUNTS),
        ]
        for label, name in enumerate(('seen 1,000 times', 'seen 10 times'))
    },
}
#: Losses per coordinate by the error.
REGRESSION: Panels = {
    ('smooth L1', 'error'): [
        Line(f'beta={beta:g}', 'SmoothL1Loss', error_inputs, {'beta': beta}, beta > 0)
        for beta in (0.0, 0.11, 0.5, 1.0)
    ],
    ('balanced L1', 'error'): [
        Line(f'beta={beta:g}', 'BalancedL1Loss', error_inputs, {'beta': beta}, True)
        for beta in (0.5, 1.0, 2.0)
    ],
}
