"""Tests of image files: whole ones pass, cut ones are named, sizes equal those of the loader."""

from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet_ext.data import images
from mmdet_ext.data.images import (
    check_image,
    check_images,
    decode_image,
    find_bad_images,
    image_problem,
    image_size,
)

NO_END = 'truncated JPEG (no end marker)'


def noise_image(height: int = 120, width: int = 200) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    noise_image().save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_with_thumbnail() -> tuple[bytes, int]:
    """Return a JPEG whose header holds a whole small JPEG, and the offset behind the latter."""
    thumbnail = io.BytesIO()
    noise_image(24, 32).save(thumbnail, 'JPEG')
    payload = b'Exif\0\0' + thumbnail.getvalue()
    whole = encoded('JPEG')
    header = b'\xff\xe1' + (len(payload) + 2).to_bytes(2, 'big') + payload
    return whole[:2] + header + whole[2:], 2 + len(header)


@pytest.fixture
def file(tmp_path: Path):
    def write(content: bytes, name: str = 'image.jpg') -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    'content',
    [
        encoded('JPEG'),
        encoded('JPEG', progressive=True),
        encoded('PNG'),
        encoded('BMP'),
        jpeg_with_thumbnail()[0],
    ],
    ids=['jpeg', 'progressive', 'png', 'bmp', 'thumbnail'],
)
def test_whole_image_has_no_problem(file, content: bytes) -> None:
    assert image_problem(file(content)) is None


@pytest.mark.parametrize('junk', [10, 10_000])
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_bytes_behind_the_end_are_accepted(file, kind: str, junk: int) -> None:
    path = file(encoded(kind) + b'x' * junk)
    assert image_problem(path) is None
    assert cv2.imread(str(path)).shape == (120, 200, 3)


@pytest.mark.parametrize('progressive', [False, True])
@pytest.mark.parametrize('padding', [0, 100_000], ids=['cut', 'cut and filled with zeros'])
def test_jpeg_cut_at_60_percent(file, progressive: bool, padding: int) -> None:
    whole = encoded('JPEG', progressive=progressive)
    path = file(whole[: len(whole) * 6 // 10] + bytes(padding))
    assert image_problem(path) == NO_END


def test_jpeg_without_its_last_two_bytes_is_truncated(file) -> None:
    assert image_problem(file(encoded('JPEG')[:-2])) == NO_END


@pytest.mark.parametrize('kept', [0, 300, 2000], ids=['behind it', 'in the header', 'in the scan'])
def test_end_of_the_thumbnail_is_not_the_end_of_the_image(file, kept: int) -> None:
    content, behind = jpeg_with_thumbnail()
    cut = content[: behind + kept]
    assert b'\xff\xd9' in cut[-4096:]  # so the end of the file alone would look whole
    assert image_problem(file(cut)) == NO_END
    with pytest.raises(ValueError, match=re.escape(NO_END)):
        decode_image(cut)
    assert decode_image(content).shape == (120, 200, 3)


@pytest.mark.parametrize('share', [0.6, 0.999])
def test_cut_png(file, share: float) -> None:
    whole = encoded('PNG')
    path = file(whole[: int(len(whole) * share)], 'image.png')
    assert image_problem(path) == 'truncated PNG (no end marker)'


def test_cut_bmp_is_found_by_decoding(file) -> None:
    problem = image_problem(file(encoded('BMP')[:5000], 'image.bmp'))
    assert problem is not None and problem.startswith('cannot be decoded (')


def test_other_files_are_not_images(file, tmp_path: Path) -> None:
    assert image_problem(file(b'these are words, not pixels')) == 'not an image'
    assert image_problem(file(b'')) == 'empty file'
    assert image_problem(file(b'\xff\xd8garbage\xff\xd9')) == 'broken JPEG header'
    assert image_problem(tmp_path / 'absent.jpg') == 'missing'
    assert image_problem(tmp_path) == 'not a file'


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_size_equals_that_of_the_loader(file, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = file(encoded(kind, exif=exif))
    if kind == 'JPEG':  # older OpenCV turns JPEG only
        assert image_size(path) == cv2.imread(str(path)).shape[1::-1]
    assert image_size(path) == ((200, 120) if orientation < 5 else (120, 200))


@pytest.mark.parametrize('turned', [True, False], ids=['turned', 'as stored'])
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF', 'MPO'])
@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_size_of_every_format_is_that_of_opencv(
    file, kind: str, orientation: int, turned: bool
) -> None:
    """Releases of OpenCV and Pillow differ in the formats that they turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = file(encoded(kind, exif=exif), 'image')
    flags = cv2.IMREAD_COLOR | (0 if turned else cv2.IMREAD_IGNORE_ORIENTATION)
    loaded = cv2.imdecode(np.fromfile(path, np.uint8), flags).shape[1::-1]
    assert image_size(path, turned=turned) == loaded
    assert check_image(path, turned=turned) == (None, loaded)


def test_a_turn_in_xmp_alone_and_a_damaged_tag_turn_nothing(file) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    for options in ({'xmp': xmp}, {'exif': b'Exif\0\0no table of tags'}):
        path = file(encoded('JPEG', **options))
        assert image_size(path) == cv2.imread(str(path)).shape[1::-1] == (200, 120)


def test_a_png_is_not_decoded_for_its_size(file, monkeypatch) -> None:
    from PIL.PngImagePlugin import PngImageFile

    path = file(encoded('PNG'))
    monkeypatch.setattr(PngImageFile, 'load', None)
    assert check_image(path) == (None, (200, 120))


def test_many_images_are_checked_and_measured_once_each(file, tmp_path: Path, monkeypatch) -> None:
    good, cut = file(encoded('BMP'), 'a.bmp'), file(encoded('PNG')[:-20], 'b.png')
    absent = tmp_path / 'no.jpg'
    opened: list[object] = []
    monkeypatch.setattr(
        images,
        'check_image',
        lambda path, **how: (opened.append(path), check_image(path, **how))[1],
    )
    assert check_images([good, cut, absent, good]) == {
        good: (None, (200, 120)),
        cut: ('truncated PNG (no end marker)', None),
        absent: ('missing', None),
    }
    assert sorted(opened) == [good, cut, absent]
    assert image_problem('a\0b.jpg') == 'missing'


def test_bad_images_keep_the_order_of_the_paths(file, tmp_path: Path) -> None:
    paths = [
        file(encoded('JPEG') if number % 3 else encoded('JPEG')[:900], f'{number}.jpg')
        for number in range(20)
    ]
    paths.insert(4, tmp_path / 'absent.jpg')
    bad = find_bad_images(paths, workers=4)
    names = [(path.name, problem) for path, problem in bad.items()]
    assert names == [
        ('0.jpg', NO_END),
        ('3.jpg', NO_END),
        ('absent.jpg', 'missing'),
        *((f'{number}.jpg', NO_END) for number in (6, 9, 12, 15, 18)),
    ]
    with pytest.raises(ValueError, match='workers is 0'):
        find_bad_images(paths, workers=0)


def test_progress_line_appears_for_many_images_only(file, monkeypatch, capsys) -> None:
    paths = [file(encoded('JPEG'), f'{number}.jpg') for number in range(6)]
    paths.append(paths[0].with_name('absent.jpg'))
    find_bad_images(paths)
    assert capsys.readouterr().err == ''
    monkeypatch.setattr(images, '_PROGRESS_FROM', 6)
    monkeypatch.setattr(images, '_PROGRESS_STEP', 5)
    find_bad_images(paths)
    assert capsys.readouterr().err == (
        '\rchecked 5 of 7 images, 0 bad\rchecked 7 of 7 images, 1 bad\n'
    )
