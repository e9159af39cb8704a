"""Text of files whose encoding nobody has written down: lists of images, and xml.

A byte-order mark, the zero bytes of UTF-16 and UTF-32, and the strict form of UTF-8 are certain.
Older encodings, such as GBK and Shift JIS, read each other's bytes as other letters without an
error, so that one of them is taken only where the caller can judge the text. Standard library only.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmdet_ext.data.reports import LayoutError

#: Encodings that are tried where the bytes are not Unicode: the larger one of each family.
LEGACY = ('gb18030', 'big5hkscs', 'cp932', 'euc_jp', 'cp949', 'cp1252')

_MARKS = (  # UTF-32 first: its mark begins like that of UTF-16
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF32_LE, 'utf-32-le'),
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
_ASCII = re.compile('[\t\n\r -~]')
_CONTROLS = re.compile('[\x00-\x08\x0e-\x1f\x7f-\x9f]')


@dataclass(frozen=True)
class Decoded:
    """Text of some bytes, and the name of the encoding in which they were read."""

    text: str
    encoding: str


def read_text(path: Path, fits: Callable[[str], bool] | None = None) -> str:
    r"""Read a text file in an encoding that its bytes show.

    Args:
        path: The file.
        fits: Judge of a text, for bytes that may not be Unicode: the first text that fits is
            taken, in UTF-8 or one of the :data:`LEGACY` encodings. A list of images fits if its
            files exist.

    Returns:
        The text without byte-order marks; each line ends in ``\n``, also where the file has
        ``\r\n`` or ``\r``.

    Raises:
        LayoutError: If the bytes are in no encoding of Unicode and none of the others fits. The
            message names the file, the first such byte and the encodings that would read it.
        OSError: If the file cannot be read.
    """
    return decode_text(path.read_bytes(), str(path), fits).text


def decode_text(data: bytes, name: str, fits: Callable[[str], bool] | None = None) -> Decoded:
    """Decode bytes like :func:`read_text`.

    Args:
        data: Contents of a file.
        name: Name of the file in the message.
        fits: Judge of a text in an older encoding.

    Raises:
        LayoutError: As in :func:`read_text`.
    """
    found = unicode_form(data)
    if found:
        encoding, start = found
    else:
        encoding, start = 'utf-8', 0
        if b'\0' in data:
            raise LayoutError(
                f'{name} holds zero bytes (the first at byte {data.index(0)}) and is not UTF-16: '
                'it is damaged or not a text file; save it as UTF-8'
            )
    try:
        decoded = Decoded(_tidy(data[start:].decode(encoding)), encoding)
    except UnicodeDecodeError as error:
        if found:
            raise LayoutError(
                f'{name} begins as {encoding} but is not: {error.reason} at byte '
                f'{start + error.start}; save it as UTF-8'
            ) from error
        return _decode_legacy(data, name, error.start, fits)
    if found or fits is None or decoded.text.isascii() or fits(decoded.text):
        return decoded
    # Short words of GBK and others may be UTF-8 by accident.
    return next((form for form in legacy_forms(data) if fits(form.text)), decoded)


def unicode_form(data: bytes) -> tuple[str, int] | None:
    r"""Return the form of Unicode that bytes certainly have, and the length of their mark.

    Args:
        data: Contents of a text file.

    Returns:
        Encoding and number of bytes before the text, or None if neither a byte-order mark nor the
        zero bytes of UTF-16 and UTF-32 are there.

    >>> unicode_form(b'a\0b\0'), unicode_form(b'\xef\xbb\xbfa'), unicode_form(b'a')
    (('utf-16-le', 0), ('utf-8', 3), None)
    """
    for mark, encoding in _MARKS:
        # UTF-16 that begins with a zero character has the mark of UTF-32, but seldom its length.
        if data.startswith(mark) and (len(mark) < 4 or len(data) % 4 == 0):
            return encoding, len(mark)
    # A few zero bytes in UTF-8 are damage: UTF-16 has many, or bytes that are not UTF-8.
    if b'\0' not in data or (4 * data.count(0) < len(data) and _try_decode(data, 'utf-8', '')):
        return None
    # In the wrong order, letters and line ends are other characters, outside of ASCII.
    texts = {
        encoding: _try_decode(data, encoding)
        for encoding in ('utf-32-le', 'utf-32-be', 'utf-16-le', 'utf-16-be')
    }
    known = {
        encoding: (len(re.findall('[\\r\\n]', text)), len(_ASCII.findall(text)))
        for encoding, text in texts.items()
        if text
    }
    best = max(known, key=lambda encoding: known[encoding], default=None)
    return (best, 0) if best and any(known[best]) else None


def legacy_forms(data: bytes) -> list[Decoded]:
    """Decode bytes in each of the older encodings that reads them without control characters.

    >>> [form.encoding for form in legacy_forms('é!'.encode('cp1252'))]
    ['cp1252']
    """
    forms = []
    for encoding in LEGACY:
        try:
            text = _tidy(data.decode(encoding))
        except UnicodeDecodeError:
            continue
        if not _CONTROLS.search(text):
            forms.append(Decoded(text, encoding))
    return forms


def _try_decode(data: bytes, encoding: str, refused: str = '\0') -> str | None:
    """Decode bytes, or return None if they are not of the encoding or hold a refused character."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if refused and refused in text else text


def _decode_legacy(
    data: bytes, name: str, start: int, fits: Callable[[str], bool] | None
) -> Decoded:
    """Decode bytes that are not UTF-8 in the first older encoding whose text fits."""
    forms = legacy_forms(data)
    fitting = [form for form in forms if fits is not None and fits(form.text)]
    if fitting:
        return fitting[0]
    line = len(re.split(rb'\r\n?|\n', data[:start]))
    readable = ', '.join(form.encoding for form in forms)
    raise LayoutError(
        f'{name} is neither UTF-8 nor UTF-16: byte 0x{data[start]:02x} in line {line}; encodings '
        f'that read it: {readable or "none of " + ", ".join(LEGACY)}. Save the file as UTF-8'
    )


def _tidy(text: str) -> str:
    r"""Remove byte-order marks, also those of joined files, and end each line in ``\n``."""
    text = re.sub('\r\n?', '\n', text)
    return re.sub('(?m)^\ufeff+', '', text)
