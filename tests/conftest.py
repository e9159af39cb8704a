"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def default_scope() -> Iterator[None]:
    """Each test runs in mmdet's scope, as a run of mmdet does, and leaves no scope behind."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """The folder of real data that lies beside a checkout of the developers."""
    folder = REPO.parent / 'shared' / 'data'
    if not folder.is_dir():
        pytest.skip('real data absent: ../shared/data is not beside this checkout')
    return folder


@pytest.fixture(scope='session')
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny set of drawn shapes in COCO form."""
    from mmdet_ext.data.synthetic.shapes import make_shapes

    root = tmp_path_factory.mktemp('shapes') / 'shapes'
    make_shapes(root, train=8, val=4, width=96, height=72, seed=0, preview=False)
    return root
