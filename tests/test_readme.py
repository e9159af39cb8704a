"""README.md and its Chinese form: equal commands, equal structure, short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
ENGLISH = (REPO / 'README.md').read_text(encoding='utf-8')
CHINESE = (REPO / 'README.zh-CN.md').read_text(encoding='utf-8')

MOST_LINES = 150


def code_of(page: str) -> list[str]:
    """List the lines of the code blocks of a page, without comments."""
    fenced = re.findall(r'^```\w*\n(.*?)^```', page, re.MULTILINE | re.DOTALL)
    indented = re.findall(r'^ {4}(.+)', re.sub(r'^```.*?^```', '', page, flags=re.M | re.S), re.M)
    lines = [line for block in fenced for line in block.splitlines()] + indented
    return [re.sub(r'\s+#.*', '', line).rstrip() for line in lines]


def structure_of(page: str) -> list[str]:
    """List the marks of headings, tables, points, links and images of a page, in order."""
    found = re.findall(r'^(?:#+|\||- |!\[)|\]\([^)]+\)', page, re.MULTILINE)
    return [re.sub(r'\]\((README(?:\.zh-CN)?\.md)\)', '](the other)', mark) for mark in found]


def test_both_forms_give_the_same_commands() -> None:
    assert code_of(CHINESE) == code_of(ENGLISH)
    assert '    make demo' in ENGLISH and '    make test' in ENGLISH


def test_both_forms_have_the_same_structure() -> None:
    assert structure_of(CHINESE) == structure_of(ENGLISH)


def test_both_forms_give_the_same_figures() -> None:
    figures = [sorted(re.findall(r'\d[\d,.]*\d|\d', page)) for page in (ENGLISH, CHINESE)]
    assert figures[0] == figures[1]


@pytest.mark.parametrize('page', [ENGLISH, CHINESE], ids=['English', 'Chinese'])
def test_the_readme_is_short(page: str) -> None:
    assert len(page.splitlines()) <= MOST_LINES


def test_a_changed_command_is_found() -> None:
    assert code_of('    make demo  # a\n') == ['make demo'] != code_of('    make dem\n')
