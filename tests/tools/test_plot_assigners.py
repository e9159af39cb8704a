"""tools/analysis/plot_assigners.py: a figure per assigner, named as on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdet_ext.catalog.cases import cases_of
from tests._helpers.configs import CONFIGS
from tests._helpers.tools import load_tool

plot_assigners = load_tool('analysis/plot_assigners.py')


@pytest.mark.slow
def test_every_assigner_is_drawn_and_on_the_page(tmp_path: Path) -> None:
    assert plot_assigners.main(['--out', str(tmp_path)]) == 0
    names = {plot_assigners.file_name(case.name) for case in cases_of('assigner')}
    assert {path.stem for path in tmp_path.glob('*.png')} == names
    page = (CONFIGS.parent / 'docs' / 'assigners.md').read_text(encoding='utf-8')
    for case in cases_of('assigner'):
        assert case.name in page
        assert f'images/assigners/{plot_assigners.file_name(case.name)}.png' in page
