"""Image files of figures: the animation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdet_ext.plots import raster


def frames(folder: Path, *shades: int, size: tuple[int, int] = (30, 20)) -> list[Path]:
    paths = []
    for number, shade in enumerate(shades):
        paths.append(folder / f'{number}_{size[0]}.png')
        raster.write_image(np.full((size[1], size[0], 3), shade, np.uint8), paths[-1])
    return paths


def test_animation_holds_all_frames_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / 'made' / 'a.gif'
    raster.write_animation(frames(tmp_path, 10, 200, 90), path)
    with Image.open(path) as animation:
        assert animation.n_frames == 3 and animation.info['loop'] == 0
        shades, durations = [], []
        for number in range(3):
            animation.seek(number)
            shades.append(animation.convert('L').getpixel((5, 5)))
            durations.append(animation.info['duration'])
    assert shades == [10, 200, 90]
    assert durations == [raster.FRAME_MS, raster.FRAME_MS, raster.LAST_FRAME_MS]


def test_animation_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'a.gif'
    path.write_bytes(b'before')
    with pytest.raises(ValueError, match='frames is empty'):
        raster.write_animation([], path)
    with pytest.raises(ValueError, match=r'of one size, got \[\(30, 20\), \(40, 20\)\]'):
        mixed = frames(tmp_path, 1) + frames(tmp_path, 2, size=(40, 20))
        raster.write_animation(mixed, path)
    with pytest.raises(OSError, match='absent'):
        raster.write_animation([tmp_path / 'absent.png'], path)

    def half(self: object, file: Path, **options: object) -> None:
        Path(file).write_bytes(b'GIF89a')
        raise OSError('disk full')

    good = frames(tmp_path, 1, 2)
    monkeypatch.setattr(Image.Image, 'save', half)
    with pytest.raises(OSError, match='disk full'):
        raster.write_animation(good, path)
    assert path.read_bytes() == b'before' and not list(tmp_path.glob('*.part'))
