"""Fixtures of the tests of data sets in COCO form."""

from __future__ import annotations

import functools
import http.server
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def data(shapes_root: Path, tmp_path: Path) -> Path:
    """Copy the drawn set for a test to change: 8 training and 4 validation images."""
    return Path(shutil.copytree(shapes_root, tmp_path / 'data'))


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """Collect the warnings of a test, as MMEngine's loggers do not reach `caplog`."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def url(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the data set over HTTP."""
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = functools.partial(QuietHandler, directory=str(data))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
