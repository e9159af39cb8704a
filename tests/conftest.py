"""Fixtures of the whole suite, and how its tests are spread over processes."""

from __future__ import annotations

import os

if 'PYTEST_XDIST_WORKER' in os.environ:
    # A process per core: threads of several processes would wait for each other. Set before torch
    # and OpenCV read it.
    os.environ['OMP_NUM_THREADS'] = '1'

import functools
import gc
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import mmengine.config.config
import mmengine.runner.runner
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

REPO = Path(__file__).resolve().parents[1]

if 'PYTEST_XDIST_WORKER' in os.environ:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)

# Each runner that is built asks the compilers for their versions and formats its config with yapf,
# several times. Both take longer than most tests. The versions stay the same while a process runs,
# and no test looks at the format.
mmengine.runner.runner.collect_env = functools.cache(mmengine.runner.runner.collect_env)
mmengine.config.config.FormatCode = lambda text, **style: (text, True)


def pytest_collection_finish() -> None:
    """Exempt imported modules from garbage collection, which every data set of MMEngine runs."""
    gc.collect()
    gc.freeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep tests together that share a fixture of their module, so that one process makes it once.

    pytest-xdist reads the mark with ``--dist loadgroup``. Any other test runs in whichever process
    is free.
    """
    shared = _module_fixtures(item)
    if shared:
        callspec = getattr(item, 'callspec', None)
        indices = callspec.indices if callspec is not None else {}
        chosen = [f'{name}{indices[name]}' for name in shared if name in indices]
        item.add_marker(pytest.mark.xdist_group('-'.join([item.parent.nodeid, *chosen])))


def _module_fixtures(item: pytest.Item) -> list[str]:
    """List the names of the module's fixtures that a test uses, itself or through another."""
    info = getattr(item, '_fixtureinfo', None)
    definitions: dict[str, Any] = {} if info is None else info.name2fixturedefs
    return sorted(name for name, (*_, last) in definitions.items() if last.scope == 'module')


@pytest.fixture(autouse=True)
def default_scope() -> Iterator[None]:
    """Run each test in mmdet's scope, as a run of mmdet does, and leave no scope behind."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture(autouse=True)
def no_log_without_folder() -> None:
    """Take the log files off MMEngine's loggers whose folders went with an earlier test.

    A handler that was closed since, as torch.compile does, would open its file again.
    """
    for logger in MMLogger._instance_dict.values():
        for handler in list(logger.handlers):
            if isinstance(handler, logging.FileHandler):
                if not Path(handler.baseFilename).parent.is_dir():
                    logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def no_unmarked_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only tests marked `subprocess` start another Python, so that the fast run stays fast."""
    if request.node.get_closest_marker('subprocess') is not None:
        return
    start = subprocess.Popen.__init__

    def checked(process: Any, args: Any, *rest: Any, **options: Any) -> None:
        words = [args] if isinstance(args, (str, os.PathLike)) else list(args)
        if str(words[0]) == sys.executable:
            pytest.fail('a test that starts Python needs `@pytest.mark.subprocess`')
        start(process, args, *rest, **options)

    monkeypatch.setattr(subprocess.Popen, '__init__', checked)


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Return the folder of real data that lies beside a checkout of the developers."""
    folder = REPO.parent / 'shared' / 'data'
    if not folder.is_dir():
        pytest.skip('real data absent: ../shared/data is not beside this checkout')
    return folder


@pytest.fixture(scope='session')
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny set of drawn shapes in COCO form."""
    from mmdet_ext.data.synthetic.shapes import make_shapes

    root = tmp_path_factory.mktemp('shapes') / 'shapes'
    make_shapes(root, train=8, val=4, width=96, height=72, seed=0, preview=False)
    return root
