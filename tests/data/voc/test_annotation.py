"""Tests of the reader of one xml file: encodings, dialects, entities."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmdet_ext.data.coco.voc import convert_voc
from mmdet_ext.data.voc.annotation import VocAnnotation, read_annotation
from tests.data.coco.voc_builder import Voc, converted_boxes

BODY = (
    '<annotation><filename>{}.jpg</filename><size><width>9</width><height>8</height></size>'
    '<object><name>{}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>'
    '</bndbox></object></annotation>'
)
WRONG = 'xml in another encoding than declared'


def read(tmp_path: Path, data: bytes | str) -> VocAnnotation | str:
    path = tmp_path / 'a.xml'
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_annotation(path)


def names(found: VocAnnotation | str) -> list[str]:
    assert isinstance(found, VocAnnotation), found
    assert [item.corners for item in found.objects] == [(1, 2, 3, 4)]
    return [item.name for item in found.objects]


@pytest.mark.parametrize(
    ('declared', 'encoding', 'name'),
    [
        ('utf8', 'utf-8', '猫'),
        ('UTF8', 'utf-8', '猫'),
        ('UTF-8', 'utf-8-sig', '猫'),
        ('gb2312', 'gb2312', '猫'),
        ('gb2312', 'gbk', '朢镕'),
        ('GBK', 'gbk', '照片'),
        ('gb18030', 'gb18030', '𠀀'),
        ('cp936', 'gbk', '照片'),
        ('big5', 'big5', '圖片'),
        ('Big5', 'big5hkscs', '㗎'),
        ('shift_jis', 'shift_jis', '画像'),
        ('Shift_JIS', 'cp932', '①'),
        ('sjis', 'cp932', '表'),
        ('x-sjis', 'shift_jis', '表'),
        ('Windows-31J', 'cp932', '①'),
        ('euc-jp', 'euc_jp', '画像'),
        ('euc-kr', 'euc_kr', '고양이'),
        ('euc-kr', 'cp949', '뷁'),
        ('cp949', 'cp949', '뷁'),
        ('ks_c_5601-1987', 'euc_kr', '고양이'),
        ('cp1252', 'cp1252', '€ é'),
        ('windows-1251', 'cp1251', 'кот'),
        ('latin1', 'latin-1', 'é'),
        ('iso-2022-jp', 'iso2022_jp', '猫'),
        ('ISO-8859-1', 'cp1252', '€'),
        ('utf-16', 'utf-16', '猫'),
        ('utf-16', 'utf-16-le', '猫'),
        ('utf-16', 'utf-16-be', '猫'),
        ('UTF-16LE', 'utf-16-le', '猫'),
        ('unicode', 'utf-16', '猫'),
        ('utf-32', 'utf-32', '猫'),
        ('utf-8', 'utf-16', '猫'),
        ('gbk', 'utf-8-sig', '猫'),
        ('us-ascii', 'utf-8', '猫'),
    ],
)
@pytest.mark.parametrize('before', ['', '\n\n  '], ids=['', 'behind empty lines'])
def test_encodings_are_read(
    tmp_path: Path, declared: str, encoding: str, name: str, before: str
) -> None:
    text = f'{before}<?xml version="1.0" encoding="{declared}" ?>\n{BODY.format("f", name)}'
    found = read(tmp_path, text.encode(encoding))
    assert names(found) == [name]


@pytest.mark.parametrize(
    ('declared', 'name'), [('utf-16', '猫'), ('gbk', '猫咪'), ('latin1', 'é'), ('x-own', 'é')]
)
def test_utf8_under_another_declaration_is_read_and_noted(
    tmp_path: Path, declared: str, name: str
) -> None:
    found = read(tmp_path, f'<?xml version="1.0" encoding="{declared}"?>{BODY.format("f", name)}')
    assert names(found) == [name]
    assert isinstance(found, VocAnnotation)
    assert list(found.notes) == [WRONG] and declared in found.notes[WRONG][0]


@pytest.mark.parametrize('declaration', ['<?xml version="1.0" encoding="utf-8"?>', ''])
def test_bytes_that_are_not_of_the_declared_encoding_are_named(
    tmp_path: Path, declaration: str
) -> None:
    found = read(tmp_path, (declaration + BODY.format('f', '照片')).encode('gbk'))
    assert isinstance(found, str)
    assert found.startswith(f'{WRONG}: ') and 'gb18030' in found and 'utf-8' in found


def test_wrong_bytes_outside_of_class_names_are_read_and_noted(tmp_path: Path) -> None:
    found = read(tmp_path, BODY.format('照片', 'cat').encode('gbk'))
    assert names(found) == ['cat']
    assert isinstance(found, VocAnnotation) and list(found.notes) == [WRONG]


@pytest.mark.parametrize('declared', ['x-own', 'utf-7', 'unicode_escape', 'rot13', 'hex'])
def test_unknown_encodings_are_named(tmp_path: Path, declared: str) -> None:
    text = f'<?xml version="1.0" encoding="{declared}"?>' + BODY.format('f', '照片')
    found = read(tmp_path, text.encode('gbk'))
    assert found == f'xml in an unknown encoding: declared {declared!r}'


@pytest.mark.parametrize(
    'text',
    [
        BODY.replace('<annotation>', '<annotation xmlns="http://example.org/voc">'),
        BODY.replace('<', '<v:')
        .replace('<v:/', '</v:')
        .replace('<v:annotation>', '<v:annotation xmlns:v="http://example.org/voc">'),
        BODY.replace('annotation', 'Annotation'),
        BODY.upper().replace('.JPG', '.jpg'),
        BODY.replace('bndbox', 'BndBox').replace('object', 'Object').replace('xmin', 'XMin'),
        '<!-- a --><?own b?>' + BODY.replace('{}</name>', '{}<!-- c --></name>'),
        BODY.replace('{}</name>', '<![CDATA[{}]]></name>'),
        '<!DOCTYPE annotation>' + BODY,
        '<!DOCTYPE annotation SYSTEM "voc.dtd">' + BODY,
        '<!DOCTYPE annotation [<!ELEMENT annotation ANY>]>' + BODY,
        '<?xml version="1.1"?>' + BODY,
        BODY + '\n\0\0',
    ],
    ids=range(12),
)
def test_dialects_are_read(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text.format('f', 'cat'))
    assert names(found) == ['cat']
    assert isinstance(found, VocAnnotation)
    assert (found.filename, found.size, found.malformed) == ('f.jpg', (9, 8), [])


@pytest.mark.parametrize(
    ('doctype', 'name'),
    [
        ('[<!ENTITY c "cat">]', '&c;'),
        ('[<!ENTITY c "cat">]', 'cat'),
        ('[<!ENTITY % c "">]', 'cat'),
        ('[<!ENTITY c SYSTEM "other.txt">]', '&c;'),
        ('SYSTEM "voc.dtd"', '&c;'),
    ],
)
def test_entities_are_refused(tmp_path: Path, doctype: str, name: str) -> None:
    (tmp_path / 'other.txt').write_text('dog')
    found = read(tmp_path, f'<!DOCTYPE annotation {doctype}>{BODY.format("f", name)}')
    assert found == "xml with an entity: 'c' is never expanded; write its text instead"


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'empty file'),
        ('\0\0', 'no text'),
        ('\n \n', 'no text'),
        ('<annotation><object>', 'no element found: line 1'),
        (
            '<?xml version="1.0"?>\n<annotation>\n& x</annotation>',
            'not well-formed .invalid token.: line 3',
        ),
        ('<annotation>&nbsp;</annotation>', 'undefined entity'),
        ('<annotations/>', 'begins with <annotations>, not <annotation>'),
        ('{"a": 1}', 'not well-formed'),
    ],
)
def test_files_that_are_no_annotation_are_named(tmp_path: Path, text: str, message: str) -> None:
    found = read(tmp_path, text)
    assert isinstance(found, str) and found.startswith('xml unparsable: ')
    assert re.search(message, found)


@pytest.mark.parametrize(
    ('flag', 'is_difficult'),
    [('1', True), ('true', True), ('Yes', True), ('0', False), ('False', False), ('', False)],
)
def test_difficult_is_a_flag_in_any_words(tmp_path: Path, flag: str, is_difficult: bool) -> None:
    text = BODY.replace('<bndbox>', f'<difficult>{flag}</difficult><bndbox>')
    found = read(tmp_path, text.format('f', 'cat'))
    assert isinstance(found, VocAnnotation) and not found.notes
    assert [item.is_difficult for item in found.objects] == [is_difficult]


def test_reasons_are_counted_per_folder(voc: Voc, out: Path) -> None:
    voc.sample('a', ('cat', (1, 1, 9, 9)))
    for name, text in {
        'b': BODY.format('b', '照片'),
        'c': '<!DOCTYPE annotation [<!ENTITY c "cat">]>' + BODY.format('c', '&c;'),
        'd': BODY.replace('<bndbox>', '<difficult>maybe</difficult><bndbox>').format('d', 'cat'),
        'e': '<?xml version="1.0" encoding="own"?>' + BODY.format('e', 'cat'),
    }.items():
        voc.image(f'{name}.jpg')
        voc.raw_xml(name, text, encoding='gbk')
    voc.split('train', *'abcde')
    (report,) = convert_voc(voc.root, out)
    assert [name for name, *_ in converted_boxes(out)] == ['a.jpg', 'd.jpg', 'e.jpg']
    assert report.dropped_images['xml with an entity'][0].startswith("c: 'c' is never expanded")
    assert report.dropped_images[WRONG][0].startswith('b: no encoding declared')
    assert report.notes['difficult is no flag, taken as 0'] == ["d: object 1, 'maybe'"]
    assert report.notes[WRONG] == ["e: declared 'own', which is unknown, read as utf-8"]


BOX = '<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>'


def test_objects_in_one_element_are_read(tmp_path: Path) -> None:
    inside = ''.join(f'<object><name>{name}</name>{BOX}</object>' for name in ('cat', 'dog'))
    found = read(tmp_path, f'<annotation><objects>{inside}</objects></annotation>')
    assert isinstance(found, VocAnnotation)
    assert [item.name for item in found.objects] == ['cat', 'dog'] and not found.malformed


def test_boxes_outside_of_objects_are_counted_and_those_of_parts_are_not(tmp_path: Path) -> None:
    part = f'<part><name>head</name>{BOX}</part>'
    found = read(
        tmp_path,
        f'<annotation><object><name>person</name>{BOX}{part}</object>'
        f'<item><name>cat</name>{BOX}</item><item>{BOX}</item></annotation>',
    )
    assert names(found) == ['person'] and isinstance(found, VocAnnotation)
    assert found.malformed == ['bndbox 1 outside of <object>', 'bndbox 2 outside of <object>']


def test_a_name_in_several_lines_is_one(tmp_path: Path) -> None:
    xml = f'<annotation><object><name>\n  traffic\r\n  light </name>{BOX}</object></annotation>'
    assert names(read(tmp_path, xml)) == ['traffic light']


def test_a_long_text_in_place_of_a_number_is_shown_in_part(tmp_path: Path) -> None:
    box = BOX.replace('>3<', f'>{"9" * 5000}<')
    found = read(tmp_path, f'<annotation><object><name>cat</name>{box}</object></annotation>')
    assert isinstance(found, VocAnnotation)
    assert found.malformed == [f"object 1, bndbox/xmax is '{'9' * 40}'"]


def test_elements_in_elements_without_end_are_read(tmp_path: Path) -> None:
    deep = '<a>' * 20_000 + '</a>' * 20_000
    xml = f'<annotation>{deep}<object><name>cat</name>{BOX}</object></annotation>'
    assert names(read(tmp_path, xml)) == ['cat']
