"""Server of the page: addresses, headers, uploads as paths; the tool that starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmdet_ext.face.page import FaceDesk
from mmdet_ext.face.recognition import FaceRecognizer
from tests._helpers.tools import TOOLS, load_tool
from tests.face.page.made import THRESHOLD, PixelEmbedder, write_face
from tests.face.recognition.networks import write_exported

pytest.importorskip('gradio', reason='gradio is not installed: extra page')

import mmdet_ext.face.page.server as server_module  # noqa: E402
from mmdet_ext.face.page.layout import Actions, paths_alone  # noqa: E402
from mmdet_ext.face.page.server import Guard, PageServer, is_local  # noqa: E402
from mmdet_ext.face.page.uploads import UploadFolder  # noqa: E402

main = load_tool('face/page.py').main
GUARD = Guard(None, ('127.0.0.1', 'localhost', '::1'), 1000)


@pytest.fixture
def actions(tmp_path: Path) -> Any:
    uploads = UploadFolder()
    recognizer = FaceRecognizer(PixelEmbedder(), threshold=THRESHOLD)
    yield Actions(FaceDesk(recognizer, tmp_path / 'gallery'), uploads)
    uploads.close()


@pytest.mark.parametrize(
    ('host', 'local'),
    [('127.0.0.1', True), ('127.8.0.1', True), ('::1', True), ('localhost', True)]
    + [('0.0.0.0', False), ('::', False), ('192.168.0.7', False), ('example.org', False)],
)
def test_local_addresses_are_distinguished(host: str, local: bool) -> None:
    assert is_local(host) is local


@pytest.mark.parametrize(
    ('path', 'headers', 'status'),
    [
        ('/', {'host': '127.0.0.1:7860'}, None),
        ('/', {'host': '[::1]:7860'}, None),
        ('/', {'host': 'localhost', 'origin': 'http://localhost', 'content-length': '1000'}, None),
        ('/', {'host': 'evil.example:7860'}, 403),
        ('/', {}, 403),
        ('/', {'host': 'localhost:7860', 'origin': 'http://evil.example'}, 403),
        ('/', {'host': 'localhost:7860', 'origin': 'http://localhost:8000'}, 403),
        ('/', {'host': 'localhost:7860', 'origin': 'null'}, 403),
        ('/', {'host': 'localhost', 'content-length': '1001'}, 413),
        ('/', {'host': 'localhost', 'content-length': '-1'}, 413),
        ('/', {'host': 'localhost', 'transfer-encoding': 'chunked'}, 411),
        ('/gradio_api/proxy=http://evil.example', {'host': 'localhost'}, 404),
        ('/gradio_api/file=http://evil.example', {'host': 'localhost'}, 404),
    ],
)
def test_requests_that_no_page_of_ours_sends_are_refused(
    path: str, headers: dict[str, str], status: int | None
) -> None:
    assert GUARD.verdict(path, headers)[0] == status


def test_a_proxy_is_answered_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guards = []
    monkeypatch.setattr(server_module.uvicorn, 'Config', lambda guard, **_: guards.append(guard))
    monkeypatch.setattr(server_module.uvicorn, 'Server', lambda _: SimpleNamespace())
    desk = FaceDesk(FaceRecognizer(PixelEmbedder()), tmp_path / 'gallery')
    PageServer(desk, port=0, names=['faces.example']).close()
    headers = {'host': 'faces.example', 'origin': 'https://faces.example'}
    assert guards[0].verdict('/', headers) == (None, '')
    assert guards[0].verdict('/', {'host': 'other.example'})[0] == 403


def test_another_address_answers_to_any_name() -> None:
    assert Guard(None, None, 1000).verdict('/', {'host': 'faces.example'}) == (None, '')


@pytest.mark.parametrize('address', ['http://127.0.0.1:1/a.png', 'https://evil.example/a.png'])
def test_an_address_in_place_of_an_upload_is_not_fetched(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gradio as gr

    def connect(*_: Any) -> None:
        raise AssertionError('a connection was made')

    for component in (gr.Image(), gr.File(file_count='multiple')):
        image = paths_alone(component)
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, 'connect', connect)
            with pytest.raises(gr.Error, match='upload it again'):
                asyncio.run(image.async_move_resource_to_block_cache(address))


def test_uploads_are_deleted_whether_the_request_succeeds_or_not(
    actions: Actions, tmp_path: Path
) -> None:
    folder = actions.uploads.path / 'abc'

    def upload(name: str, identity: int) -> Path:
        folder.mkdir(exist_ok=True)
        return write_face(folder, name, identity)

    text, image = actions.search([upload('a.png', 1)])
    assert 'unknown' in text and 'nobody is enrolled' in text and image is None
    done = actions.enrol('ann', [upload('a.png', 1)], [], False)
    assert 'class="refused"' in done[0] and done[1] == 'ann' and not folder.exists()
    done = actions.enrol('ann', [upload('a.png', 1)], [upload('b.png', 1)], True)
    assert 'ann is enrolled with 2 images' in done[0] and done[1:5] == ('', None, None, False)
    done = actions.enrol('unknown', [upload('a.png', 1)], [], True)
    assert 'class="refused"' in done[0] and actions.desk.people() == {'ann': 2}
    assert list(actions.uploads.path.iterdir()) == []


def test_names_cannot_bring_markup_into_the_page(actions: Actions, tmp_path: Path) -> None:
    name = '<img src=x onerror=alert(1)>'
    texts = [actions.enrol(name, [write_face(tmp_path, 'a.png', 1)], [], True)[0]]
    texts += [actions.search([write_face(tmp_path, 'b.png', 1, 1)])[0], actions.refresh()[0]]
    texts += [actions.remove(name)[0], actions.remove('<b>')[0]]
    assert all('&lt;' in text and '<img src=x' not in text and '<b>' not in text for text in texts)
    assert 'choose a person first' in actions.remove(None)[0]


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'give model, or config and checkpoint'),
        (['--model', 'absent.onnx'], 'absent.onnx'),
        (['--model', 'a', '--max-mb', '0'], 'max_bytes must be at least 1, got 0'),
        (['--model', 'a', '--max-mb', 'inf'], 'infinity'),
    ],
)
def test_bad_input_ends_in_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: Any
) -> None:
    assert main([str(tmp_path / 'gallery'), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and error.count('\n') == 1


def test_the_extra_is_named_where_gradio_is_absent(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'gradio', None)
    for module in ('server', 'layout'):
        monkeypatch.delitem(sys.modules, f'mmdet_ext.face.page.{module}')
    assert main([str(tmp_path), '--model', 'face.onnx']) == 2
    assert "pip install 'mmdet-ext[page]'" in capsys.readouterr().err


@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_tool_serves_until_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    model = write_exported(tmp_path / 'face.onnx')
    command = [sys.executable, '-W', 'ignore', str(TOOLS / 'face' / 'page.py')]
    command += [str(tmp_path / 'gallery'), '--model', str(model), '--port', '0']
    env = os.environ | {'PYTHONPATH': str(TOOLS.parent), 'TMPDIR': str(tmp_path)}
    with subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split(' ')[0]
        try:
            assert url.startswith('http://127.0.0.1:')
            with urllib.request.urlopen(url, timeout=30) as answer:
                assert answer.status == 200 and b'gradio' in answer.read()
                assert "default-src 'self'" in answer.headers['content-security-policy']
            (folder,) = tmp_path.glob('mmdet_ext_page_*')
            (folder / 'waiting.png').touch()
        finally:
            process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and errors == ''
    assert not list(tmp_path.glob('mmdet_ext_page_*'))


def test_other_addresses_are_served_with_a_warning(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PageServer, 'run', PageServer.close)
    for host, warned in (('0.0.0.0', True), ('127.0.0.1', False)):
        words = [str(tmp_path / 'gallery'), '--model', str(write_exported(tmp_path / 'face.onnx'))]
        assert main([*words, '--host', host, '--port', '0']) == 0
        printed = capsys.readouterr()
        assert printed.out.startswith(f'http://{host}:')
        assert ('warning: 0.0.0.0 can be reached by others' in printed.err) is warned
