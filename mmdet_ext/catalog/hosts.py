"""The hosts: whose runners train our components, and how their heads call a loss.

A component claims a host where a run of that host can use it. What a component claims follows from
its case: from the target of a loss (`target_of`), from the kind of all else (`KINDS`), unless the
case itself names hosts. The tests of ``tests/hosts/`` run every claim with the host's own runner,
and ``docs/hosts.md`` is made from this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.cases import CASES
from mmdet_ext.utils.families import DISTRIBUTIONS

Target = Literal[
    'labels', 'label maps', 'elements', 'scores', 'distances', 'masks', 'boxes', 'offsets'
]
#: What a loss compares a prediction with, in words.
TARGETS: dict[Target, str] = {
    'labels': 'class labels (N,) of logits (N, C)',
    'label maps': 'class labels (N, H, W) of logits (N, C, H, W)',
    'elements': 'a number for each element (N, C)',
    'scores': '(label, score) of each sample',
    'distances': 'a number (N,) for each distribution (N, V)',
    'masks': 'a mask and its class for each object',
    'boxes': 'boxes (N, 4)',
    'offsets': 'offsets (N, 4) from priors',
}


@dataclass(frozen=True)
class LossCall:
    """Form in which heads of a host call a loss.

    Attributes:
        heads: the heads that call it so, in words.
        positional: names of the values that are given by position.
        keywords: names of those that are given by keyword.

    >>> str(LossCall('dense heads', ('pred', 'target', 'weight'), ('avg_factor',)))
    'loss(pred, target, weight, avg_factor=...)'
    """

    heads: str
    positional: tuple[str, ...]
    keywords: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the call as it stands in the host's code."""
        named = [f'{name}=...' for name in self.keywords]
        return f'loss({", ".join([*self.positional, *named])})'

    def __call__(self, loss: Any, **values: Any) -> Tensor:
        """Call a loss in this form.

        Args:
            loss: the loss, or any function.
            **values: a value for each name of the form; others are not used.

        Raises:
            KeyError: if a value is missing.
        """
        named = {name: values[name] for name in self.keywords}
        result: Tensor = loss(*(values[name] for name in self.positional), **named)
        return result


@dataclass(frozen=True)
class Host:
    """A package whose runner trains our components.

    Attributes:
        name: short name, by which cases claim it.
        title: name as its project writes it.
        module: name of its module, which its fork has too.
        extra: extra of this package that installs it; its fork's is ``onedl-`` and this. None for
            MMEngine, which every extra installs.
        scope: registry scope of its runs.
        calls: forms in which its heads call a loss.
        targets: targets that its heads give to a loss.
        activated: whether some heads give probabilities instead of logits.
        parts: what its test runs beside training, test and resume, in words.
    """

    name: str
    title: str
    module: str
    extra: str | None
    scope: str
    calls: tuple[LossCall, ...]
    targets: frozenset[Target]
    activated: bool = False
    parts: str = ''

    def is_installed(self) -> bool:
        """Return whether its module can be imported, without importing it."""
        return find_spec(self.module) is not None

    @property
    def package(self) -> str:
        """Return the name of OpenMMLab's own distribution."""
        return DISTRIBUTIONS[self.module][0][0]

    @property
    def fork(self) -> str | None:
        """Return the name of the maintained fork's distribution, None where there is none."""
        return next(iter(DISTRIBUTIONS[self.module][1]), None)


HOSTS: tuple[Host, ...] = (
    Host(
        name='mmdet',
        title='MMDetection',
        module='mmdet',
        extra='det',
        scope='mmdet',
        calls=(
            LossCall('anchor heads', ('pred', 'target', 'weight'), ('avg_factor',)),
            LossCall(
                'GFL, TOOD, ATSS: boxes and scores', ('pred', 'target'), ('weight', 'avg_factor')
            ),
            LossCall('point heads', ('pred', 'target'), ('avg_factor',)),
            LossCall('YOLOv3', ('pred', 'target'), ('weight',)),
            LossCall('YOLOX', ('pred', 'target')),
            LossCall(
                'RoI heads', ('pred', 'target', 'weight'), ('avg_factor', 'reduction_override')
            ),
            LossCall(
                'mask heads, with the classes in place of weights', ('pred', 'target', 'weight')
            ),
            LossCall('SOLO', ('pred', 'target'), ('reduction_override',)),
        ),
        targets=frozenset(TARGETS) - {'label maps'},
        activated=True,
        parts='semi-supervised wrapper, MultiImageMixDataset, test-time augmentation, '
        'DetInferencer',
    ),
    Host(
        name='mmpretrain',
        title='MMPreTrain',
        module='mmpretrain',
        extra='cls',
        scope='mmpretrain',
        calls=(LossCall('classification heads', ('pred', 'target'), ('avg_factor',)),),
        targets=frozenset({'labels', 'elements'}),
        parts='test-time augmentation, ImageClassificationInferencer',
    ),
    Host(
        name='mmseg',
        title='MMSegmentation',
        module='mmseg',
        extra='seg',
        scope='mmseg',
        calls=(
            LossCall('decode heads', ('pred', 'target'), ('weight', 'ignore_index')),
            LossCall(
                'OHEMPixelSampler without thresh',
                ('pred', 'target'),
                ('weight', 'ignore_index', 'reduction_override'),
            ),
        ),
        targets=frozenset({'labels', 'label maps'}),
        parts='several losses in one head, an auxiliary head, OHEMPixelSampler, test-time '
        'augmentation, MMSegInferencer',
    ),
    Host(
        name='mmpose',
        title='MMPose',
        module='mmpose',
        extra='pose',
        scope='mmpose',
        calls=(
            LossCall('heatmap heads', ('output', 'target', 'weight')),
            LossCall('AssociativeEmbeddingHead: heatmaps', ('output', 'target', 'weight', 'mask')),
            LossCall('AssociativeEmbeddingHead: tags', ('tags', 'indices')),
            LossCall(
                'PartAffinityFieldHead of this package',
                ('output', 'fields', 'target', 'field_target', 'mask'),
            ),
        ),
        targets=frozenset(),
        parts='flip test, CocoMetric',
    ),
    Host(
        name='mmengine',
        title='bare MMEngine',
        module='mmengine',
        extra=None,
        scope='mmengine',
        calls=(LossCall('a model of your own', ('pred', 'target')),),
        targets=frozenset(TARGETS),
        activated=True,
    ),
)


def host(name: str) -> Host:
    """Return the host of a name.

    Raises:
        KeyError: if there is none.
    """
    for each in HOSTS:
        if each.name == name:
            return each
    raise KeyError(f'no host {name!r}; there are: {", ".join(h.name for h in HOSTS)}')


def target_of(case: Case) -> Target:
    """Return what a loss compares with, read off the inputs of its case."""
    if case.family != 'classification':
        return 'boxes' if case.family == 'overlap' else 'offsets'
    pred, target = case.inputs(torch.Generator().manual_seed(0), 3)
    if isinstance(target, tuple):
        return 'masks' if target[0].dim() > 1 else 'scores'
    if not target.is_floating_point():
        return 'labels' if target.dim() == 1 else 'label maps'
    return 'elements' if target.shape == pred.shape else 'distances'


def hosts_of(case: Case) -> tuple[str, ...]:
    """Return the names of the hosts that a component claims, with the options of its case."""
    if case.hosts is not None:
        return case.hosts
    target = target_of(case)
    activated = case.options.get('activated', False) or not case.options.get('activate', True)
    return tuple(
        each.name for each in HOSTS if target in each.targets and (each.activated or not activated)
    )


@cache
def claims(name: str) -> tuple[Case, ...]:
    """Return the cases that claim a host, in the order of the contract table.

    Raises:
        KeyError: if there is no such host.
    """
    host(name)
    return tuple(case for case in CASES if name in hosts_of(case))
