"""Tests of the hosts that a set-up adds: which, and MMPose's own way of installation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = str(ROOT / 'tools')
# The tools import each other like scripts. The path is removed again, because it has a `test.py`.
sys.path.insert(0, TOOLS)
try:
    import setup_common
    import setup_env
    import setup_hosts
finally:
    sys.path.remove(TOOLS)


def test_hosts_are_added_to_those_of_an_environment() -> None:
    stock, forks = setup_hosts.STOCK, setup_hosts.ONEDL
    assert setup_hosts.choose_hosts(('pose',), ('seg',), stock) == ('pose', 'seg')
    assert setup_hosts.choose_hosts((), ('seg',), stock) == ('seg',)
    assert setup_hosts.choose_hosts((), (), stock) == ()
    # The forks have no MMPose: it is dropped where it is left from the stock packages.
    assert setup_hosts.choose_hosts((), ('pose', 'seg'), forks) == ('seg',)
    assert setup_hosts.choose_hosts(('all',), ('pose',), forks) == ('seg',)
    with pytest.raises(setup_common.SetupError, match='HOSTS=pose: onedl has no mmpose; .* seg, a'):
        setup_hosts.choose_hosts(('pose',), (), forks)


def test_mmpose_is_installed_without_chumpy_and_xtcocotools_from_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(setup_env, 'run_pip', lambda _, *words: calls.append(words))
    setup_env.install_pose(tmp_path, ('-c', 'pins'))
    # Its build needs Cython first, and the NumPy of the environment.
    assert calls[0] == ('install', 'cython', '-c', 'pins')
    assert calls[1][:2] == ('install', '--no-deps') and '--no-build-isolation' in calls[1]
    assert calls[1][-4:] == ('-r', f'{ROOT}/requirements/pose.txt', '-c', 'pins')
    lines = (ROOT / 'requirements' / 'pose.txt').read_text()
    assert 'mmpose' in lines and 'munkres' in lines and 'chumpy' not in lines
