"""Tests of the scope `mmdet_ext`: it resolves everywhere, is cheap, and names what is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import Registry

import mmdet_ext
from mmdet_ext import registry
from mmdet_ext.catalog.cases import cases_by_registry
from mmdet_ext.utils.families import installed_family

REPO = Path(mmdet_ext.__file__).resolve().parents[1]
OURS = [nodes for nodes in vars(registry).values() if isinstance(nodes, registry.ExtRegistry)]

# Makes the import of a host fail, as if it were not installed.
BLOCK = """
import sys
class Block:
    def __init__(self, *names):
        self.names = names
    def find_spec(self, name, path=None, target=None):
        if any(name == n or name.startswith(n + '.') for n in self.names):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Block(*%r))
"""


def fresh(script: str, *blocked: str) -> Any:
    """Run a script in a new interpreter; return its last line of output, read as JSON."""
    env = {**os.environ, 'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', BLOCK % (blocked,) + script],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        cwd='/',
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


RESOLVE = """
import json
from {scope}.registry import MODELS, TASK_UTILS
{before}
loss = MODELS.build(dict(type='mmdet_ext.CIoULoss', loss_weight=2.0))
assigner = TASK_UTILS.build(dict(type='mmdet_ext.ATSSAssigner', topk=5))
print(json.dumps([type(loss).__module__, loss.loss_weight, type(assigner).__module__,
                  assigner.topk, {scope!r}]))
"""


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ('scope', 'blocked'),
    [
        ('mmdet', ['mmpretrain']),
        ('mmpretrain', []),
        ('mmengine', ['mmpretrain']),
    ],
)
def test_types_resolve_without_custom_imports(scope: str, blocked: list[str]) -> None:
    # A runner that reads default_scope from its config does the same.
    before = (
        ''
        if scope == 'mmengine'
        else (
            'from mmengine.registry import DefaultScope\n'
            f"DefaultScope.get_instance('run', scope_name={scope!r})"
        )
    )
    result = fresh(RESOLVE.format(scope=scope, before=before), *blocked)
    assert result == ['mmdet_ext.losses.iou', 2.0, 'mmdet_ext.detection.assigners.atss', 5, scope]


FACES = """
import json
from {scope}.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
{before}
data = DATASETS.build(dict(type='mmdet_ext.DigitsDataset', digits=(3, 8), indices=8))
built = [
    data,
    MODELS.build(dict(type='mmdet_ext.MarginHead', num_classes=3, in_channels=4,
                      margin=dict(type={margin!r}), aux_losses=[dict(type='TripletLoss')])),
    MODELS.build(dict(type='mmdet_ext.MobileFaceNet', width=0.25)),
    MODELS.build(dict(type='mmdet_ext.FaceDataPreprocessor')),
    TRANSFORMS.build(dict(type='mmdet_ext.LoadFace')),
    DATA_SAMPLERS.build(dict(type='mmdet_ext.IdentityBalancedSampler', dataset=data,
                             identities_per_batch=2, pictures_per_identity=2)),
    METRICS.build(dict(type='mmdet_ext.FaceVerificationMetric')),
    HOOKS.build(dict(type='mmdet_ext.FeatureScatterHook')),
]
parts = [built[1].margin, *built[1].aux_losses.values()]
print(json.dumps([type(item).__module__ for item in [*built, *parts]]))
"""


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ('scope', 'blocked'),
    [
        ('mmdet', ['mmpretrain']),
        ('mmpretrain', ['mmdet']),
        ('mmengine', ['mmdet', 'mmpretrain']),
    ],
)
def test_face_components_resolve_from_any_scope_without_detection_or_mmpretrain(
    scope: str, blocked: list[str]
) -> None:
    before = (
        ''
        if scope == 'mmengine'
        else (
            'from mmengine.registry import DefaultScope\n'
            f"DefaultScope.get_instance('run', scope_name={scope!r})"
        )
    )
    margin = 'ArcFace' if scope == 'mmdet' else 'mmdet_ext.ArcFace'
    modules = fresh(FACES.format(scope=scope, before=before, margin=margin), *blocked)
    assert len(modules) == 10
    assert all(module.startswith('mmdet_ext.face.') for module in modules)


@pytest.mark.subprocess
def test_import_is_fast_and_loads_no_host() -> None:
    script = """
import json, sys, time
start = time.perf_counter()
import mmdet_ext
seconds = time.perf_counter() - start
hosts = [name for name in sys.modules if name.partition('.')[0] in
         ('torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'cv2')]
print(json.dumps([seconds, hosts]))
"""
    runs = [fresh(script) for _ in range(5)]
    assert all(hosts == [] for _, hosts in runs)
    assert min(seconds for seconds, _ in runs) < 0.5  # milliseconds; a slow disk is no fault


TRY = """
import json
from mmengine.registry import MODELS, TASK_UTILS, DATASETS
def attempt(nodes, **cfg):
    try:
        return type(nodes.build(cfg)).__name__
    except Exception as error:
        return [type(error).__name__, str(error)]
answers = [attempt(MODELS, type='mmdet_ext.CIoULoss'),
           attempt(TASK_UTILS, type='mmdet_ext.ATSSAssigner', topk=9),
           attempt(DATASETS, type='mmdet_ext.CocoDataset'),
           attempt(MODELS, type='mmdet_ext.ATSSHead', num_classes=1, in_channels=1)]
"""


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ('blocked', 'hint'),
    [
        ('mmdet', "pip install 'mmdet>=3.3,<4'"),
        ('mmcv', "pip install 'mmcv>=2.1,<2.2'"),
        ('mmcv._ext', 'without its compiled operators'),
    ],
)
def test_a_missing_host_hides_only_components_that_need_it(blocked: str, hint: str) -> None:
    use = """
import torch
loss = MODELS.build(dict(type='mmdet_ext.CIoULoss'))
value = loss(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.]])).item()
print(json.dumps([*answers, value]))
"""
    loss, assigner, dataset, head, value = fresh(TRY + use, blocked)
    assert loss == 'CIoULoss'
    # IoU 1/3, distance of the centres 1, diagonal of the outer box sqrt(3**2 + 2**2), one aspect.
    assert value == pytest.approx(1 - 1 / 3 + 1 / 13, rel=1e-5)
    answers = {'ATSSHead': head, 'ATSSAssigner': assigner, 'CocoDataset': dataset}
    if blocked == 'mmcv._ext' and installed_family() == 'onedl':
        # The mmdet of the forks imports operators with the losses that its heads build.
        assert answers.pop('ATSSAssigner') == 'ATSSAssigner'
        assert answers.pop('CocoDataset')[0] == 'FileNotFoundError'
    for name, (kind, message) in answers.items():
        assert kind == 'ImportError'
        assert f'mmdet_ext.{name}' in message and hint in message
        assert f'{blocked} could not be imported' in message


def test_an_import_error_of_our_own_code_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = registry.ExtRegistry('model', parent=Registry('test', scope='test'))
    monkeypatch.setattr(nodes, '_places', ('mmdet_ext.no_such_module',))
    with pytest.raises(ModuleNotFoundError, match=r'mmdet_ext\.no_such_module'):
        nodes.get('CIoULoss')


def test_message_for_a_misspelt_type_names_the_nearest() -> None:
    from mmdet.registry import MODELS

    with pytest.raises(KeyError, match=r"no model named 'CIouLos'; did you mean 'CIoULoss'\?"):
        MODELS.build(dict(type='mmdet_ext.CIouLos'))
    with pytest.raises(KeyError, match=r'mmdet_ext\.NoSuchThing is not in'):
        MODELS.build(dict(type='mmdet_ext.NoSuchThing'))


@pytest.mark.parametrize(
    ('kind', 'cfg', 'wrong', 'right'),
    [
        ('MODELS', dict(type='mmdet_ext.CIoULoss', epss=1e-6), 'epss', 'eps'),
        ('TASK_UTILS', dict(type='mmdet_ext.ATSSAssigner', topkk=9), 'topkk', 'topk'),
        (
            'DATASETS',
            dict(type='mmdet_ext.CocoDataset', bad_image='drop'),
            'bad_image',
            'bad_images',
        ),
        ('DATASETS', dict(type='mmdet_ext.CocoDataset', test_mod=True), 'test_mod', 'test_mode'),
        (
            'MODELS',
            dict(type='mmdet_ext.MarginHead', num_classes=2, in_channels=2, scal=64.0),
            'scal',
            'scale',
        ),
        ('TRANSFORMS', dict(type='mmdet_ext.AlignFace', sise=(112, 112)), 'sise', 'size'),
        ('METRICS', dict(type='mmdet_ext.FaceVerificationMetric', far=(0.1,)), 'far', 'fars'),
        ('HOOKS', dict(type='mmdet_ext.MarginScheduleHook', stopp=0.5), 'stopp', 'stop'),
    ],
)
def test_message_for_a_misspelt_option_names_the_nearest(
    kind: str, cfg: dict[str, Any], wrong: str, right: str
) -> None:
    import mmdet.registry

    message = f'{cfg["type"]} has no option {wrong!r}; did you mean {right!r}'
    with pytest.raises(TypeError, match=re.escape(message)):
        getattr(mmdet.registry, kind).build(cfg)


def test_message_for_a_strange_option_lists_all_options() -> None:
    with pytest.raises(TypeError, match=r"'zzz'\. Its options: topk, alpha, "):
        registry.TASK_UTILS.build(dict(type='mmdet_ext.ATSSAssigner', topk=9, zzz=1))


def test_signatures_are_not_changed_by_the_check_of_options() -> None:
    """Keep the options visible in help and editors."""
    import inspect

    from mmdet_ext.losses.iou import CIoULoss

    assert list(inspect.signature(CIoULoss).parameters) == [
        'eps',
        'reduction',
        'loss_weight',
        'power',
        'inner_ratio',
        'aspect_thr',
    ]


def test_membership_does_not_raise() -> None:
    assert 'CIoULoss' in registry.MODELS
    assert 'mmdet_ext.CIoULoss' in registry.MODELS
    assert 'CIoULos' not in registry.MODELS
    assert 3 not in registry.MODELS


@pytest.mark.parametrize(
    'row', [row for rows in cases_by_registry().values() for row in rows], ids=lambda row: row.name
)
def test_drop_in_replacements_name_the_replaced_component(row: Any) -> None:
    """Check that the docstring of a drop-in replacement compares it with the replaced component."""
    (cls,) = [nodes.module_dict[row.name] for nodes in OURS if row.name in nodes]
    assert cls.__name__ == row.name
    if row.twin is not None:
        hosts = ('stock', f"{row.twin_scope}'s")
        assert any(host in (cls.__doc__ or '').lower() for host in hosts)


def test_hints_name_the_releases_of_the_requirements() -> None:
    folder = REPO / 'requirements'
    lines = {
        line.strip()
        for name in ('det', 'cls', 'seg', 'pose')
        for line in (folder / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    }
    hinted = [re.search("pip install '(.+?)'", hint) for hint in registry.INSTALL_HINTS.values()]
    found = {match[1] for match in hinted if match}
    assert len(found) == 5 and found <= lines


@pytest.mark.subprocess
def test_nothing_is_registered_with_the_hosts() -> None:
    script = """
import importlib, json, pkgutil
import mmengine.registry, mmdet.registry, mmpretrain.registry
from mmengine.registry import Registry
nodes = {id(n): n for m in (mmengine.registry, mmdet.registry, mmpretrain.registry)
         for n in vars(m).values() if isinstance(n, Registry)}
for n in nodes.values():
    n.import_from_location()
before = {k: dict(n.module_dict) for k, n in nodes.items()}
import mmdet_ext
names = [m.name for m in pkgutil.walk_packages(mmdet_ext.__path__, 'mmdet_ext.')]
for name in names:
    importlib.import_module(name)
from mmdet_ext import registry
changed = [n.name for k, n in nodes.items() if n.module_dict != before[k]]
print(json.dumps([len(nodes), sum(map(len, before.values())), changed, len(names),
                  {n.name: len(n.module_dict) for n in vars(registry).values()
                   if isinstance(n, registry.ExtRegistry)}]))
"""
    registries, stock, changed, modules, ours = fresh(script)
    # The walk has covered the registries of the hosts and all of our modules.
    assert registries > 40 and stock > 500 and modules > 15
    assert ours == {
        name: len({row.name for row in rows}) for name, rows in cases_by_registry().items()
    }
    assert changed == []
