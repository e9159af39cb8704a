"""Test of files that are written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_ext.utils.files import whole_file, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / 'deep' / 'a.json'
    write_json(path, {'a': 1})
    with pytest.raises(RuntimeError, match='half way'), whole_file(path) as part:
        part.write_text('{"a":')
        raise RuntimeError('half way')
    with pytest.raises(TypeError):
        write_json(path, {'a': object()})
    assert json.loads(path.read_text()) == {'a': 1}
    assert [entry.name for entry in path.parent.iterdir()] == ['a.json']
