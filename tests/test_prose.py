"""Prose that a stranger reads once: openings and words that docstrings and pages avoid.

The glossary in CONTRIBUTING.md says which word stands for which thing, and why.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
CODE = sorted(
    path
    for part in ('mmdet_ext', 'tools', 'tests', 'configs')
    for path in (REPO / part).rglob('*.py')
    if '.mim' not in path.parts and path != Path(__file__)
)
PAGES = sorted(
    path
    for pattern in ('*.md', 'docs/**/*.md')
    for path in REPO.glob(pattern)
    if path.name not in ('CONTRIBUTING.md', 'README.zh-CN.md')
)

#: A docstring begins with a verb (a function) or a noun phrase (a class, a module).
OPENINGS = re.compile(r'(What|Which|Whether|How|That|Who|Where|When|Why|Likewise)\b')

_COUNTED = (
    'anchor|batch|box|call|cell|channel|class|column|component|config|coordinate|element|epoch|'
    'file|folder|identity|image|iteration|label|level|line|loss|operation|pair|panel|person|pixel|'
    'point|prior|rank|row|run|sample|seed|stage|step|table|vector|worker'
)
#: Refused word -> what to write instead.
WORDS = {
    r'\b(?:a|an|one|two|three) [\w-]+ an? (?:' + _COUNTED + r')\b': 'per: "one weight per class"',
    r'\bpictures?\b': 'image; figure or plot for what a tool draws',
    r'\b[Ll]ikewise\b': 'the sentence again, or "also"',
    r'\b[Tt]old\b': 'say what is reported, named or distinguished',
    r"\b(?:nobody|no one)'s\b": 'unassigned, of no class, ...',
    r'\bgo(?:es)? by\b': 'uses, follows, is ordered by',
    r"\b[Ss]tock's\b": "mmdet's, mmpretrain's, MMEngine's",
    r'\bground-truth box(?:es)? of (?:a|the) picture\b': 'ground truth',
}


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=False)
            if text is not None:
                yield node.body[0].lineno, text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every comment."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_names(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and words of the name of every test."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith('test_'):
            yield node.lineno, node.name.replace('_', ' ')


test_names.__test__ = False  # type: ignore[attr-defined]


def refused_words(text: str) -> list[str]:
    """List the refused words of a text, each with what to write instead."""
    return [
        f'{found.group(0)!r}: write {instead}'
        for pattern, instead in WORDS.items()
        for found in re.finditer(pattern, ' '.join(text.split()))
    ]


def _name(path: Path) -> str:
    return str(path.relative_to(REPO))


@pytest.mark.parametrize('path', CODE, ids=_name)
def test_docstrings_open_with_a_verb_or_a_noun(path: Path) -> None:
    source = path.read_text(encoding='utf-8')
    wrong = [
        f'line {line}: {text.strip().splitlines()[0]}'
        for line, text in docstrings(source)
        if OPENINGS.match(text.strip())
    ]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('path', CODE, ids=_name)
def test_code_uses_the_words_of_the_glossary(path: Path) -> None:
    source = path.read_text(encoding='utf-8')
    texts = [*docstrings(source), *comments(source), *test_names(source)]
    wrong = [f'line {line}: {why}' for line, text in texts for why in refused_words(text)]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('path', PAGES, ids=_name)
def test_pages_use_the_words_of_the_glossary(path: Path) -> None:
    lines = enumerate(path.read_text(encoding='utf-8').splitlines(), 1)
    wrong = [f'line {number}: {why}' for number, line in lines for why in refused_words(line)]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize(
    'text',
    ['a number a class', 'two weights a box', 'the picture', "is nobody's", "stock's head"],
)
def test_a_refused_word_is_found(text: str) -> None:
    assert refused_words(text)


def test_an_opening_is_found_and_an_ordinary_one_passes() -> None:
    assert OPENINGS.match('Which priors are near.')
    assert not OPENINGS.match('Whatever the batch, return the mean.')
    assert refused_words('one weight per class of the image, ordered by mmdet') == []
