"""Full paths of classes, as configs dump them that name classes themselves."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import mmdet.registry
import mmengine.registry
import mmpretrain.registry
import pytest

from mmdet_ext import registry
from mmdet_ext.utils.families import installed_family
from tests.test_registry import OURS, fresh

KINDS = {
    name: nodes for name, nodes in vars(registry).items() if isinstance(nodes, registry.ExtRegistry)
}
COMPONENTS = [
    pytest.param(kind, name, id=f'{kind}-{name}')
    for kind, nodes in KINDS.items()
    for name in (nodes.import_from_location(), *sorted(nodes.module_dict))[1:]
]


def package_path(cls: type) -> str:
    """Return the path by which a config imports a class: of the package, if that has it."""
    package, _, _ = cls.__module__.rpartition('.')
    has = getattr(importlib.import_module(package), cls.__name__, None) is cls
    return f'{package if has else cls.__module__}.{cls.__name__}'


@pytest.mark.parametrize(('kind', 'name'), COMPONENTS)
def test_both_paths_of_every_component_name_it_from_every_scope(kind: str, name: str) -> None:
    cls = KINDS[kind].module_dict[name]
    asked = [KINDS[kind]]
    if KINDS[kind].parent is not None:
        asked += [getattr(host, kind) for host in (mmengine.registry, mmdet.registry)]
        asked += [getattr(mmpretrain.registry, kind)]
    for path in (f'{cls.__module__}.{cls.__qualname__}', package_path(cls)):
        assert path.count('.') >= 2
        assert [nodes.get(path) for nodes in asked] == [cls] * len(asked)
        assert path in KINDS[kind]
        for other in OURS:
            assert (path in other) is (other is KINDS[kind])


def test_a_path_names_that_very_class_where_another_has_taken_its_name() -> None:
    from mmdet_ext.detection import losses as replacing
    from mmdet_ext.losses import quality as replaced

    for nodes in (registry.MODELS, mmdet.registry.MODELS):
        assert nodes.get('mmdet_ext.QualityFocalLoss') is replacing.QualityFocalLoss
        for path in ('mmdet_ext.losses.quality', 'mmdet_ext.losses'):
            assert nodes.get(f'{path}.QualityFocalLoss') is replaced.QualityFocalLoss
        path = 'mmdet_ext.detection.losses.QualityFocalLoss'
        assert nodes.get(path) is replacing.QualityFocalLoss
    assert replacing.QualityFocalLoss is not replaced.QualityFocalLoss


NESTED: dict[str, tuple[str, dict[str, Any], Any]] = {
    'a loss in a loss': (
        'MODELS',
        dict(
            type='mmdet_ext.losses.ohem.OHEMLoss',
            loss=dict(type='mmdet_ext.losses.CrossEntropyLoss'),
        ),
        lambda built: built.loss,
    ),
    'an overlap measure in an assigner': (
        'TASK_UTILS',
        dict(
            type='mmdet_ext.detection.assigners.MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            iou_calculator=dict(type='mmdet_ext.detection.assigners.NWDCalculator'),
        ),
        lambda built: built.iou_calculator,
    ),
    'a margin in a head': (
        'MODELS',
        dict(
            type='mmdet_ext.face.heads.MarginHead',
            num_classes=3,
            in_channels=4,
            margin=dict(type='mmdet_ext.face.margins.fixed.ArcFace', m=0.25),
        ),
        lambda built: built.margin,
    ),
    'a margin by its path alone': (
        'MODELS',
        dict(
            type='mmdet_ext.face.heads.margin_head.MarginHead',
            num_classes=3,
            in_channels=4,
            margin='mmdet_ext.face.margins.ArcFace',
        ),
        lambda built: built.margin,
    ),
    'an auxiliary loss in a head': (
        'MODELS',
        dict(
            type='mmdet_ext.face.heads.MarginHead',
            num_classes=3,
            in_channels=4,
            margin='ArcFace',
            aux_losses=[dict(type='mmdet_ext.face.losses.triplet.TripletLoss')],
        ),
        lambda built: built.aux_losses['triplet'],
    ),
}
HELD = ('CrossEntropyLoss', 'NWDCalculator', 'ArcFace', 'ArcFace', 'TripletLoss')


@pytest.mark.parametrize('host', [mmengine.registry, mmdet.registry, mmpretrain.registry])
@pytest.mark.parametrize(
    ('kind', 'cfg', 'part', 'held'),
    [(*row, held) for row, held in zip(NESTED.values(), HELD, strict=True)],
    ids=NESTED,
)
def test_paths_build_within_others(
    host: Any, kind: str, cfg: dict[str, Any], part: Any, held: str
) -> None:
    built = getattr(host, kind).build(dict(cfg))
    cls = type(part(built))
    assert cls.__name__ == held and cls.__module__.startswith('mmdet_ext.')


def test_a_margin_may_be_a_class_alone() -> None:
    from mmdet_ext.face.heads import MarginHead
    from mmdet_ext.face.margins import CosFace

    head = MarginHead(num_classes=3, in_channels=4, margin=CosFace)
    assert type(head.margin) is CosFace


@pytest.mark.parametrize(
    ('kind', 'key', 'message'),
    [
        (
            'MODELS',
            'mmdet_ext.losses.iuo.CIoULoss',
            r"mmdet_ext\.losses has no 'iuo'; did you mean 'mmdet_ext\.losses\.iou\.CIoULoss'\?",
        ),
        (
            'MODELS',
            'mmdet_ext.loses.CIoULoss',
            r"mmdet_ext has no 'loses' \(it has 'losses'\); did you mean '.*iou\.CIoULoss'\?",
        ),
        (
            'MODELS',
            'mmdet_ext.losses.iou.CIouLos',
            r"losses\.iou has no 'CIouLos' .* mean 'mmdet_ext\.losses\.iou\.CIoULoss'\?",
        ),
        ('MODELS', 'mmdet_ext.losses.focal.CIoULoss', r"focal has no 'CIoULoss'; .*iou\.CIoULoss'"),
        ('MODELS', 'mmdet_ext.losses.iou', 'it is a module, and a model is wanted here'),
        ('MODELS', 'mmdet_ext.losses.', r"losses has no ''"),
        (
            'MODELS',
            'mmdet_ext.detection.assigners.ATSSAssigner',
            'it is a task util, and a model is wanted here; there are, .*ATSSHead',
        ),
        (
            'TASK_UTILS',
            'mmdet_ext.losses.CIoULoss',
            'it is a model, and a task util is wanted here; there are, .*ATSSAssigner',
        ),
        (
            'HOOKS',
            'mmdet_ext.face.hooks.margin_schedule.MarginSheduleHook',
            r"did you mean 'mmdet_ext\.face\.hooks\.margin_schedule\.MarginScheduleHook'\?",
        ),
        ('MODELS', 'mmdet_ext.losses.base.ElementwiseLoss', 'a class that is not registered'),
        ('MODELS', 'mmdet_ext.functional.boxes.iou_losses.ciou_loss', 'it is a function'),
        ('MODELS', 'mmdet_ext.losses.CIoULoss.forward', 'it is a function'),
        ('MODELS', 'mmdet_ext.losses', 'it is a module, and a model is wanted here'),
        ('MODELS', 'mmdet_ext.__version__', 'it is a str, and a model is wanted here'),
        (
            'MODELS',
            'mmdet_ext.losses.ciouloss',
            r"\(it has 'CIoULoss'\); did you mean 'mmdet_ext\.losses\.iou\.CIoULoss'\?",
        ),
        ('MODELS', 'mmdet_ext.os.system', "mmdet_ext has no 'os'"),
        ('MODELS', 'mmdet_ext.torch.nn.Linear', "mmdet_ext has no 'torch'"),
        ('MODELS', 'mmdet_ext.losses.iou.torch.nn.Linear', 'a class that is not registered'),
        (
            'MODELS',
            'mmdet_ext.mmdet.models.losses.CIoULoss',
            r"mmdet_ext has no 'mmdet'; did you mean 'mmdet_ext\.losses\.iou\.CIoULoss'\?",
        ),
        ('MODELS', 'mmdet_ext.mmdet_ext.CIoULoss', "mmdet_ext has no 'mmdet_ext'"),
    ],
)
@pytest.mark.parametrize('ours', [True, False], ids=['ours', 'mmdet'])
def test_a_wrong_path_is_explained(ours: bool, kind: str, key: str, message: str) -> None:
    nodes = KINDS[kind] if ours else getattr(mmdet.registry, kind)
    with pytest.raises(KeyError, match=message) as caught:
        nodes.build(dict(type=key))
    assert str(caught.value.args[0]).startswith(f'{key} is no {KINDS[kind].name}: ')
    assert f'mean {key!r}' not in str(caught.value)
    assert key not in KINDS[kind]


@pytest.mark.parametrize('nodes', [registry.MODELS, mmdet.registry.MODELS], ids=['ours', 'mmdet'])
def test_a_name_in_other_letters_is_explained(nodes: Any) -> None:
    with pytest.raises(KeyError, match=r"no model named 'ciouloss'; did you mean 'CIoULoss'\?"):
        nodes.get('mmdet_ext.ciouloss')


def test_every_registry_is_found_by_its_scope_and_counted() -> None:
    for kind, nodes in KINDS.items():
        if nodes.parent is not None:
            host = getattr(mmengine.registry, kind)
            with host.switch_scope_and_registry('mmdet_ext') as found:
                assert found is nodes
            child = host.children['mmdet_ext']
            assert child.module_dict is nodes.module_dict
            assert child.get('NoSuchComponentAnywhere') is None


def test_the_name_that_was_asked_is_never_suggested() -> None:
    with pytest.raises(KeyError, match=r"mmdet_ext has no 'nowhere'.*iou\.CIoULoss'") as caught:
        registry.MODELS.get('nowhere.CIoULoss')
    assert "did you mean 'nowhere" not in str(caught.value)
    with pytest.raises(KeyError, match=r"no model 'json\.CIoULoss'; .*'mmdet_ext\.CIoULoss'\?"):
        registry.MODELS.get('json.CIoULoss')


def test_a_package_of_the_user_with_the_name_of_a_part_of_ours_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Look into ``losses`` beside a user's config, which our own package has a part named like."""
    (tmp_path / 'losses.py').write_text('class MyLoss:\n    pass\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'losses', raising=False)
    for nodes in (registry.MODELS, mmdet.registry.MODELS):
        assert nodes.get('losses.MyLoss').__module__ == 'losses'
        assert nodes.get('mmdet_ext.losses.CIoULoss').__module__ == 'mmdet_ext.losses.iou'
    monkeypatch.delitem(sys.modules, 'losses')


def test_paths_of_other_packages_are_found_as_before() -> None:
    import torch

    assert registry.MODELS.get('torch.nn.Linear') is torch.nn.Linear
    assert registry.MODELS.get('mmdet.models.losses.CIoULoss').__module__.startswith('mmdet.')
    assert registry.MODELS.get('json.NoSuchThing') is None
    assert 'a..b' not in registry.MODELS


FRESH = """
import json
from {scope}.registry import MODELS, TASK_UTILS, DATASETS
def attempt(nodes, kind):
    try:
        return nodes.get(kind).__module__
    except Exception as error:
        return f'{{type(error).__name__}}: {{error}}'
print(json.dumps([attempt(MODELS, 'mmdet_ext.losses.CIoULoss'),
                  attempt(TASK_UTILS, 'mmdet_ext.detection.assigners.ATSSAssigner'),
                  attempt(DATASETS, 'mmdet_ext.detection.datasets.coco.CocoDataset'),
                  attempt(MODELS, 'mmdet_ext.detection.heads.dense.ATSSHead')]))
"""


@pytest.mark.subprocess
def test_paths_are_found_in_a_fresh_process() -> None:
    assert fresh(FRESH.format(scope='mmpretrain')) == [
        'mmdet_ext.losses.iou',
        'mmdet_ext.detection.assigners.atss',
        'mmdet_ext.detection.datasets.coco',
        'mmdet_ext.detection.heads.dense.atss',
    ]


@pytest.mark.subprocess
@pytest.mark.parametrize(('blocked', 'hint'), [('mmdet', 'mmdet>=3.3'), ('mmcv._ext', 'operators')])
def test_a_path_to_what_needs_an_absent_host_names_the_host(blocked: str, hint: str) -> None:
    loss, *others = fresh(FRESH.format(scope='mmengine'), blocked)
    assert loss == 'mmdet_ext.losses.iou'
    if blocked == 'mmcv._ext' and installed_family() == 'onedl':
        # The mmdet of the forks imports no operator with its modules.
        parts = ('assigners.atss', 'datasets.coco', 'heads.dense.atss')
        assert others == [f'mmdet_ext.detection.{part}' for part in parts]
        return
    names = ('ATSSAssigner', 'CocoDataset', 'ATSSHead')
    for name, message in zip(names, others, strict=True):
        assert message.startswith('ImportError: mmdet_ext.detection.')
        assert f'.{name} could not be loaded: {blocked} could not be imported; ' in message
        assert hint in message
