"""README.md says what the code is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.mark.subprocess
def test_tables_are_current() -> None:
    command = [sys.executable, 'tools/dev/readme_tables.py', '--check']
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_files_that_the_documents_link_to_are_there() -> None:
    for page in (*REPO.glob('*.md'), *REPO.glob('docs/**/*.md')):
        text = page.read_text(encoding='utf-8')
        for link in (part.split(')')[0] for part in text.split('](')[1:]):
            if '://' not in link and not link.startswith('#'):
                target = page.parent / link.split('#')[0]
                assert target.exists(), f'{page.name} links to {link}, which is not there'
