"""Tests of the two families of hosts: what is installed, and what is said when they are mixed."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from pathlib import Path

import pytest

from mmdet_ext.utils.families import (
    DISTRIBUTIONS,
    Installed,
    MixedFamiliesError,
    check_families,
    distribution_of,
    installed_family,
    installed_hosts,
)
from tests.test_registry import fresh

STOCK = ['mmengine-0.10.7.dist-info', 'mmcv-2.1.0.dist-info', 'mmdet-3.3.0.dist-info']
FORKS = [
    'onedl_mmengine-0.10.12.dist-info',
    'onedl_mmcv-2.3.6.dist-info',
    'onedl_mmdetection-3.5.1.dist-info',
]


def site(folder: Path, *names: str) -> str:
    """Make a folder with the metadata of packages, as pip leaves them; return its path."""
    for name in names:
        (folder / name).mkdir(parents=True)
    return os.path.realpath(folder)


@pytest.mark.parametrize(
    ('name', 'module', 'family'),
    [
        ('mmengine-0.10.7.dist-info', 'mmengine', 'stock'),
        ('mmengine_lite-0.10.7.dist-info', 'mmengine', 'stock'),
        ('onedl_mmengine-0.10.12.dist-info', 'mmengine', 'onedl'),
        ('mmcv-2.1.0-py3.11.egg-info', 'mmcv', 'stock'),
        ('mmcv_lite-2.1.0.dist-info', 'mmcv', 'stock'),
        ('onedl_mmcv_cu128_torch2_8-2.3.1.dist-info', 'mmcv', 'onedl'),
        ('mmdet.egg-info', 'mmdet', 'stock'),
        ('onedl_mmdetection-3.5.1.dist-info', 'mmdet', 'onedl'),
        ('mmsegmentation-1.2.2.dist-info', 'mmseg', 'stock'),
        ('mmpose-1.3.2.dist-info', 'mmpose', 'stock'),
        ('openmim-0.3.9.dist-info', 'mim', 'stock'),
        ('onedl_mim-0.5.1.dist-info', 'mim', 'onedl'),
    ],
)
def test_metadata_name_module_and_family(
    name: str, module: str, family: str, tmp_path: Path
) -> None:
    path = site(tmp_path, name, 'numpy-2.0.0.dist-info', 'mmdet_ext-0.1.0.dist-info')
    (found,) = installed_hosts([path])
    assert (found.module, found.family, found.folder) == (module, family, path)


@pytest.mark.parametrize('name', ['~mengine-0.10.7.dist-info', 'mmengine', 'mmengine.py'])
def test_other_names_are_no_packages(name: str, tmp_path: Path) -> None:
    assert installed_hosts([site(tmp_path, name)]) == []


def test_what_is_installed_here_is_what_importlib_finds() -> None:
    found = {host.name: host for host in installed_hosts()}
    for stock, forks in DISTRIBUTIONS.values():
        for name in (*stock, *forks):
            try:
                importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                assert name not in found
            else:
                assert name in found
    assert installed_family() in ('stock', 'onedl')
    assert distribution_of('mmdet') in found and distribution_of('mmengine') in found


@pytest.mark.parametrize(('names', 'family'), [(STOCK, 'stock'), (FORKS, 'onedl'), ([], None)])
def test_one_family_is_silent(
    names: list[str], family: str | None, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = [str(tmp_path / 'none'), site(tmp_path / 'site', *names, 'mim-1.0.dist-info')]
    check_families(path)
    assert installed_family(path) == family and len(recwarn) == 0


@pytest.mark.parametrize(('stock', 'fork'), list(zip(STOCK, FORKS, strict=True)))
def test_two_packages_of_one_module_are_an_error_that_names_both(
    stock: str, fork: str, tmp_path: Path
) -> None:
    path = site(tmp_path, *STOCK, fork)
    names = [name.partition('-')[0].replace('_', '-') for name in (stock, fork)]
    with pytest.raises(MixedFamiliesError, match='has overwritten files of the other') as caught:
        check_families([path])
    message = str(caught.value)
    assert f'{names[0]} and {names[1]} are both installed in {path}' in message
    assert f'`pip uninstall {names[0]} {names[1]}`' in message
    assert all(f'`pip install {name}`' in message for name in names)


def test_a_folder_that_comes_first_hides_the_other_family(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Stay silent where an environment lies over another one: no file is overwritten."""
    upper, lower = site(tmp_path / 'upper', *FORKS), site(tmp_path / 'lower', *STOCK)
    check_families([upper, lower])
    assert installed_family([upper, lower]) == 'onedl'
    assert installed_family([lower, upper]) == 'stock'
    # One folder by two names, such as lib64 beside lib, is one folder.
    (tmp_path / 'link').symlink_to(upper)
    check_families([str(tmp_path / 'link'), upper, lower])
    assert len(recwarn) == 0


def test_hosts_of_both_families_side_by_side_are_named(tmp_path: Path) -> None:
    path = site(tmp_path, STOCK[0], STOCK[1], FORKS[2])
    with pytest.warns(UserWarning, match='hosts of both families') as caught:
        check_families([path])
    message = str(caught[0].message)
    assert 'mmcv, mmengine of the stock family' in message
    assert 'onedl-mmdetection of the maintained forks' in message


def test_the_mim_of_the_other_family_alone_is_silent(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    check_families([site(tmp_path, *FORKS, 'openmim-0.3.9.dist-info')])
    assert len(recwarn) == 0


def test_the_first_distribution_of_a_module_counts(tmp_path: Path) -> None:
    upper = site(tmp_path / 'upper', FORKS[0])
    lower = site(tmp_path / 'lower', STOCK[0])
    assert installed_hosts([upper, lower]) == [
        Installed('mmengine', 'onedl', 'onedl-mmengine', upper),
        Installed('mmengine', 'stock', 'mmengine', lower),
    ]


BUILD = """
import json, sys
sys.path.insert(0, {path!r})
from mmengine.registry import MODELS
try:
    MODELS.build(dict(type='mmdet_ext.CIoULoss'))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.mark.subprocess
def test_a_config_that_names_a_type_of_ours_gets_the_message(tmp_path: Path) -> None:
    """Let the message through MMEngine, which hides an ImportError of a scope's registry."""
    path = site(tmp_path, STOCK[0], FORKS[0])
    kind, message = fresh(BUILD.format(path=path))
    assert kind == 'MixedFamiliesError'
    assert f'mmengine and onedl-mmengine are both installed in {path}' in message


def test_the_check_takes_milliseconds() -> None:
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        check_families()
        taken.append(time.perf_counter() - start)
    # About a millisecond; a slow disk is no fault.
    assert min(taken) < 0.05, f'{sys.path}: {taken}'
