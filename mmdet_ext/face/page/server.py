"""Server of the page: this machine alone by default, and nothing from or to elsewhere."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import uvicorn
from fastapi import FastAPI

from mmdet_ext.face.page.desk import FaceDesk
from mmdet_ext.face.page.layout import STYLE, build_page
from mmdet_ext.face.page.uploads import UploadFolder

_FOLDER_VARIABLE = 'GRADIO_TEMP_DIR'
_LOCAL_NAMES = ('127.0.0.1', 'localhost', '::1')
#: The browser refuses what these do not allow: no other host, no frame, the camera for us alone.
_HEADERS = {
    b'content-security-policy': (
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
        b"form-action 'self'; frame-ancestors 'none'; base-uri 'self'"
    ),
    b'permissions-policy': b'camera=(self), microphone=(), geolocation=()',
    b'referrer-policy': b'no-referrer',
    b'x-content-type-options': b'nosniff',
    b'cache-control': b'no-store',
}


class PageServer:
    """Server of the page of a `FaceDesk`.

    Without TLS and passwords, every program and user of the machine that reaches the address can
    enrol, list and delete. Serve another address than a local one only in a network that you trust,
    better behind a proxy that asks who it is. Browsers offer the webcam on local addresses and by
    https alone. Gradio binds itself to the first server: a process has one.

    Args:
        desk: does the work.
        host: address to serve; `is_local` says whether others can reach it.
        port: to serve; 0 for any free one.
        names: further names of the host that a request may have, such as that of a proxy before a
            local address; it must pass the header ``Host`` on.

    Attributes:
        desk: does the work.
        uploads: private folder of the uploads, deleted with the server.
        url: of the page.

    Raises:
        OSError: if the address cannot be served.
    """

    def __init__(
        self,
        desk: FaceDesk,
        host: str = '127.0.0.1',
        port: int = 7860,
        names: Sequence[str] = (),
    ) -> None:
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        port = self._socket.getsockname()[1]
        shown = f'[{host}]' if ':' in host else host
        self.url = f'http://{shown}:{port}/'
        self.desk = desk
        self.uploads = UploadFolder()
        self._outer_folder = os.environ.get(_FOLDER_VARIABLE)
        os.environ[_FOLDER_VARIABLE] = str(self.uploads.path)
        page = build_page(desk, self.uploads)
        limits = desk.limits
        app = gr.mount_gradio_app(
            FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
            page,
            path='',
            server_name=host,
            server_port=port,
            max_file_size=limits.max_bytes,
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            footer_links=[],
            css=STYLE,
            show_error=False,
        )
        guard = Guard(
            app,
            (*_LOCAL_NAMES, *names) if is_local(host) else None,
            (limits.max_files + 1) * limits.max_bytes,
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                guard, log_level='warning', access_log=False, timeout_graceful_shutdown=3
            )
        )
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until the process is interrupted or terminated; delete the uploads then."""
        if threading.current_thread() is threading.main_thread():
            # The server ends by itself, and raises the signal again: this keeps the process.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.close()

    def close(self) -> None:
        """Stop serving, and delete the uploads."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._socket.close()
        self.uploads.close()
        if self._outer_folder is None:
            os.environ.pop(_FOLDER_VARIABLE, None)
        else:
            os.environ[_FOLDER_VARIABLE] = self._outer_folder

    def __enter__(self) -> PageServer:
        """Serve in another thread, until the block ends."""
        self._thread = threading.Thread(
            target=self._server.run, kwargs={'sockets': [self._socket]}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Guard:
    """Application that refuses what no page of ours asks, and forbids the browser other hosts.

    A page of another site cannot make the browser act here: the header ``Host`` must be a local
    name, and ``Origin``, where there is one, must be that of the page.

    Args:
        app: the application behind it.
        names: accepted names of the host; None for any.
        most_bytes: largest body of a request.
    """

    def __init__(self, app: Any, names: tuple[str, ...] | None, most_bytes: int) -> None:
        self.app = app
        self.names = names
        self.most_bytes = most_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope['type'] == 'websocket':  # the page has none
            await send({'type': 'websocket.close', 'code': 1008})
            return
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        headers = {
            key.decode('latin-1'): value.decode('latin-1') for key, value in scope['headers']
        }
        status, reason = self.verdict(scope['path'], headers)
        if status is not None:
            start = {'type': 'http.response.start', 'status': status}
            plain = [(b'content-type', b'text/plain; charset=utf-8')]
            await send({**start, 'headers': [*plain, *_HEADERS.items()]})
            await send({'type': 'http.response.body', 'body': reason.encode()})
            return

        async def send_guarded(message: Any) -> None:
            if message['type'] == 'http.response.start':
                kept = [pair for pair in message['headers'] if pair[0].lower() not in _HEADERS]
                message = {**message, 'headers': [*kept, *_HEADERS.items()]}
            await send(message)

        await self.app(scope, receive, send_guarded)

    def verdict(self, path: str, headers: Mapping[str, str]) -> tuple[int | None, str]:
        """Return the status and the reason of a refusal; None and '' to pass a request on."""
        host = headers.get('host', '')
        if self.names is not None and urlsplit(f'//{host}').hostname not in self.names:
            return 403, 'this page answers by its local name alone'
        origin = headers.get('origin')
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, 'pages of other sites may not ask here'
        if 'transfer-encoding' in headers:
            return 411, 'an upload must state its length'
        length = headers.get('content-length', '0')
        if not length.isdigit() or int(length) > self.most_bytes:
            return 413, f'the upload is larger than {self.most_bytes} bytes'
        if '/proxy=' in path or '/file=http' in path:
            return 404, 'this page fetches nothing from elsewhere'
        return None, ''


def is_local(host: str) -> bool:
    """Return whether an address is reached by this machine alone.

    >>> is_local('127.0.0.1'), is_local('localhost'), is_local('0.0.0.0')
    (True, True, False)
    """
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
