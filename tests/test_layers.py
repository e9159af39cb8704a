"""The plan of the house: which part may import which, how large folders and files may grow.

`docs/design.md` draws the same plan. A rule is a prefix of module names, and the names that a
module below it may import beside the standard library and itself. The first that fits counts.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmdet_ext
from tests._helpers.wrong_imports import WRONG

PACKAGE = Path(mmdet_ext.__file__).parent
REPO = PACKAGE.parent
HOSTS = {'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmpose', 'mim'}

MOST_LINES = 400
MOST_FILES = 16

FUNCTIONAL = 'mmdet_ext.functional'
NUMERICS = f'{FUNCTIONAL}.numerics'
BOXES = f'{FUNCTIONAL}.boxes'

#: Parts that detection/ and face/ import.
OF_TASKS = {FUNCTIONAL} | {
    f'mmdet_ext.{part}'
    for part in ('compat', 'losses', 'engine', 'registry', 'data', 'plots', 'analysis', 'deploy')
    + ('evaluation', 'export', 'utils', 'version')
}

RULES: list[tuple[str, set[str]]] = [
    # NumPy sorts and lists places faster on a CPU.
    (f'{NUMERICS}.order', {'torch', 'numpy'}),
    (NUMERICS, {'torch'}),
    (BOXES, {'torch', NUMERICS}),
    (f'{FUNCTIONAL}.classification', {'torch', NUMERICS}),
    (f'{FUNCTIONAL}.assignment', {'torch', NUMERICS, BOXES}),
    (f'{FUNCTIONAL}.embedding', {'torch', NUMERICS}),
    (f'{FUNCTIONAL}.scoring', {'torch', NUMERICS, BOXES}),
    (f'{FUNCTIONAL}.segmentation', {'torch', NUMERICS, f'{FUNCTIONAL}.classification'}),
    (f'{FUNCTIONAL}.pooling', {'torch', NUMERICS, BOXES}),
    (f'{FUNCTIONAL}.yolo', {'torch', NUMERICS, BOXES, f'{FUNCTIONAL}.classification'}),
    # SciPy's optimal assignment, where candidates are grouped into people.
    (f'{FUNCTIONAL}.pose', {'torch', 'numpy', 'scipy', NUMERICS}),
    (FUNCTIONAL, set()),
    ('mmdet_ext.losses', {'torch', 'mmengine', FUNCTIONAL, 'mmdet_ext.registry'}),
    (
        'mmdet_ext.compat',
        {'torch', 'numpy', 'mmengine', 'mmdet_ext.data.reports', 'mmdet_ext.utils'},
    ),
    (
        'mmdet_ext.engine',
        {'torch', 'numpy', 'mmengine', NUMERICS}
        | {f'mmdet_ext.{part}' for part in ('registry', 'compat', 'export', 'utils')},
    ),
    (
        'mmdet_ext.detection',
        {'torch', 'numpy', 'cv2', 'mmengine', 'mmcv', 'mmdet', 'torchvision', 'onnx', *OF_TASKS},
    ),
    # faiss is found by name, where a gallery asks for it.
    ('mmdet_ext.face.gallery', {'numpy', 'mmdet_ext.utils'}),
    # Of the face, the page imports the gallery and the recogniser alone; only it imports Gradio.
    (
        'mmdet_ext.face.page',
        {'numpy', 'cv2', 'PIL', 'gradio', 'fastapi', 'uvicorn', 'mmdet_ext.deploy'}
        | {'mmdet_ext.data', 'mmdet_ext.face.gallery', 'mmdet_ext.face.recognition'},
    ),
    (
        'mmdet_ext.face',
        {'torch', 'numpy', 'cv2', 'sklearn', 'mmengine', 'mmcv', *OF_TASKS},
    ),
    (
        'mmdet_ext.segmentation',
        {'torch', 'mmengine', FUNCTIONAL}
        | {f'mmdet_ext.{part}' for part in ('registry', 'plots', 'utils')},
    ),
    ('mmdet_ext.pose.losses', {'torch', 'mmengine', FUNCTIONAL, 'mmdet_ext.registry'}),
    ('mmdet_ext.pose.skeletons', {'mmdet_ext.data.skeletons'}),
    (
        'mmdet_ext.pose',
        {'torch', 'numpy', 'cv2', 'mmengine', 'mmcv', 'mmpose', FUNCTIONAL, 'mmdet_ext.registry'},
    ),
    ('mmdet_ext.data', {'numpy', 'cv2', 'PIL', 'mmdet_ext.utils'}),
    (
        'mmdet_ext.evaluation',
        {'numpy', 'pycocotools', 'faster_coco_eval', 'hotcoco', 'mmdet_ext.utils'},
    ),
    # SciPy's quantiles of Student's t; the hosts bring SciPy along.
    ('mmdet_ext.analysis', {'numpy', 'scipy', 'pycocotools', 'mmdet_ext.data', 'mmdet_ext.utils'}),
    (
        'mmdet_ext.plots',
        {'numpy', 'matplotlib', 'cv2', 'PIL', 'mmdet_ext.analysis', 'mmdet_ext.utils'},
    ),
    (
        'mmdet_ext.catalog',
        {'torch', 'numpy', 'mmengine', FUNCTIONAL, 'mmdet_ext.data', 'mmdet_ext.utils'},
    ),
    (
        'mmdet_ext.studies',
        {'torch', 'numpy', 'mmengine', 'sklearn', FUNCTIONAL}
        | {f'mmdet_ext.{part}' for part in ('losses', 'registry', 'catalog', 'data')}
        | {f'mmdet_ext.{part}' for part in ('plots', 'analysis', 'utils')},
    ),
    # The runtimes are found by name, as any one of them is enough.
    ('mmdet_ext.deploy', {'numpy', 'cv2', 'mmdet_ext.data.suffixes', 'mmdet_ext.utils'}),
    (
        'mmdet_ext.export',
        {
            'torch',
            'numpy',
            'onnx',
            'mmdet_ext.compat',
            'mmdet_ext.deploy',
            'mmdet_ext.utils',
            'mmdet_ext.version',
        },
    ),
    ('mmdet_ext.registry', {'mmengine', 'mmdet_ext.compat', 'mmdet_ext.utils.late_import'}),
    ('mmdet_ext.utils', set()),
    ('mmdet_ext.version', set()),
    ('mmdet_ext', {'mmdet_ext.version'}),
]


def violations(module: str, source: str) -> list[str]:
    """List what a module imports against the rules, as 'module imports name (line N)'."""
    own, allowed = next((part, names) for part, names in RULES if _is_under(module, part))
    return [
        f'{module} imports {name} (line {line})'
        for name, line in imports(module, source)
        if name.partition('.')[0] not in sys.stdlib_module_names
        and not (_is_under(name, own) and own not in ('mmdet_ext', FUNCTIONAL))
        and not any(_is_under(name, part) for part in allowed)
    ]


def imports(module: str, source: str) -> Iterator[tuple[str, int]]:
    """Yield every module that a source imports, at its head or within functions, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parent = module.split('.')[: -node.level]
                base = '.'.join([*parent, *([base] if base else [])])
            for alias in node.names:
                whole = f'{base}.{alias.name}'
                # `from mmdet_ext import detection` imports a part of the package.
                yield (whole if whole in SOURCES or base == 'mmdet_ext' else base), node.lineno


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """List the circles of a graph of modules that a depth-first walk closes."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for name in sorted(graph[module]):
                walk(name, [*path, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found


def graph_of(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return what each module imports of the others; a package's own modules do not count."""
    return {
        module: {
            name
            for name, _ in imports(module, source)
            if name in sources and name != module and not module.startswith(name + '.')
        }
        for module, source in sources.items()
    }


def _is_under(name: str, part: str) -> bool:
    return name == part or name.startswith(part + '.')


def _read_sources() -> dict[str, str]:
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = ['mmdet_ext', *path.relative_to(PACKAGE).with_suffix('').parts]
        if '.mim' not in parts:
            name = '.'.join(parts).removesuffix('.__init__')
            found[name] = path.read_text(encoding='utf-8')
    return found


SOURCES = _read_sources()


@pytest.mark.parametrize('module', SOURCES)
def test_imports_keep_to_the_plan(module: str) -> None:
    assert violations(module, SOURCES[module]) == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert circles(graph_of(SOURCES)) == []


def test_only_detection_imports_mmdet_and_only_pose_mmpose() -> None:
    importers: dict[str, set[str]] = {host: set() for host in HOSTS}
    for module, source in SOURCES.items():
        for name, _ in imports(module, source):
            if name.partition('.')[0] in HOSTS:
                importers[name.partition('.')[0]].add('.'.join(module.split('.')[:2]))
    assert importers['mmdet'] == {'mmdet_ext.detection'}
    assert importers['mmpose'] == {'mmdet_ext.pose'}
    assert importers['mmpretrain'] == set()
    assert importers['mim'] == set()


def test_every_part_has_a_rule_and_every_rule_a_part() -> None:
    for module in SOURCES:
        if module.count('.') == 1:
            assert any(part.startswith(module) for part, _ in RULES), module
    for part, _ in RULES:
        assert any(_is_under(module, part) for module in SOURCES), f'rule for nothing: {part}'


@pytest.mark.parametrize('part', ['mmdet_ext', 'tools', 'tests'])
def test_no_file_is_long_and_no_folder_full(part: str) -> None:
    files = [path for path in (REPO / part).rglob('*.py') if '.mim' not in path.parts]
    lengths = {path: len(path.read_text(encoding='utf-8').splitlines()) for path in files}
    long = {str(path.relative_to(REPO)): n for path, n in lengths.items() if n > MOST_LINES}
    assert not long, f'more than {MOST_LINES} lines: {long}'
    folders: dict[str, int] = {}
    for path in files:
        if path.name != '__init__.py':
            folder = str(path.parent.relative_to(REPO))
            folders[folder] = folders.get(folder, 0) + 1
    full = {folder: n for folder, n in folders.items() if n > MOST_FILES}
    assert not full, f'more than {MOST_FILES} files: {full}'


@pytest.mark.parametrize(('module', 'source'), WRONG.values(), ids=WRONG)
def test_an_import_against_the_plan_is_found(module: str, source: str) -> None:
    (found,) = violations(module, source)
    assert found.startswith(f'{module} imports ')


def test_imports_of_the_plan_pass() -> None:
    source = (
        'from __future__ import annotations\nimport math\nfrom torch import Tensor\n'
        f'from mmdet.registry import MODELS\nfrom {BOXES}.overlap import box_iou\n'
        'from mmdet_ext.detection import host\nfrom . import atss\nfrom .base import X\n'
    )
    assert violations('mmdet_ext.detection.assigners.any', source) == []
    source = (
        'import numpy as np\nimport cv2\nfrom mmcv.transforms import BaseTransform\n'
        'from mmdet_ext.registry import MODELS\nfrom mmdet_ext.losses.class_counts import x\n'
        'from mmdet_ext.plots.face import draw_roc\n'
        'from mmdet_ext.face.losses import FeatureLoss\nfrom ..heads import parts\n'
    )
    assert violations('mmdet_ext.face.metrics.any', source) == []


def test_a_circle_is_found() -> None:
    sources = {'p.a': 'import p.b', 'p.b': 'from p.c import x', 'p.c': 'def f():\n import p.a'}
    assert circles(
        {
            name: {line.split()[1] for line in text.splitlines() if 'p.' in line}
            for name, text in sources.items()
        }
    ) == [['p.a', 'p.b', 'p.c', 'p.a']]
