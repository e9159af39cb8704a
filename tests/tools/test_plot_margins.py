"""Command line of the figures of margins."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests._helpers.tools import load_tool

plot_margins = load_tool('face/plot_margins.py')


@pytest.mark.slow
def test_images_are_small_and_reproducible(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plot_margins.main(['--out', str(tmp_path / 'a')]) == 0
    names = ['margin_boundaries.png', 'margin_scores.png']
    assert capsys.readouterr().out.split() == [str(tmp_path / 'a' / name) for name in names]
    assert plot_margins.main(['--out', str(tmp_path / 'b')]) == 0
    for name in names:
        content = (tmp_path / 'a' / name).read_bytes()
        assert len(content) < 150_000
        assert content == (tmp_path / 'b' / name).read_bytes()
        with Image.open(tmp_path / 'a' / name) as image:
            assert image.width >= 900


def test_folder_that_cannot_be_made_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'file').write_text('')
    assert plot_margins.main(['--out', str(tmp_path / 'file')]) == 2
    assert capsys.readouterr().err.startswith('error: ')
