"""Reader of one xml file of Pascal VOC form, in the encodings and dialects that programs write.

Entities are never expanded and never fetched: a file that declares one is refused.
"""

from __future__ import annotations

import codecs
import math
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from mmdet_ext.data.coco.values import read_flag, read_number
from mmdet_ext.data.text import legacy_forms, unicode_form

Box = tuple[float, float, float, float]

_DECLARATION = re.compile(r'\s*<\?xml\b[^>]*?(?:encoding\s*=\s*["\']([^"\']*)["\'][^>]*?)?\?>')
#: Declared name -> the larger encoding of its family, in which such files are written in fact.
_LARGER = {
    'gb2312': 'gb18030',
    'gbk': 'gb18030',
    'big5': 'big5hkscs',
    'shift_jis': 'cp932',
    'euc_kr': 'cp949',
    'iso8859-1': 'cp1252',
    'ascii': 'utf-8',
}
#: Names that Python does not know, and those of codecs that are no encoding of a file.
_OTHER_NAMES = {
    'x-sjis': 'shift_jis',
    'windows-31j': 'cp932',
    'windows-936': 'gbk',
    'x-gbk': 'gbk',
    'windows-950': 'cp950',
    'x-big5': 'big5',
    'windows-949': 'cp949',
    'x-windows-949': 'cp949',
    'ksc5601': 'euc_kr',
    'utf-8-bom': 'utf-8',
    'unicode': 'utf-16',
}
_NO_ENCODINGS = {'idna', 'punycode', 'unicode_escape', 'raw_unicode_escape', 'utf_7', 'undefined'}
_ASCII_TEXT = ''.join(map(chr, range(32, 127)))
_UNREAD = '\ufffd'


class XmlError(Exception):
    """An xml file that cannot be used; the message is the reason."""


@dataclass(frozen=True)
class VocObject:
    """Object of an annotation; ``corners`` are xmin, ymin, xmax, ymax as the file has them."""

    name: str
    corners: Box
    is_difficult: bool


@dataclass(frozen=True)
class VocAnnotation:
    """Content of one xml file.

    Attributes:
        filename: Name of the image that the file states, without folders; may be empty.
        size: Stated width and height of the image in pixels, as numbers or text, None for an
            absent one.
        objects: The objects that can be used.
        malformed: One line per object that cannot be used, with its number and problem.
        places: Paths of the image that the file states, with folders.
        notes: Details by reason of what is odd in the file but read.
    """

    filename: str
    size: tuple[Any, Any]
    objects: list[VocObject]
    malformed: list[str]
    places: list[str] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)


def read_annotation(path: Path) -> VocAnnotation | str:
    """Read one xml file, or return the reason why it cannot be read.

    Tags may be in any case and any namespace. Where the bytes are not of the declared encoding, the
    file is still read if the names of its classes are not affected.

    Args:
        path: The xml file.

    Returns:
        The annotation, or the reason, with the detail behind ``': '``.
    """
    try:
        data = path.read_bytes()
        text, oddity = decode_xml(data)
        root = _parse(text)
    except (XmlError, expat.ExpatError) as error:
        reason = f'{error}'
        return reason if isinstance(error, XmlError) else f'xml unparsable: {reason}'
    except OSError as error:
        return f'xml unreadable: {error.strerror}'
    if root.tag != 'annotation':
        return f'xml unparsable: begins with <{root.tag}>, not <annotation>'
    if any(_UNREAD in (item.findtext('name') or '') for item in _objects(root)):
        return f'xml in another encoding than declared: {oddity}; save it as utf-8'
    return _annotation(root, oddity)


def decode_xml(data: bytes) -> tuple[str, str]:
    """Decode the bytes of an xml file.

    Args:
        data: Contents of the file.

    Returns:
        The text without its declaration, and a remark if the declared encoding is not that of the
        bytes, or empty. Bytes that are of no certain encoding are replaced by U+FFFD.

    Raises:
        XmlError: If the file is empty or the bytes are of an encoding that is not known.
    """
    if not data.strip(b'\0 \t\r\n'):
        raise XmlError('xml unparsable: empty file' if not data else 'xml unparsable: no text')
    form = unicode_form(data)
    if form is None:
        data = data.rstrip(b'\0')
    head = data[form[1] if form else 0 :][:2000].decode(form[0] if form else 'latin-1', 'replace')
    found = _DECLARATION.match(head)
    declared = (found and found.group(1) or '').strip()
    if form:
        try:
            return _body(data[form[1] :].decode(form[0])), ''
        except UnicodeDecodeError as error:
            raise XmlError(
                f'xml unparsable: begins as {form[0]}, {error.reason} at byte {error.start}'
            ) from error
    text, oddity = _decode_declared(data, declared)
    return _body(text), oddity


def _decode_declared(data: bytes, declared: str) -> tuple[str, str]:
    """Decode bytes that are of an encoding which continues ASCII; see :func:`decode_xml`."""
    encoding = _encoding(declared) if declared else 'utf-8'
    utf8 = _try_decode(data, 'utf-8')
    if encoding is None:
        if utf8 is None:
            raise XmlError(f'xml in an unknown encoding: declared {declared!r}')
        return utf8, f'declared {declared!r}, which is unknown, read as utf-8'
    if encoding.startswith(('utf-16', 'utf-32')) and utf8 is not None:
        return utf8, f'declared {declared}, read as utf-8'
    if utf8 is not None and (encoding == 'utf-8' or _is_utf8(data, utf8, encoding)):
        differs = encoding != 'utf-8' and not utf8.isascii()
        return utf8, f'declared {declared}, read as utf-8' if differs else ''
    for name in (encoding, _LARGER.get(encoding, encoding)):
        text = _try_decode(data, name)
        if text is not None and not re.search('[\x80-\x9f]', text):
            return text, ''
    forms = ', '.join(form.encoding for form in legacy_forms(data)) or 'none that is known'
    said = f'declared {declared}' if declared else 'no encoding declared, which means utf-8'
    return data.decode('utf-8', 'replace'), f'{said}; encodings that read it: {forms}'


def _is_utf8(data: bytes, text: str, encoding: str) -> bool:
    """Return whether bytes that are UTF-8 are that rather than the declared encoding.

    Bytes of an encoding with one byte per letter are UTF-8 by accident next to never, those of one
    with two bytes only where each letter of the UTF-8 has two.
    """
    if encoding.startswith(('iso2022', 'hz')):  # which are written in ASCII alone
        return _try_decode(data, encoding) is None
    if text.isascii() or _try_decode(data, _LARGER.get(encoding, encoding)) is None:
        return True
    two_bytes = encoding in ('shift_jis', 'cp932') or encoding.startswith(
        ('gb', 'big5', 'euc', 'cp9', 'johab', 'hz')
    )
    return not two_bytes or any(letter > '\u07ff' for letter in text)


def _encoding(declared: str) -> str | None:
    """Return Python's name of a declared encoding, or None if there is no such encoding."""
    name = declared.lower().replace(' ', '-')
    name = _OTHER_NAMES.get(name, name)
    try:
        codec = codecs.lookup(name)
        if codec.name.replace('-', '_') in _NO_ENCODINGS:
            return None
        if not codec.name.startswith(('utf-16', 'utf-32', 'utf_16', 'utf_32')):
            continues_ascii = _ASCII_TEXT.encode('ascii').decode(name) == _ASCII_TEXT
            return codec.name if continues_ascii else None
        return codec.name.replace('_', '-')
    except (LookupError, ValueError):
        return None


def _try_decode(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _body(text: str) -> str:
    """Return the text with line ends in place of the declaration, which counts as read."""
    text = text.lstrip('\ufeff').rstrip()
    found = _DECLARATION.match(text)
    start = found.end() if found else len(text) - len(text.lstrip())
    return '\n' * text.count('\n', 0, start) + text[start:]


def _parse(text: str) -> ElementTree.Element:
    """Parse the body of an xml file to elements with small tags, without namespaces.

    Raises:
        XmlError: If the file declares an entity, or refers to one that it does not.
        expat.ExpatError: If it is no xml.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate('utf-8')

    def local(tag: str) -> str:
        return tag.rpartition(':')[2].lower()

    def refuse(name: str, *_: Any) -> None:
        raise XmlError(f'xml with an entity: {name!r} is never expanded; write its text instead')

    def start(tag: str, _: dict[str, str]) -> None:
        builder.start(local(tag), {})

    def end(tag: str) -> None:
        builder.end(local(tag))

    def refuse_external(context: str | None, *_: Any) -> int:
        refuse(context or 'external')
        return 0

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = parser.SkippedEntityHandler = refuse
    parser.ExternalEntityRefHandler = refuse_external
    parser.Parse(text.encode('utf-8', 'replace'), True)
    return builder.close()


def _annotation(root: ElementTree.Element, oddity: str) -> VocAnnotation:
    notes: dict[str, list[str]] = defaultdict(list)
    if oddity:
        notes['xml in another encoding than declared'].append(oddity)
    objects, malformed = [], []
    elements = _objects(root)
    for number, element in enumerate(elements, start=1):
        try:
            objects.append(_read_object(element))
        except ValueError as error:
            malformed.append(f'object {number}, {error}')
            continue
        flag = element.findtext('difficult')
        if read_flag(flag) is None:
            notes['difficult is no flag, taken as 0'].append(f'object {number}, {flag!r:.40}')
    inside = sum(len(list(element.iter('bndbox'))) for element in elements)
    outside = len(list(root.iter('bndbox'))) - inside
    malformed += [f'bndbox {number} outside of <object>' for number in range(1, outside + 1)]
    width, height = (root.findtext(f'size/{side}') for side in ('width', 'height'))
    filename, folder, path = (
        (root.findtext(tag) or '').strip() for tag in ('filename', 'folder', 'path')
    )
    base = re.split(r'[\\/]', filename)[-1].strip()
    places = [filename, *[f'{folder}/{base}'] * bool(folder), path]
    return VocAnnotation(
        base,
        (_size_side(width), _size_side(height)),
        objects,
        malformed,
        [place for place in places if re.search(r'[\\/]', place)],
        notes,
    )


def _objects(root: ElementTree.Element) -> list[ElementTree.Element]:
    """Return the objects, which some programs put into one element."""
    return [*root.findall('object'), *root.findall('objects/object')]


def _size_side(text: str | None) -> int | float | str | None:
    """Return a stated side as a number where it is one."""
    number = read_number(text)
    return number if number is not None else (text or '').strip() or None


def _read_object(element: ElementTree.Element) -> VocObject:
    name = re.sub(r'\s*\n\s*', ' ', (element.findtext('name') or '').strip())
    if not name:
        raise ValueError('no name')
    xmin, ymin, xmax, ymax = (
        _number_in(element, f'bndbox/{corner}') for corner in ('xmin', 'ymin', 'xmax', 'ymax')
    )
    return VocObject(name, (xmin, ymin, xmax, ymax), bool(read_flag(element.findtext('difficult'))))


def _number_in(element: ElementTree.Element, tag: str) -> float:
    text = (element.findtext(tag) or '').strip()
    number = read_number(text)
    if number is None or not math.isfinite(number):
        raise ValueError(f'{tag} is {text[:40]!r}' if text else f'no {tag}')
    return int(number) if float(number).is_integer() else number  # 5 is written as 5, not as 5.0
