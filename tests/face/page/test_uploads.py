"""Limits of uploads, in the order in which they are checked, and the folder that is emptied."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmdet_ext.face.page import Limits, RefusedImageError, read_upload
from mmdet_ext.face.page import uploads as module
from mmdet_ext.face.page.uploads import UploadFolder
from tests.face.page.made import draw_face, write_face

SMALL = Limits(max_bytes=100_000, max_pixels=160 * 160)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Count what is decoded."""
    calls: list[Path] = []
    for name in ('read_image', 'image_problem'):
        original = getattr(module, name)

        def counted(path: Path, original: Any = original) -> Any:
            calls.append(path)
            return original(path)

        monkeypatch.setattr(module, name, counted)
    return calls


def png(width: int, height: int) -> bytes:
    """Return the start of a PNG whose header states a size, without any pixel."""
    body = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n'
        + struct.pack('>I', 13)
        + body
        + struct.pack('>I', zlib.crc32(body))
        + struct.pack('>I', 100)
        + b'IDAT'
        + bytes(104)
    )


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.webp'])
def test_an_image_within_the_limits_is_decoded(tmp_path: Path, suffix: str) -> None:
    path = write_face(tmp_path, 'face' + suffix, 1)
    np.testing.assert_array_equal(read_upload(path, SMALL), cv2.imread(str(path)))


@pytest.mark.parametrize('quality', [80, 101], ids=['lossy', 'lossless'])
def test_the_size_of_webp_is_read_from_its_header(
    tmp_path: Path, quality: int, decoder: list[Path]
) -> None:
    path = tmp_path / 'wide.webp'
    image = cv2.resize(draw_face(1), (301, 87))
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    with pytest.raises(RefusedImageError, match='wide.webp has 301 x 87 pixels'):
        read_upload(path, Limits(max_pixels=301 * 87 - 1))
    assert decoder == []


def test_the_size_of_extended_webp_is_that_of_its_canvas(
    tmp_path: Path, decoder: list[Path]
) -> None:
    path = tmp_path / 'canvas.webp'
    size = (16_383).to_bytes(3, 'little') + (9_999).to_bytes(3, 'little')
    path.write_bytes(b'RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0' + size + bytes(40))
    with pytest.raises(RefusedImageError, match='has 16384 x 10000 pixels, 163.8 million'):
        read_upload(path, SMALL)
    assert decoder == []


def test_bytes_are_counted_before_anything_is_read(tmp_path: Path, decoder: list[Path]) -> None:
    path = tmp_path / 'heavy.png'
    path.write_bytes(bytes(100_001))
    with pytest.raises(RefusedImageError, match='heavy.png has 0.1 MB, more than the 0.1 MB'):
        read_upload(path, SMALL)
    assert decoder == []


@pytest.mark.parametrize('side', [161, 20_000, 2**31 - 1])
def test_pixels_are_refused_by_the_header_alone(
    tmp_path: Path, side: int, decoder: list[Path]
) -> None:
    path = tmp_path / 'bomb.png'
    path.write_bytes(png(side, side))
    with pytest.raises(RefusedImageError, match='bomb.png has .* pixels.* make it smaller'):
        read_upload(path, SMALL)
    assert decoder == []


@pytest.mark.parametrize(
    'content',
    [b'', b'no image', b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'GIF89a' + bytes(50)]
    + [b'RIFF\0\0\0\0WEBPVP8 ' + bytes(40), b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes, decoder: list[Path]) -> None:
    path = tmp_path / 'notes.png'
    path.write_bytes(content)
    with pytest.raises(RefusedImageError, match='notes.png is no image: choose a file of JPEG'):
        read_upload(path, SMALL)
    assert decoder == []


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.webp'])
def test_a_cut_image_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write_face(tmp_path, 'cut' + suffix, 1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RefusedImageError, match=f'cut{suffix} is damaged'):
        read_upload(path, SMALL)


def test_a_file_that_is_gone_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RefusedImageError, match='a.png is no longer here: upload it again'):
        read_upload(tmp_path / 'a.png', SMALL)


def test_a_limit_is_at_least_1() -> None:
    with pytest.raises(ValueError, match='max_pixels must be at least 1, got 0'):
        Limits(max_pixels=0)


def test_the_folder_is_private_and_deletes_only_its_own(tmp_path: Path) -> None:
    uploads = UploadFolder()
    try:
        assert stat.S_IMODE(uploads.path.stat().st_mode) == 0o700
        inner = uploads.path / 'abc' / 'a.png'
        inner.parent.mkdir()
        inner.touch()
        foreign = tmp_path / 'foreign.png'
        foreign.touch()
        uploads.forget([inner, foreign, uploads.path / '..' / 'x', inner])
        assert list(uploads.path.iterdir()) == [] and foreign.exists()
    finally:
        uploads.close()
    assert not uploads.path.exists()


def test_what_waits_too_long_is_deleted() -> None:
    uploads = UploadFolder(keep_seconds=600)
    try:
        for name, age in (('old', 601), ('new', 599)):
            (uploads.path / name).mkdir()
            (uploads.path / name / 'a.png').touch()
            os.utime(uploads.path / name / 'a.png', (1e9 - age, 1e9 - age))
        uploads.sweep(now=1e9)
        assert [path.name for path in uploads.path.iterdir()] == ['new']
    finally:
        uploads.close()
