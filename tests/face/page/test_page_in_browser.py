"""The page as a user has it, in a headless Chromium, with drawn faces."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from mmdet_ext.face.page import FaceDesk, Limits
from mmdet_ext.face.recognition import FaceRecognizer
from tests.face.page.made import (
    THRESHOLD,
    PixelEmbedder,
    chromium,
    draw_face,
    requested_hosts,
    skip_without_browser,
    write_face,
)
from tests.face.page.page_user import PageUser

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]


@pytest.fixture(scope='module')
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_browser()
    pytest.importorskip('gradio', reason='gradio is not installed: extra page')
    return tmp_path_factory.mktemp('profile')


@pytest.fixture(scope='module')
def browser(profile: Path) -> Iterator[Any]:
    with chromium(profile) as driver:
        yield driver


@pytest.fixture(scope='module')
def connections() -> Iterator[set[str]]:
    """Collect the addresses to which this process connects."""
    seen: set[str] = set()
    active = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event in ('socket.connect', 'socket.sendto'):
            address = arguments[1]
            seen.add(str(address[0]) if isinstance(address, tuple) else str(address))
        if active and event == 'socket.getaddrinfo':
            seen.add(str(arguments[0]))

    sys.addaudithook(hook)
    yield seen
    active.clear()


@pytest.fixture(scope='module')
def server(
    profile: Path, connections: set[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    from mmdet_ext.face.page.server import PageServer

    recognizer = FaceRecognizer(PixelEmbedder(), threshold=THRESHOLD)
    folder = tmp_path_factory.mktemp('served') / 'people.gallery'
    with PageServer(FaceDesk(recognizer, folder, Limits(2_000_000, 4_000_000)), port=0) as server:
        yield server
    assert not server.uploads.path.exists()


@pytest.fixture
def user(server: Any, browser: Any) -> PageUser:
    for name in server.desk.people():
        server.desk.remove(name)
    return PageUser(browser, server.url)


def test_people_are_enrolled_found_and_deleted(
    user: PageUser, server: Any, tmp_path: Path, connections: set[str]
) -> None:
    anna = [write_face(tmp_path, f'a{shot}.png', 1, shot) for shot in (0, 1)]
    bob = write_face(tmp_path, 'b.png', 2)

    user.fill_in('Änna <b>', anna)
    assert not user.all('#enrol')[0].is_enabled(), 'nobody is enrolled before the box is ticked'
    assert user.consent_and_enrol() == 'Änna <b> is enrolled with 2 images.'
    user.fill_in('Bob', [bob])
    assert user.consent_and_enrol() == 'Bob is enrolled with 1 image.'

    answer = user.search(write_face(tmp_path, 'third.png', 1, 2))
    assert answer.startswith('Found: Änna <b>')
    assert user.all('#found img')[0].get_attribute('src').startswith('data:image/jpeg')
    folder = os.environ.get('PAGE_SCREENSHOT')
    if folder:
        user.browser.save_screenshot(f'{folder}/search.png')
    assert user.search(write_face(tmp_path, 'stranger.png', 3)).startswith('Found: unknown')
    assert list(server.uploads.path.rglob('*')) == []

    user.tab('People')
    assert user.text('#people').splitlines() == ['Name Images', 'Änna <b> 2', 'Bob 1']
    if folder:
        user.browser.save_screenshot(f'{folder}/people.png')
    assert user.delete('Änna <b>') == 'Änna <b> is deleted, with the embeddings of 2 images.'
    user.until(lambda: 'Änna' not in user.text('#people'), 'list without the person')
    assert user.search(write_face(tmp_path, 'again.png', 1, 3)).startswith('Found: unknown')
    assert server.desk.people() == {'Bob': 1}

    assert set(requested_hosts(user.browser)) == {urlsplit(server.url).netloc}
    assert connections <= {'127.0.0.1', 'localhost', '::1'}, connections
    log = [entry['message'] for entry in user.browser.get_log('browser')]
    assert not [message for message in log if 'Content Security Policy' in message]


def test_what_is_refused_is_explained_on_the_page(
    user: PageUser, server: Any, tmp_path: Path
) -> None:
    text = tmp_path / 'notes.png'
    text.write_text('no image at all')
    assert 'notes.png is no image' in user.search(text)
    large = tmp_path / 'large.png'
    assert cv2.imwrite(str(large), np.zeros((2001, 2000, 3), np.uint8))
    assert 'large.png has 2000 x 2001 pixels' in user.search(large)
    cut = write_face(tmp_path, 'cut.png', 1)
    cut.write_bytes(cut.read_bytes()[:-2000])
    user.fill_in('Cy', [write_face(tmp_path, 'whole.png', 1), cut])
    answer = user.consent_and_enrol()
    assert answer.splitlines()[0] == 'Cy is enrolled with 1 image.'
    assert 'cut.png is damaged' in answer
    heavy = tmp_path / 'heavy.bmp'
    assert cv2.imwrite(str(heavy), draw_face(1, side=1000))
    assert heavy.stat().st_size > server.desk.limits.max_bytes
    user.tab('Search')
    user.all('#search_image input[type=file]')[0].send_keys(str(heavy))
    user.until(
        lambda: 'exceed the maximum allowed size' in user.text('body'), 'message on the size'
    )
    assert list(server.uploads.path.rglob('*')) == []
    assert server.desk.people() == {'Cy': 1}


def test_a_webcam_enrols_and_searches(user: PageUser, server: Any) -> None:
    user.fill_in('Dee')
    user.photograph()
    assert user.consent_and_enrol() == 'Dee is enrolled with 1 image.'
    assert server.desk.people() == {'Dee': 1}
    assert list(server.uploads.path.rglob('*')) == []
