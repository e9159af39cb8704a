"""Drawn faces, a recogniser that compares their pixels, and a headless Chromium."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

THRESHOLD = 0.9
CHROMIUM, DRIVER = '/usr/bin/chromium', '/usr/bin/chromedriver'
FLAGS = (
    '--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync '
    '--disable-background-networking --disable-component-update --disable-default-apps '
    '--disable-dev-shm-usage --use-fake-device-for-media-stream --use-fake-ui-for-media-stream '
    '--window-size=1000,900'
)


class PixelEmbedder:
    """Recogniser whose embedding is a crop of 8 x 8 px without its mean."""

    recogniser, size = 'pixels 8 x 8', (8, 8)

    def embed_crops(self, crops: Sequence[np.ndarray], /) -> np.ndarray:
        small = [cv2.resize(crop, self.size, interpolation=cv2.INTER_AREA) for crop in crops]
        rows = np.stack(small).reshape(len(small), -1).astype(np.float32)
        return rows - rows.mean(1, keepdims=True)


def draw_face(identity: int, shot: int = 0, side: int = 160) -> np.ndarray:
    """Draw a face: features follow from the identity, noise and a shift from the shot."""
    person, noise = np.random.default_rng([identity]), np.random.default_rng([identity, shot])
    skin, hair, ground = person.integers(40, 230, (3, 3)).tolist()
    image = np.full((side, side, 3), ground, np.uint8)
    x, y = (side // 2 + noise.integers(-2, 3, 2)).tolist()
    wide, tall = (side * person.uniform(0.24, 0.36, 2) + (0, side * 0.08)).astype(int).tolist()
    cv2.ellipse(image, (x, y - side // 10), (wide + 8, tall + 4), 0, 180, 360, hair, -1)
    cv2.ellipse(image, (x, y), (wide, tall), 0, 0, 360, skin, -1)
    gap, size = int(wide * person.uniform(0.35, 0.6)), int(side * person.uniform(0.03, 0.06))
    for sign in (-1, 1):
        cv2.circle(image, (x + sign * gap, y - tall // 4), size, (20, 20, 20), -1)
    smile = int(tall * person.uniform(0.1, 0.3))
    cv2.ellipse(image, (x, y + tall // 3), (wide // 2, smile), 0, 0, 180, (30, 30, 120), 4)
    noisy = image + noise.normal(0, 6, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def write_face(folder: Path, name: str, identity: int, shot: int = 0) -> Path:
    """Write a drawn face, and return its file."""
    path = folder / name
    assert cv2.imwrite(str(path), draw_face(identity, shot))
    return path


def skip_without_browser() -> None:
    """Skip a test where Chromium, its driver or selenium is absent."""
    pytest.importorskip('selenium', reason='selenium is not installed')
    for program in (CHROMIUM, DRIVER):
        if shutil.which(program) is None:
            pytest.skip(f'{program} is absent: apt-get install chromium chromium-driver')
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        pytest.skip('Chromium reserves more address space than the limit (ulimit -v) leaves')


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Start Chromium with a new profile, and end it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS.split(), f'--user-data-dir={profile}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL', 'browser': 'ALL'})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_page_load_timeout(60)
        yield driver
    finally:
        driver.quit()


def requested_hosts(driver: Any) -> dict[str, str]:
    """Return each host that the page asked since the last call, with one of its addresses."""
    found = {}
    for entry in driver.get_log('performance'):
        message = json.loads(entry['message'])['message']
        if message['method'] == 'Network.requestWillBeSent':
            url = message['params']['request']['url']
            if urlsplit(url).scheme not in ('data', 'blob', 'chrome', 'about'):
                found[urlsplit(url).netloc] = url
    return found
