"""The pages name what is there: links, anchors, files, functions, types; the site builds."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / 'docs'
PAGES = sorted([*REPO.glob('*.md'), *DOCS.rglob('*.md')])
#: Files that a reader makes by following a page.
MADE = {'configs/face/demo/mine.py'}

LINK = re.compile(r'\]\(([^)\s]+)\)')
OUR_PATH = re.compile(r'\b(?:mmdet_ext|tools|configs|tests|docs|requirements)/[\w./*{},<>-]*')
DOTTED = re.compile(r'\bmmdet_ext(?:\.\w+)+(?<!\.X)')  # X stands for any type


def _name(path: Path) -> str:
    return str(path.relative_to(REPO))


def read(page: Path) -> str:
    return page.read_text(encoding='utf-8')


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    prose = re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r'^#+ (.+)$', prose, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title).strip().lower().replace(' ', '-') for title in titles}


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Yield the links of a page to files or headings that do not exist."""
    for link in LINK.findall(text):
        path, _, anchor = link.partition('#')
        target = page if not path else (page.parent / path).resolve()
        if '://' in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(read(target))):
            yield link


def absent_paths(text: str) -> Iterator[str]:
    """Yield the files and folders of ours that a text names and that do not exist."""
    for path in sorted(set(OUR_PATH.findall(text)) - MADE):
        path = path.rstrip('.,/')
        placeholder = re.search(r'[<{]|\.\.\.|/[A-Z]+$', path)
        named = [*REPO.glob(path), *REPO.glob(f'{path}.*')]  # tools name outputs without suffix
        if not placeholder and not named:
            yield path


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the functions, classes, methods (as Class.method) and constants of a file."""
    found: set[str] = set()
    for node in ast.parse(read(path)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            found |= {
                f'{node.name}.{part.name}'
                for part in ast.walk(node)
                if isinstance(part, ast.FunctionDef)
            }
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
    return frozenset(found)


@cache
def registered_types() -> frozenset[str]:
    """Return the names of all registered classes."""
    pattern = re.compile(r'^@\w+\.register_module\(.*?\)\nclass (\w+)', re.MULTILINE)
    files = [path for path in (REPO / 'mmdet_ext').rglob('*.py') if '.mim' not in path.parts]
    return frozenset(name for path in files for name in pattern.findall(read(path)))


def is_there(dotted: str) -> bool:
    """Return whether a dotted name is a module, something in one, or a registered type."""
    parts = dotted.split('.')
    if len(parts) == 2 and parts[1] in registered_types():
        return True
    # Rules of suppression are named by the scope in a head's ``nms``.
    if len(parts) == 2 and parts[1] in names_in(REPO / 'mmdet_ext/detection/suppression.py'):
        return True
    # A package of components has those of its modules as attributes.
    package = REPO.joinpath(*parts[:-1])
    if parts[-1] in registered_types() and any(
        parts[-1] in names_in(path) for path in package.glob('*.py')
    ):
        return True
    for end in range(len(parts), 0, -1):
        module = REPO.joinpath(*parts[:end])
        path = module / '__init__.py' if module.is_dir() else module.with_suffix('.py')
        if path.is_file():
            return end == len(parts) or '.'.join(parts[end:]) in names_in(path)
    return False


@pytest.mark.parametrize('page', PAGES, ids=_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert list(broken_links(page, read(page))) == []


@pytest.mark.parametrize('page', PAGES, ids=_name)
def test_named_files_exist(page: Path) -> None:
    assert list(absent_paths(read(page))) == []


@pytest.mark.parametrize('page', PAGES, ids=_name)
def test_named_modules_functions_and_types_exist(page: Path) -> None:
    assert [name for name in sorted(set(DOTTED.findall(read(page)))) if not is_there(name)] == []


def test_each_step_of_the_three_trips_names_a_function_of_its_file() -> None:
    steps = re.findall(
        r'^\|.*\| `([\w.]+)` \| `(mmdet_ext/[\w/]+\.py)` \|$', read(DOCS / 'architecture.md'), re.M
    )
    assert len(steps) >= 25
    assert [step for step in steps if step[0] not in names_in(REPO / step[1])] == []


def test_navigation_lists_every_page() -> None:
    nav = yaml.safe_load(read(REPO / 'mkdocs.yml'))['nav']
    listed = re.findall(r'[\w/]+\.md', str(nav))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob('*.md'))


def test_pre_commit_runs_the_pinned_ruff() -> None:
    hooks = yaml.safe_load(read(REPO / '.pre-commit-config.yaml'))['repos']
    revisions = {hook['repo'].rpartition('/')[2]: hook['rev'] for hook in hooks}
    pinned = re.search(r'^ruff==(.+)$', read(REPO / 'requirements' / 'constraints.txt'), re.M)
    assert pinned is not None and revisions['ruff-pre-commit'] == f'v{pinned[1]}'


@pytest.mark.subprocess
@pytest.mark.parametrize('tool', ['tables', 'draw_plan'])
def test_generated_parts_are_current(tool: str) -> None:
    command = [sys.executable, f'tools/dev/{tool}.py', '--check']
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.subprocess
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip('mkdocs', reason='the tools of the site need Python 3.11')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '-d', str(tmp_path)]
    env = os.environ | {'NO_MKDOCS_2_WARNING': '1'}
    result = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    losses = read(tmp_path / 'losses.html')
    assert '<math' in losses and '$$' not in losses
    api = read(tmp_path / 'api' / 'functional' / 'boxes' / 'index.html')
    assert 'mmdet_ext.functional.boxes.iou_losses.ciou_loss' in api
    # Doctests are code, formulas are MathML, and no role is left.
    assert 'class="gp"' in api and '<math' in api and ':func:' not in api
    loaded = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="?https?://')
    assert not [page for page in tmp_path.rglob('*.html') if loaded.search(read(page))]


def test_what_is_absent_is_found() -> None:
    page = DOCS / 'losses.md'
    assert list(broken_links(page, '[a](nothing.md) [b](face.md#nothing) [c](#speed)')) == [
        'nothing.md',
        'face.md#nothing',
    ]
    assert list(absent_paths('`mmdet_ext/nothing.py`, `tools/dev/`, configs/*.py')) == [
        'configs/*.py',
        'mmdet_ext/nothing.py',
    ]
    assert is_there('mmdet_ext.CIoULoss') and is_there('mmdet_ext.registry.MODELS')
    assert not is_there('mmdet_ext.NoLoss') and not is_there('mmdet_ext.registry.NOTHING')
