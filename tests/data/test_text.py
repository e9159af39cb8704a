"""Tests of reading text in unknown encodings: read where it is certain, or named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdet_ext.data.reports import LayoutError
from mmdet_ext.data.text import decode_text, legacy_forms, read_text, unicode_form

UNICODE = 'utf-8 utf-8-sig utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be'.split()
LINES = 'cam1/f0\n\n猫/図 2\nфото\n'


@pytest.mark.parametrize('encoding', UNICODE)
@pytest.mark.parametrize('ending', ['\n', '\r\n', '\r'])
def test_forms_of_unicode_are_read_with_and_without_a_mark(
    tmp_path: Path, encoding: str, ending: str
) -> None:
    path = tmp_path / 'list.txt'
    path.write_bytes(LINES.replace('\n', ending).encode(encoding))
    assert read_text(path) == LINES


def test_marks_of_joined_files_are_removed() -> None:
    assert decode_text('a\n'.encode('utf-8-sig') * 2, 'x').text == 'a\na\n'


@pytest.mark.parametrize('encoding', ['utf-16-le', 'utf-16-be'])
def test_a_letter_with_a_zero_byte_does_not_change_the_order(encoding: str) -> None:
    assert unicode_form('一\n'.encode(encoding)) == (encoding, 0)


@pytest.mark.parametrize(
    ('encoding', 'text', 'named'),
    [('gbk', '照片', 'gb18030'), ('big5', '圖片', 'big5hkscs'), ('shift_jis', '画像', 'cp932')],
)
def test_older_encodings_are_named_and_read_where_the_text_fits(
    tmp_path: Path, encoding: str, text: str, named: str
) -> None:
    path = tmp_path / 'list.txt'
    path.write_bytes(f'a\n{text}\n'.encode(encoding))
    with pytest.raises(
        LayoutError, match=f'list.txt is neither UTF-8 nor UTF-16.* line 2.*{named}'
    ):
        read_text(path)
    assert read_text(path, lambda found: text in found) == f'a\n{text}\n'
    with pytest.raises(LayoutError, match='Save the file as UTF-8'):
        read_text(path, lambda found: False)


def test_bytes_that_are_two_encodings_are_read_as_the_one_that_fits() -> None:
    data = '猫'.encode('gbk')
    assert decode_text(data, 'x').text == 'è'
    assert decode_text(data, 'x', lambda text: text == '猫').encoding == 'gb18030'
    assert decode_text(data, 'x', lambda text: False).encoding == 'utf-8'


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (b'a\nb\n\0\0', 'zero bytes .the first at byte 4'),
        (b'\0\0\0\0', 'zero bytes'),
        (b'cam1/f0\ncam1\0f1\n', 'zero bytes .the first at byte 12'),
        (b'\xff\xfea', 'begins as utf-16-le but is not: truncated data at byte 2'),
        (b'\xef\xbb\xbf\xff', 'begins as utf-8 but is not: invalid start byte at byte 3'),
        (b'\x81\xff', 'encodings that read it: none of gb18030'),
    ],
)
def test_damaged_bytes_are_named(data: bytes, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        decode_text(data, 'x')


def test_empty_files_have_no_text() -> None:
    assert [decode_text(data, 'x').text for data in (b'', b'\xff\xfe', b'\xef\xbb\xbf')] == [''] * 3


def test_encodings_that_cannot_read_the_bytes_are_left_out() -> None:
    assert [form.encoding for form in legacy_forms('é!'.encode('cp1252'))] == ['cp1252']
