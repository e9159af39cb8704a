"""Data that the tests of hosts share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

from mmdet_ext.data.synthetic.faces import make_faces


@pytest.fixture(scope='session')
def faces_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a few images of faces."""
    root = tmp_path_factory.mktemp('faces')
    make_faces(root)
    return root


@pytest.fixture(autouse=True)
def host_scope(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test in the scope of its module's host."""
    host = getattr(request.module, 'HOST', None)
    with DefaultScope.overwrite_default_scope(None if host is None else host.scope):
        yield
