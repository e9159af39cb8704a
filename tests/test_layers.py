"""Which part of the package may import which: functional < structures < shells."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmdet_ext

PACKAGE = Path(mmdet_ext.__file__).parent
HOSTS = {'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mim'}

#: What each part may import beyond itself and the standard library. The first prefix that fits a
#: module counts. 'mmdet_ext.x' admits what is under it.
RULES: list[tuple[str, set[str]]] = [
    ('mmdet_ext.functional', {'torch'}),
    ('mmdet_ext.structures', {'torch', 'mmdet_ext.functional'}),
    *(
        (
            f'mmdet_ext.datasets.{name}',
            {'numpy', 'cv2', 'PIL', 'mmdet_ext.datasets', 'mmdet_ext.utils'},
        )
        for name in (
            'coco_json', 'voc', 'shapes', 'images', 'layout', 'class_counts', 'face_folder',
            'face_pairs', 'record_io', 'safe_pickle',
        )
    ),
    ('mmdet_ext.evaluation', {
        'numpy', 'matplotlib', 'cv2', 'PIL', 'pycocotools', 'mmdet_ext.utils',
    }),
    ('mmdet_ext.detection', {
        'torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmdet_ext.functional',
        'mmdet_ext.structures', 'mmdet_ext.registry', 'mmdet_ext.datasets', 'mmdet_ext.losses',
    }),
    ('mmdet_ext.recognition', {
        'torch', 'numpy', 'cv2', 'sklearn', 'mmengine', 'mmcv', 'mmdet_ext.functional',
        'mmdet_ext.registry', 'mmdet_ext.datasets', 'mmdet_ext.evaluation', 'mmdet_ext.utils',
        'mmdet_ext.losses',
    }),
    ('mmdet_ext.losses', {
        'torch', 'mmengine', 'mmdet_ext.functional', 'mmdet_ext.structures', 'mmdet_ext.registry',
    }),
    ('mmdet_ext.engine', {'torch', 'numpy', 'mmengine'}),
    ('mmdet_ext.registry', {'mmengine', 'mmdet_ext.engine'}),
    ('mmdet_ext.testing', {
        'torch', 'numpy', 'mmengine', 'mmdet_ext.functional', 'mmdet_ext.structures',
        'mmdet_ext.datasets', 'mmdet_ext.utils',
    }),
    ('mmdet_ext.utils', set()),
    ('mmdet_ext.version', set()),
    ('mmdet_ext', {'mmdet_ext.version'}),
]


def violations(module: str, source: str) -> list[str]:
    """What a module imports against the rules, as 'module imports name (line N)'."""
    own, allowed = next((part, names) for part, names in RULES if _under(module, part))
    return [
        f'{module} imports {name} (line {line})'
        for name, line in imports(module, source)
        if name.partition('.')[0] not in sys.stdlib_module_names
        and not (_under(name, own) and own != 'mmdet_ext')
        and not any(_under(name, part) for part in allowed)
    ]


def imports(module: str, source: str) -> Iterator[tuple[str, int]]:
    """Every module that a source imports, at its head or within functions, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parent = module.split('.')[: -node.level]
                base = '.'.join([*parent, *([base] if base else [])])
            # `from mmdet_ext import detection` imports a part of the package.
            yield from (
                (f'{base}.{alias.name}' if base == 'mmdet_ext' else base, node.lineno)
                for alias in node.names
            )


def _under(name: str, part: str) -> bool:
    return name == part or name.startswith(part + '.')


def sources() -> dict[str, str]:
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = ['mmdet_ext', *path.relative_to(PACKAGE).with_suffix('').parts]
        if '.mim' not in parts:
            name = '.'.join(parts).removesuffix('.__init__')
            found[name] = path.read_text(encoding='utf-8')
    return found


SOURCES = sources()


@pytest.mark.parametrize('module', SOURCES)
def test_imports_keep_to_the_layers(module: str) -> None:
    assert violations(module, SOURCES[module]) == []


def test_only_detection_imports_mmdet_and_nothing_mmpretrain() -> None:
    importers: dict[str, set[str]] = {host: set() for host in HOSTS}
    for module, source in SOURCES.items():
        for name, _ in imports(module, source):
            if name.partition('.')[0] in HOSTS:
                importers[name.partition('.')[0]].add('.'.join(module.split('.')[:2]))
    assert importers['mmdet'] == {'mmdet_ext.detection'}
    assert importers['mmpretrain'] == set()
    assert importers['mim'] == set()


def test_every_part_has_a_rule_and_every_rule_a_part() -> None:
    for module in SOURCES:
        if module.count('.') == 1:
            assert any(part.startswith(module) for part, _ in RULES), module
    for part, _ in RULES:
        assert any(_under(module, part) for module in SOURCES), f'rule for nothing: {part}'


WRONG = {
    'functional imports a host': ('mmdet_ext.functional.boxes', 'import mmengine.logging'),
    'functional imports structures': (
        'mmdet_ext.functional.boxes', 'from mmdet_ext.structures import Assignment'),
    'functional imports the registry': (
        'mmdet_ext.functional.boxes', 'from mmdet_ext.registry import MODELS'),
    'within a function': (
        'mmdet_ext.functional.boxes', 'def f():\n    from mmdet_ext.losses import CIoULoss'),
    'relative': ('mmdet_ext.functional.boxes', 'from ..losses import iou'),
    'relative, of the package': ('mmdet_ext.functional.boxes', 'from .. import losses'),
    'of the package': ('mmdet_ext.functional.boxes', 'from mmdet_ext import losses'),
    'structures import losses': (
        'mmdet_ext.structures.assignment', 'import mmdet_ext.losses.iou as iou'),
    'structures import numpy': ('mmdet_ext.structures.assignment', 'import numpy as np'),
    'losses import detection': (
        'mmdet_ext.losses.iou', 'from mmdet_ext.detection import compat'),
    'losses import mmdet': ('mmdet_ext.losses.iou', 'from mmdet.models import losses'),
    'detection imports mmpretrain': (
        'mmdet_ext.detection.heads.any', 'from mmpretrain.models import ImageClassifier'),
    'data tools import torch': ('mmdet_ext.datasets.voc', 'import torch'),
    'data tools import a host': ('mmdet_ext.datasets.shapes', 'from mmcv import imread'),
    'figures import a host': ('mmdet_ext.evaluation.run_report', 'import mmengine'),
    'recognition imports mmdet': (
        'mmdet_ext.recognition.heads.margin_head', 'from mmdet.registry import MODELS'),
    'recognition imports mmpretrain': (
        'mmdet_ext.recognition.heads.any', 'def f():\n    import mmpretrain.models'),
    'recognition imports detection': (
        'mmdet_ext.recognition.datasets.any', 'from mmdet_ext.detection import datasets'),
    'recognition, relative, imports detection': (
        'mmdet_ext.recognition.hooks.any', 'from ...detection import compat'),
    'recognition imports what tests share': (
        'mmdet_ext.recognition.samplers.any', 'from mmdet_ext.testing.faces import TRAINED'),
    'losses import recognition': (
        'mmdet_ext.losses.iou', 'from mmdet_ext.recognition.losses import FeatureLoss'),
    'detection imports recognition': (
        'mmdet_ext.detection.heads.any', 'from mmdet_ext.recognition.heads import MarginHead'),
    'functional imports recognition': (
        'mmdet_ext.functional.margins', 'from mmdet_ext.recognition.heads import margins'),
    'functional imports numpy': ('mmdet_ext.functional.similarity', 'import numpy as np'),
    'readers of faces import torch': ('mmdet_ext.datasets.record_io.faces', 'import torch'),
    'readers of faces import a host': (
        'mmdet_ext.datasets.face_pairs', 'from mmengine.fileio import get'),
    'readers of faces import recognition': (
        'mmdet_ext.datasets.face_folder', 'from mmdet_ext.recognition import datasets'),
    'figures of faces import torch': ('mmdet_ext.evaluation.face_figures', 'import torch'),
    'what tests share imports recognition': (
        'mmdet_ext.testing.faces', 'from mmdet_ext.recognition.datasets import DigitsDataset'),
    'the package imports torch': ('mmdet_ext', 'import torch'),
    'the package imports its registry': ('mmdet_ext', 'from mmdet_ext.registry import MODELS'),
}


@pytest.mark.parametrize(('module', 'source'), WRONG.values(), ids=WRONG)
def test_the_check_sees_an_arrow_the_other_way(module: str, source: str) -> None:
    (found,) = violations(module, source)
    assert found.startswith(f'{module} imports ')


def test_the_check_lets_arrows_of_the_right_way_pass() -> None:
    source = (
        'from __future__ import annotations\nimport math\nfrom torch import Tensor\n'
        'from mmdet.registry import MODELS\nfrom mmdet_ext.functional.boxes import box_iou\n'
        'from mmdet_ext.detection import compat\nfrom . import atss\nfrom .base import X\n'
    )
    assert violations('mmdet_ext.detection.assigners.any', source) == []
    source = (
        'import numpy as np\nimport cv2\nfrom mmcv.transforms import BaseTransform\n'
        'from mmdet_ext.registry import MODELS\nfrom mmdet_ext.losses.class_counts import x\n'
        'from mmdet_ext.evaluation.face_figures import draw_roc\n'
        'from mmdet_ext.recognition.losses import FeatureLoss\nfrom ..heads import margins\n'
    )
    assert violations('mmdet_ext.recognition.metrics.any', source) == []
