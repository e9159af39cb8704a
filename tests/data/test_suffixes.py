"""The one list of image suffixes, against what OpenCV and Pillow read here."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet_ext.data.suffixes import (
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    has_image_suffix,
    has_unread_suffix,
)

PACKAGE = Path(__file__).parents[2] / 'mmdet_ext'
#: Formats that an OpenCV may be built without.
BY_BUILD = {'.avif', '.webp', '.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx'}


def encoded(suffix: str) -> bytes | None:
    """Return a grey image in a format, or None if nothing here writes it."""
    pixels = np.full((24, 20), 90, np.uint8)
    # A .dib is a BMP with its header; Pillow's format DIB leaves the header out.
    writer = 'BMP' if suffix == '.dib' else Image.registered_extensions().get(suffix)
    if writer in Image.SAVE:
        stream = io.BytesIO()
        mode = 'RGB' if writer in ('AVIF', 'GIF', 'WEBP', 'EPS', 'QOI') else 'L'
        Image.fromarray(pixels).convert(mode).save(stream, writer)
        return stream.getvalue()
    if cv2.haveImageWriter(f'a{suffix}'):
        return cv2.imencode(suffix, cv2.merge([pixels] * 3))[1].tobytes()
    return None


@pytest.mark.parametrize('suffix', IMAGE_SUFFIXES)
def test_images_of_listed_suffixes_are_read(suffix: str) -> None:
    data = encoded(suffix)
    if data is None:
        pytest.skip(f'neither Pillow nor OpenCV writes {suffix} here')
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if read is None and suffix in BY_BUILD:
        pytest.skip(f'this OpenCV is built without {suffix}')
    assert read.shape == (24, 20, 3)
    assert np.abs(read.astype(int) - 90).max() <= 8
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == (20, 24)


@pytest.mark.parametrize('suffix', ['.tga', '.ico', '.pcx', '.dds', '.qoi', '.eps'])
def test_images_of_unread_suffixes_are_not_read(suffix: str) -> None:
    assert suffix in UNREAD_SUFFIXES
    data = encoded(suffix)
    if data is None:
        pytest.skip(f'Pillow does not write {suffix} here')
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None


def test_case_and_folders_do_not_matter() -> None:
    assert [has_image_suffix(name) for name in ('A.JPG', Path('x.png/b.Jpeg'), 'b.webp')] == [
        True,
        True,
        True,
    ]
    wrong = ('jpg', '.jpg', 'a.jpg.txt', 'a.jpg/b', 'a.HEIC', 'a.')
    assert not any(has_image_suffix(name) for name in wrong)
    assert has_unread_suffix('a.HEIC') and not has_unread_suffix('a.jpg')
    assert not set(IMAGE_SUFFIXES) & set(UNREAD_SUFFIXES)
    assert len(set(IMAGE_SUFFIXES)) == len(IMAGE_SUFFIXES)


def test_there_is_one_list() -> None:
    lists = [
        f'{path.relative_to(PACKAGE)}:{node.lineno}'
        for path in sorted(PACKAGE.rglob('*.py'))
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, (ast.Tuple, ast.List, ast.Set))
        and {'.jpg', '.png'} <= {one.value for one in node.elts if isinstance(one, ast.Constant)}
    ]
    assert lists == []
