"""Schemes of MMEngine: whatever names a checkpoint, it is loaded with the protection on.

OneDL's fork of MMEngine loads a file without it once it has refused the file with it, and stock
MMEngine loads a file of the web without it at once.
"""

from __future__ import annotations

import functools
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import mmengine.runner.checkpoint as host
import pytest
import torch
from mmengine.runner import CheckpointLoader

from tests._helpers.same import assert_same
from tests.compat.checkpoint_files import Call, needs_torch_2_6

pytestmark = needs_torch_2_6


class Quiet(SimpleHTTPRequestHandler):
    """Handler that logs nothing."""

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder that holds the files of a test."""
    (tmp_path / 'files').mkdir()
    return tmp_path / 'files'


@pytest.fixture
def address(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], str]]:
    """Serve the files of a test by every scheme; return what names a file by one of them."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    web = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('MMENGINE_HOME', str(folder))
    names = [f'{name}.pth' for name in ('stock', 'canary')]
    monkeypatch.setattr(host, 'get_torchvision_models', lambda: {n: f'{web}/{n}' for n in names})
    monkeypatch.setattr(host, 'get_mmcls_models', lambda: {n: f'{web}/{n}' for n in names})
    known = {**{f'web/{n}': f'{web}/{n}' for n in names}, **{n: n for n in names}}
    monkeypatch.setattr(host, 'get_external_models', lambda: known)
    monkeypatch.setattr(
        host,
        'get_file_backend',
        lambda uri, **_: SimpleNamespace(
            get=lambda path: (folder / path.rpartition('/')[2]).read_bytes()
        ),
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    prefixes = {'local': f'{folder}/', 'http': f'{web}/'}
    yield lambda scheme, name: prefixes.get(scheme, scheme) + name
    server.shutdown()
    server.server_close()
    thread.join()


WEB = ['http', 'torchvision://', 'open-mmlab://web/', 'mmcls://']
SCHEMES = ['local', *WEB, 'open-mmlab://', 's3://bucket/']


@pytest.mark.parametrize('scheme', SCHEMES)
def test_a_checkpoint_of_mmengine_is_loaded_by_every_scheme(
    scheme: str, address: Callable[[str, str], str], folder: Path, stock_file: Path
) -> None:
    (folder / 'stock.pth').write_bytes(stock_file.read_bytes())
    loaded = CheckpointLoader.load_checkpoint(address(scheme, 'stock.pth'), map_location='cpu')
    # This test wrote the file, so an unprotected load is safe and gives the reference.
    written = torch.load(stock_file, weights_only=False)
    if scheme == 'mmcls://':  # MMEngine returns the weights of the backbone alone; Toy has none
        assert loaded == {'state_dict': {}}
    else:
        assert_same(loaded, written)


@pytest.mark.parametrize('scheme', SCHEMES)
def test_other_content_is_refused_by_every_scheme_and_not_run(
    scheme: str, address: Callable[[str, str], str], folder: Path, tmp_path: Path
) -> None:
    canary = tmp_path / 'canary'
    torch.save({'state_dict': Call(os.mkdir, str(canary))}, folder / 'canary.pth')
    with pytest.raises((RuntimeError, pickle.UnpicklingError), match=f'{os.name}.mkdir'):
        CheckpointLoader.load_checkpoint(address(scheme, 'canary.pth'), map_location='cpu')
    assert not canary.exists()
    # An unprotected load does call the function.
    torch.load(folder / 'canary.pth', weights_only=False)
    assert canary.is_dir()


@pytest.mark.parametrize('scheme', ['local', *WEB])
def test_a_refusal_names_file_and_content(
    scheme: str, address: Callable[[str, str], str], folder: Path
) -> None:
    torch.save({'meta': Path('a')}, folder / 'canary.pth')
    with pytest.raises(RuntimeError, match=r"canary\.pth' was refused: it holds 'pathlib.*Path'"):
        CheckpointLoader.load_checkpoint(address(scheme, 'canary.pth'), map_location='cpu')


@pytest.mark.parametrize('way', ['load_from_local', 'load_from_http'])
def test_functions_of_mmengine_that_code_calls_itself_are_protected(
    way: str, address: Callable[[str, str], str], folder: Path
) -> None:
    torch.save({'meta': Path('a')}, folder / 'canary.pth')
    named = address('local' if way == 'load_from_local' else 'http', 'canary.pth')
    with pytest.raises((RuntimeError, pickle.UnpicklingError), match='Path'):
        getattr(host, way)(named, map_location='cpu')


def test_an_absent_file_of_the_web_is_an_error_of_the_web(
    address: Callable[[str, str], str],
) -> None:
    with pytest.raises(HTTPError, match='404'):
        CheckpointLoader.load_checkpoint(address('http', 'none.pth'), map_location='cpu')


def test_a_file_of_the_web_that_is_no_checkpoint_is_named(
    address: Callable[[str, str], str], folder: Path
) -> None:
    (folder / 'page.pth').write_text('<html>not found</html>')
    with pytest.raises(RuntimeError, match=r"page\.pth' cannot be loaded .* Is the file whole"):
        CheckpointLoader.load_checkpoint(address('http', 'page.pth'), map_location='cpu')


def test_a_file_of_the_web_is_fetched_once(
    address: Callable[[str, str], str], folder: Path, tmp_path: Path
) -> None:
    torch.save({'a': torch.ones(2)}, folder / 'once.pth')
    named = address('http', 'once.pth')
    first = CheckpointLoader.load_checkpoint(named, map_location='cpu')
    (folder / 'once.pth').unlink()
    assert_same(CheckpointLoader.load_checkpoint(named, map_location='cpu'), first)
    assert (tmp_path / 'torch' / 'hub' / 'checkpoints' / 'once.pth').is_file()
