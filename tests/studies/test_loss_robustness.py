"""Test of the table of hard cases on which losses fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_ext.studies.loss_robustness import PRECISIONS
from tests._helpers.tools import load_tool

loss_robustness = load_tool('analysis/loss_robustness.py')


def test_table_shows_mmdet_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        loss_robustness.main(
            ['--cases', '1200', '--losses', 'CIoULoss', '--out', str(tmp_path / 'hard')]
        )
        == 0
    )
    rows = json.loads((tmp_path / 'hard.json').read_text())['rows']
    by_name = {(row['loss'], row['precision']): row for row in rows}
    assert by_name['mmdet.CIoULoss', 'float32']['bad_values'] > 0
    ours = [row for row in rows if row['loss'].startswith('mmdet_ext.')]
    twins = [row for row in rows if row['loss'] in ('mmdet.CIoULoss', 'mmdet_ext.CIoULoss')]
    assert len(twins) == 2 * len(PRECISIONS)
    assert all(row['bad_values'] == row['bad_gradients'] == 0 for row in ours)
    printed = capsys.readouterr().out.strip()
    assert printed in (tmp_path / 'hard.md').read_text()
    assert '\n| `mmdet_ext.CIoULoss` | 0 | 0 | 0 | 0 | 0 |' in printed
    stock = next(line for line in printed.splitlines() if line.startswith('| `mmdet.CIoULoss` |'))
    bad = by_name['mmdet.CIoULoss', 'float16']
    assert f'{bad["bad_values"]:,} loss, {bad["bad_gradients"]:,} gradient' in stock
