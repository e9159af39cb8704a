"""Facts read off the source of a checkout: sizes, docstrings, near-duplicates, registered types."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: A first word that makes a docstring's first line a riddle.
OPENINGS = re.compile(r'(What|Which|Whether|How|That|Who|Where|When|Why|Likewise)\b')

#: Statements from which on two functions of one shape count as near-duplicates.
LEAST_STATEMENTS = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Source:
    """One Python file.

    Args:
        path: relative to the checkout.
        text: content.
        tree: the parsed text.
    """

    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Return the number of lines."""
        return len(self.text.splitlines())

    def functions(self) -> Iterator[Function]:
        """Yield every function and method."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def docstrings(self) -> Iterator[str]:
        """Yield every docstring."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Module | ast.ClassDef | Function):
                text = ast.get_docstring(node)
                if text is not None:
                    yield text


def read_sources(root: Path, *parts: str) -> list[Source]:
    """Read the Python files below some folders of a checkout, without links and hidden folders."""
    found = []
    for part in parts:
        for path in sorted((root / part).rglob('*.py')):
            relative = path.relative_to(root)
            if not any(name.startswith('.') for name in relative.parts):
                text = path.read_text(encoding='utf-8')
                found.append(Source(relative, text, ast.parse(text)))
    return found


def body_lines(function: Function) -> int:
    """Count the lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def near_duplicates(sources: list[Source]) -> list[list[str]]:
    """Group functions that are equal but for names, constants and docstrings."""
    groups: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        for function in source.functions():
            statements = sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1
            if statements >= LEAST_STATEMENTS:
                groups[_shape(function)].append(f'{source.path}:{function.lineno}')
    return [places for places in groups.values() if len(places) > 1]


def _shape(function: Function) -> str:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    text = ast.dump(ast.Module(body=body, type_ignores=[]))
    return re.sub(r"(id|arg|attr|name|value|kind)='?(?:[^'(),\[\]]*)'?", r'\1', text)


def registered_types(sources: list[Source]) -> dict[str, list[str]]:
    """List the registered classes by kind: task, if any, and registry; models by folder too."""
    found: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        # One subject had another name once, and rooms were fewer.
        parts = ['face' if name == 'recognition' else name for name in source.path.parts[1:-1]]
        task = [name for name in parts if name in ('face', 'detection')]
        folder = [name for name in parts if name not in (*task, 'dense')]
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef):
                for decorator in node.decorator_list:
                    match = re.match(r'(\w+)\.register_module', ast.unparse(decorator))
                    if match is not None:
                        room = folder if match[1] in ('MODELS', 'TASK_UTILS') else []
                        found[' '.join([*task, match[1], *room])].append(node.name)
    return dict(found)


def files_naming(root: Path, names: list[str], files: list[str]) -> dict[str, int]:
    """Count for each name the files of a checkout that hold it as a word."""
    texts = [(root / file).read_text(encoding='utf-8', errors='replace') for file in files]
    return {name: sum(bool(re.search(rf'\b{name}\b', text)) for text in texts) for name in names}
