"""Inventory of the public index: `mmdet_ext.functional.SUBJECT` exports what its modules define.

A module of a subject lists its public names in ``__all__``: every function and class without an
underscore that it defines, and the aliases of types that callers annotate with. Modules with an
underscore are for the subject itself and export nothing.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

from mmdet_ext import functional

SUBJECTS = [module.name for module in pkgutil.iter_modules(functional.__path__)]


def modules(subject: str) -> dict[str, ModuleType]:
    """Import the public modules of a subject, by their names."""
    package = importlib.import_module(f'{functional.__name__}.{subject}')
    return {
        module.name: importlib.import_module(f'{package.__name__}.{module.name}')
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith('_')
    }


def defined(module: ModuleType) -> tuple[set[str], set[str]]:
    """List the public functions and classes of a module, and all public names it assigns."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding='utf-8'))
    made = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {n for n in made if n[0] != '_'}, {n for n in assigned if n[0] != '_'}


MODULES = [
    pytest.param(module, id=f'{subject}.{name}')
    for subject in SUBJECTS
    for name, module in modules(subject).items()
]


def test_the_subjects_are_found() -> None:
    subjects = {'numerics', 'boxes', 'classification', 'assignment', 'embedding', 'scoring'}
    assert subjects | {'segmentation'} <= set(SUBJECTS)


@pytest.mark.parametrize('module', MODULES)
def test_a_module_lists_what_it_defines(module: ModuleType) -> None:
    listed = getattr(module, '__all__', None)
    assert listed is not None, 'the module has no __all__'
    made, assigned = defined(module)
    assert listed == sorted(listed) and len(set(listed)) == len(listed)
    assert made <= set(listed), 'defined, and not in __all__'
    assert set(listed) <= made | assigned, 'in __all__, and not defined'
    constants = {name for name in set(listed) - made if name.isupper()}
    assert not constants, 'a constant is no part of the index'


@pytest.mark.parametrize('subject', SUBJECTS)
def test_a_subject_exports_the_names_of_its_modules(subject: str) -> None:
    package = importlib.import_module(f'{functional.__name__}.{subject}')
    parts = modules(subject)
    listed = [name for module in parts.values() for name in getattr(module, '__all__', ())]
    assert sorted(listed) == sorted(set(listed)), 'two modules have a public name in common'
    assert sorted(package.__all__) == sorted(listed)
    for module in parts.values():
        for name in getattr(module, '__all__', ()):
            assert getattr(package, name) is getattr(module, name)
    shadowed = set(listed) & set(parts)
    assert not shadowed, 'a public name hides the module of that name'
