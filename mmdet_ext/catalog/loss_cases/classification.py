"""Cases of the losses of logits with labels."""

from __future__ import annotations

import torch

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases.inputs import Inputs, MakeInputs, loss_case

_CLASSES = 5
#: Sizes of logits at which a logarithm, an exponential or float16 fails, with either sign.
_EDGES = (0.0, 1e-4, 8.5, 12.0, 17.0, 20.0, 60.0, 90.0, 1e3, 1e4)


def labelled_logits(background: bool) -> MakeInputs:
    """Make logits (count, 5) and labels from 0 to 4, or to 5, a background without a column."""

    def make(generator: torch.Generator, count: int) -> Inputs:
        label = torch.randint(0, _CLASSES + background, (count,), generator=generator)
        return 3 * torch.randn(count, _CLASSES, generator=generator), label

    return make


def hard_labelled_logits(background: bool) -> MakeInputs:
    """Make logits and labels at the edges; a tenth of the labels is -1, a quarter background."""

    def make(generator: torch.Generator, count: int) -> Inputs:
        _, label = labelled_logits(background)(generator, count)
        label[::10] = -1
        label[1::4] = _CLASSES if background else _CLASSES - 1
        edges = torch.tensor([sign * edge for edge in _EDGES for sign in (1, -1)])
        chosen = torch.randint(0, len(edges), (count, _CLASSES), generator=generator)
        logits = edges[chosen]
        logits[::7] = logits[::7, :1]  # equal in a row
        logits[::11] *= 1 + torch.rand(len(logits[::11]), 1, generator=generator) / 8
        return logits.clamp(-1e4, 1e4), label

    return make


def bench_logits(background: bool) -> MakeInputs:
    """Make logits (count, 80) of an untrained dense head, with one positive in a hundred."""

    def make(generator: torch.Generator, count: int) -> Inputs:
        label = torch.randint(0, 80, (count,), generator=generator)
        if background:
            label[torch.rand(count, generator=generator) > 0.01] = 80
        return torch.randn(count, 80, generator=generator) - 4, label

    return make


def element_targets(generator: torch.Generator, count: int) -> Inputs:
    """Make logits (count, 5) and a target in [0, 1] for each."""
    logits = 3 * torch.randn(count, _CLASSES, generator=generator)
    return logits, torch.rand(count, _CLASSES, generator=generator)


def hard_element_targets(generator: torch.Generator, count: int) -> Inputs:
    """Make logits at the edges and targets for each, also 0, 1 and ignored ones."""
    logits, label = hard_labelled_logits(background=False)(generator, count)
    target = torch.rand(count, _CLASSES, generator=generator)
    target[::3] = target[::3].round()
    target[label < 0] = -1
    return logits, target


def probabilities(generator: torch.Generator, count: int) -> Inputs:
    """Make probabilities (count, 5), none of them 0 or 1 in half precision, and labels to 5."""
    logits, label = labelled_logits(background=True)(generator, count)
    return (logits / 2).sigmoid(), label


def hard_probabilities(generator: torch.Generator, count: int) -> Inputs:
    """Make probabilities, many of them exactly 0 or 1, and labels."""
    logits, label = hard_labelled_logits(background=True)(generator, count)
    return logits.sigmoid(), label


def masks(generator: torch.Generator, count: int) -> Inputs:
    """Make logits (count, 5, 3, 3), masks (count, 3, 3) and the class of each."""
    logits = 3 * torch.randn(count, _CLASSES, 3, 3, generator=generator)
    truth = torch.randint(0, 2, (count, 3, 3), generator=generator).float()
    return logits, (truth, torch.randint(0, _CLASSES, (count,), generator=generator))


def hard_masks(generator: torch.Generator, count: int) -> Inputs:
    """Make logits at the edges, and masks with ignored pixels."""
    _, (truth, label) = masks(generator, count)
    logits, _ = hard_labelled_logits(background=False)(generator, count * 9)
    truth[::5, 0] = -1
    return logits.reshape(count, 3, 3, _CLASSES).movedim(-1, 1).contiguous(), (truth, label)


_WEIGHTS = [0.5, 1.0, 2.0, 4.0, 0.25]
_SIGMOID = {'use_sigmoid': True}
_SOFTMAX = {'use_sigmoid': False}
_BATCH = {'type': 'inverse_log', 'counts': 'batch'}
_COUNTS = {'type': 'inverse_log', 'counts': [90, 9, 1, 0, 400]}

CLASSIFICATION_LOSSES: tuple[Case, ...] = (
    loss_case(
        'CrossEntropyLoss',
        labelled_logits(background=False),
        hard_labelled_logits(background=False),
        twin=True,
        bench_inputs=bench_logits(background=False),
    ),
    loss_case(
        'CrossEntropyLoss',
        labelled_logits(background=False),
        hard_labelled_logits(background=False),
        options={'class_weight': _WEIGHTS, 'label_smoothing': 0.1},
    ),
    loss_case(
        'CrossEntropyLoss',
        labelled_logits(background=True),
        hard_labelled_logits(background=True),
        options=_SIGMOID,
        twin=True,
        bench_inputs=bench_logits(background=True),
    ),
    loss_case(
        'CrossEntropyLoss',
        element_targets,
        hard_element_targets,
        options={**_SIGMOID, 'class_weight': _COUNTS},
    ),
    loss_case('CrossEntropyLoss', masks, hard_masks, options={'use_mask': True}),
    loss_case(
        'FocalLoss',
        labelled_logits(background=True),
        hard_labelled_logits(background=True),
        twin=True,
        bench_inputs=bench_logits(background=True),
    ),
    loss_case(
        'FocalLoss',
        labelled_logits(background=True),
        hard_labelled_logits(background=True),
        options={'alpha': _COUNTS, 'gamma': 0.5},
    ),
    loss_case(
        'FocalLoss',
        labelled_logits(background=True),
        hard_labelled_logits(background=True),
        options={'alpha': _BATCH},
        together=True,
    ),
    loss_case('FocalLoss', element_targets, hard_element_targets, options={'gamma': 1.5}),
    loss_case(
        'FocalLoss',
        labelled_logits(background=False),
        hard_labelled_logits(background=False),
        options={**_SOFTMAX, 'gamma': 0.5},
        bench_inputs=bench_logits(background=False),
    ),
    loss_case(
        'FocalLoss', probabilities, hard_probabilities, options={'activated': True, 'gamma': 1.5}
    ),
)
