"""Data that the tests of hosts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdet_ext.data.synthetic.faces import make_faces


@pytest.fixture(scope='session')
def faces_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a few images of faces."""
    root = tmp_path_factory.mktemp('faces')
    make_faces(root)
    return root
