"""Values and gradients of losses along paths of predictions, ready to be drawn.

Box losses follow a box that is moved, scaled or stretched; classification losses follow a logit;
losses per coordinate follow the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases import LOSSES
from mmdet_ext.plots.losses import Curve, Panel
from mmdet_ext.studies.loss_lines import (
    CLASSIFICATION,
    LONG_TAIL,
    QUALITY,
    REGRESSION,
    Line,
    MakeInputs,
    Panels,
)

#: Side of the target box in pixels.
SIDE = 32.0
#: Points of a path; odd, so that prediction and target are equal in the middle.
STEPS = 961
MOST_LINES = 6
#: Options that all overlap losses have, with the values that are drawn.
VARIANTS = {'power': (0.5, 1.0, 3.0), 'inner_ratio': (0.7, 1.0, 1.3)}


def loss_figures() -> dict[str, tuple[list[Panel], str]]:
    """Compute the panels of every figure, with the name of its gradient, by the figure's name."""
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


def evaluate(
    scope: str, name: str, options: dict[str, Any], path: Tensor, inputs: MakeInputs
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate a loss and its derivative along a path.

    Args:
        scope: Package of the loss, 'mmdet_ext' or 'mmdet'.
        name: Registered name.
        options: Config beside ``type``.
        path: Inputs, shape (N, ...).
        inputs: Maker of prediction and target from the path.

    Returns:
        The loss per element of the path, shape (N,), and its derivative by the path, (N, ...).
    """
    loss = MODELS.build({'type': f'{scope}.{name}', **options})
    leaf = path.detach().clone().requires_grad_()
    each: Tensor = loss(*inputs(leaf), reduction_override='none')
    each.sum().backward()
    assert leaf.grad is not None
    return each.detach().reshape(len(path), -1).sum(1).numpy(), leaf.grad.numpy()


# Box losses


def shifted() -> tuple[Tensor, Tensor]:
    """Return shifts to the right, in sides of the target, and the shifted boxes, shape (N, 4)."""
    x = _evenly()
    low, high = (x + k for k in (0, 1))
    return x, SIDE * torch.stack([low, torch.zeros(STEPS), high, torch.ones(STEPS)], dim=1)


def scaled() -> tuple[Tensor, Tensor]:
    """Return factors on both sides, and the scaled boxes, shape (N, 4)."""
    factor = _evenly().exp2()
    return factor, _centered(factor, factor)


def stretched() -> tuple[Tensor, Tensor]:
    """Return ratios of width to height, and boxes of the target's area, shape (N, 4)."""
    ratio = _evenly().exp2()
    return ratio, _centered(ratio.sqrt(), ratio.rsqrt())


def _evenly() -> Tensor:
    """Return evenly spaced numbers from -3 to 3, exactly 0 in the middle."""
    return (torch.arange(STEPS) - STEPS // 2) * (6 / (STEPS - 1))


def _centered(width: Tensor, height: Tensor) -> Tensor:
    """Return boxes with the target's centre, with sides in sides of the target."""
    low_x, low_y = (0.5 - side / 2 for side in (width, height))
    return SIDE * torch.stack([low_x, low_y, low_x + width, low_y + height], dim=1)


#: Maker and x label of each path.
PATHS: dict[str, tuple[Callable[[], tuple[Tensor, Tensor]], str]] = {
    'shift': (shifted, 'shift / side'),
    'scale': (scaled, "side / target's side"),
    'aspect': (stretched, 'width / height'),
}


def plain_box_cases() -> list[Case]:
    """Return the cases of the box losses with their own options, without those of ``VARIANTS``."""
    found = {}
    for case in LOSSES:
        if case.family == 'overlap' and not VARIANTS.keys() & case.options.keys():
            found[case_label(case)] = case
    return list(found.values())


def case_label(case: Case) -> str:
    """Return a short text of name and options; a loss of the batch uses the mean of the path."""
    options = [f'{name}={value}' for name, value in case.options.items()] or ['defaults']
    mean = ' (mean of the path)' if case.together else ''
    return f'{case.name.removesuffix("Loss")}: {", ".join(options)}{mean}'


def box_panels(path: str) -> list[Panel]:
    """Compute panels of all box losses along a path, at most ``MOST_LINES`` losses per panel."""
    cases = plain_box_cases()
    groups = [cases[at : at + MOST_LINES] for at in range(0, len(cases), MOST_LINES)]
    titles = {'shift': 'moved past the target', 'scale': 'scaled', 'aspect': 'stretched'}
    return [
        box_panel(
            path, titles[path], [(case_label(c), c.name, c.options, bool(c.twin)) for c in group]
        )
        for group in groups
    ]


def option_panels() -> list[Panel]:
    """Compute panels of the options in ``VARIANTS``, of two losses that are moved."""
    panels = []
    for option, values in VARIANTS.items():
        for name, options in (('IoULoss', {'mode': 'linear'}), ('CIoULoss', {})):
            lines = [(f'{option}={v}', name, {**options, option: v}, False) for v in values]
            panels.append(box_panel('shift', f'{name.removesuffix("Loss")}, moved', lines))
    return panels


def box_panel(
    path: str, title: str, lines: Sequence[tuple[str, str, dict[str, Any], bool]]
) -> Panel:
    """Compute the panel of some box losses along a path.

    Args:
        path: Key of ``PATHS``.
        title: Text above the panel.
        lines: Label, registered name, options, and whether mmdet has the loss.
    """
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


# Losses of logits and of errors


def probability_panels(table: Panels) -> list[Panel]:
    """Compute panels of losses by a probability, along the path of its logits."""
    p = torch.linspace(0.002, 0.998, STEPS, dtype=torch.float64)
    return _panels(table, p, p.logit().float())


def regression_panels() -> list[Panel]:
    """Compute panels of losses per coordinate by the error."""
    x = _evenly()
    return _panels(REGRESSION, x, x)


def _panels(table: Panels, x: Tensor, path: Tensor) -> list[Panel]:
    return [
        Panel(title, xlabel, x.numpy(), [_curve(line, path) for line in lines])
        for (title, xlabel), lines in table.items()
    ]


def _curve(line: Line, path: Tensor) -> Curve:
    """Compute value and derivative of a line, and mmdet's value if it has the loss."""
    value, gradient = evaluate('mmdet_ext', line.name, line.options, path, line.inputs)
    stock = None
    if line.stock:
        stock, _ = evaluate('mmdet', line.name, line.options, path, line.inputs)
    return Curve(line.label, value, gradient, stock)
