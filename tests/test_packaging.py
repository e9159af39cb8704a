"""Tests of the sdist, the wheel built from it, and an editable install: contents and use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mmdet_ext.utils.families import DISTRIBUTIONS, installed_family
from mmdet_ext.version import __version__

ROOT = Path(__file__).resolve().parent.parent
CONFIG = 'configs/detection/atss/atss_r18_fpn_12e_bccd.py'
BUILD = 'import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))'

IMPORT_CONFIG = f"""
import sys
from pathlib import Path
import mmdet_ext
from mmengine.config import Config
folder = Path(mmdet_ext.__file__).parent
assert folder.is_relative_to(sys.prefix), folder
cfg = Config.fromfile(folder / '.mim' / '{CONFIG}')
print(mmdet_ext.__version__)
print(cfg.model.bbox_head.loss_bbox.type)
print(cfg.model.train_cfg.assigner.type)
print(cfg.model.backbone.depth, cfg.default_scope, cfg.train_cfg.max_epochs)
"""

FIND_PACKAGE = """
import mim.utils, mmengine.utils
print(mim.utils.get_installed_path('mmdet_ext'))
print(mmengine.utils.get_installed_path('mmdet_ext'))
"""


def call(command: list[str | Path], cwd: Path) -> str:
    """Run a command outside the source tree; return its stdout."""
    env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    # No package index is used: this environment has everything that a build needs.
    env |= {'PIP_NO_INDEX': '1', 'PIP_DISABLE_PIP_VERSION_CHECK': '1', 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'
    return done.stdout


def source_files() -> set[str]:
    """List the files of the source tree that git knows; skip the test without git."""
    listing = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip(f'{ROOT} is not a git checkout: no list of files to compare with')
    return {name for name in listing.stdout.splitlines() if (ROOT / name).is_file()}


def mim_files() -> set[str]:
    """List the files that `.mim` must hold."""
    return {
        name
        for name in source_files()
        if (name.startswith(('configs/', 'tools/')) or name == 'model-index.yml')
        and not Path(name).name.startswith('.')
    }


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the source tree, because builds leave files behind; add litter that must be left out."""
    copy = tmp_path_factory.mktemp('source') / 'checkout'
    for name in source_files():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    for litter in ('configs/__pycache__/a.pyc', 'tools/.swp', 'mmdet_ext/.mim/configs/stale.py'):
        (copy / litter).parent.mkdir(parents=True, exist_ok=True)
        (copy / litter).write_text('litter')
    return copy


@pytest.fixture(scope='module')
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution and unpack it."""
    folder = tmp_path_factory.mktemp('sdist')
    call([sys.executable, '-c', BUILD.format(hook='build_sdist'), folder], cwd=source)
    archive = folder / f'mmdet_ext-{__version__}.tar.gz'
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    return folder / f'mmdet_ext-{__version__}'


def build_wheel(source: Path, folder: Path) -> Path:
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-q']
    call([*command, '-w', folder, source], cwd=folder)
    return folder / f'mmdet_ext-{__version__}-py3-none-any.whl'


@pytest.fixture(scope='module')
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the sdist."""
    return build_wheel(sdist, tmp_path_factory.mktemp('wheel'))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if '.dist-info/' not in name}


def fresh_environment(folder: Path) -> Path:
    """Make a venv with the hosts of this environment but not this checkout; return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / 'bin' / 'python'
    here = call([sys.executable, '-c', 'import numpy; print(numpy.__path__[0])'], cwd=folder)
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    site = folder / 'lib' / version / 'site-packages'
    # A plain line with a path: Python does not read the .pth files of that folder, one of which
    # may belong to an editable mmdet_ext. The folder follows the venv's own site-packages.
    (site / 'hosts.pth').write_text(f'{Path(here.strip()).parent}\n')
    return python


def pip_install(python: Path, *what: str | Path) -> None:
    command = [sys.executable, '-m', 'pip', '--python', python, 'install', '-q', '--no-deps']
    call([*command, '--ignore-installed', '--no-build-isolation', *what], cwd=python.parent)


@pytest.mark.subprocess
def test_sdist_holds_the_files_of_a_build_and_the_mim_extension(sdist: Path) -> None:
    names = {path.relative_to(sdist).as_posix() for path in sdist.rglob('*') if path.is_file()}
    lists = {name for name in source_files() if name.startswith('requirements/')}
    wanted = {'LICENSE', 'README.md', 'setup.py', 'pyproject.toml', *lists, *mim_files()}
    assert wanted - names == set()
    in_package = {name.removeprefix('mmdet_ext/.mim/') for name in names if '.mim/' in name}
    assert in_package == mim_files()


@pytest.mark.subprocess
def test_wheel_holds_the_package_and_copies_of_configs_and_tools(wheel: Path) -> None:
    package = {
        name
        for name in source_files()
        if name.startswith('mmdet_ext/') and name.endswith(('.py', '/py.typed'))
    }
    assert package
    wanted = package | {f'mmdet_ext/.mim/{name}' for name in mim_files()}
    assert names_in(wheel) == wanted


@pytest.mark.subprocess
def test_metadata_of_the_wheel_have_the_mim_extension_too(wheel: Path) -> None:
    """onedl-mim takes the folder of metadata for the package: pip sorts the list of files."""
    folder = f'mmdet_ext-{__version__}.dist-info/.mim/'
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith(folder)}
        twins = {name: name.replace(folder, 'mmdet_ext/.mim/') for name in names}
        assert all(archive.read(name) == archive.read(twin) for name, twin in twins.items())
    assert {name.removeprefix(folder) for name in names} == mim_files()


def hosts_of_extras(wheel: Path) -> dict[str, set[str]]:
    """Return the hosts that each extra of a wheel names; the empty name is the wheel alone."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f'mmdet_ext-{__version__}.dist-info/METADATA').decode()
    metadata = Parser().parsestr(text, headersonly=True)
    needed = [Requirement(line) for line in metadata.get_all('Requires-Dist', [])]
    known = {name for families in DISTRIBUTIONS.values() for names in families for name in names}
    return {
        extra: {
            each.name
            for each in needed
            if each.name in known
            and (each.marker is None or each.marker.evaluate({'extra': extra}))
        }
        for extra in ('', *metadata.get_all('Provides-Extra', []))
    }


@pytest.mark.subprocess
def test_hosts_come_with_extras_and_no_extra_mixes_families(wheel: Path) -> None:
    named = hosts_of_extras(wheel)
    # Installed alone, the package brings no host: beside the forks it cannot overwrite one.
    assert {extra for extra, hosts in named.items() if not hosts} == {
        '',
        'deploy',
        'eval',
        'gallery',
        'page',
        'test',
        'dev',
        'docs',
    }
    assert named['det'] == {'mmengine', 'mmcv', 'mmdet'}
    assert named['cls'] == {'mmengine', 'mmcv', 'mmpretrain'}
    assert named['seg'] == {'mmengine', 'mmcv', 'mmsegmentation'}
    assert named['pose'] == {'mmengine', 'mmcv', 'mmdet', 'mmpose'} and 'onedl-pose' not in named
    assert named['face'] == {'mmengine', 'mmcv'} and named['mim'] == {'openmim'}
    assert named['all'] == set().union(*(named[name] for name in ('det', 'cls', 'seg', 'mim')))
    forks = {stock[0]: fork[0] for stock, fork in DISTRIBUTIONS.values() if fork}
    for extra in ('det', 'cls', 'seg', 'face', 'mim'):
        assert named[f'onedl-{extra}'] == {forks[name] for name in named[extra]}, extra
    assert named['onedl'] == {forks[name] for name in named['all']}


@pytest.mark.subprocess
def test_wheel_from_the_tree_equals_wheel_from_the_sdist(
    source: Path, wheel: Path, tmp_path: Path
) -> None:
    direct = build_wheel(source, tmp_path)
    assert names_in(direct) == names_in(wheel)
    with zipfile.ZipFile(direct) as one, zipfile.ZipFile(wheel) as two:
        assert all(one.read(name) == two.read(name) for name in names_in(wheel))


@pytest.mark.subprocess
def test_installed_wheel_gives_a_config_without_the_source_tree(
    wheel: Path, tmp_path: Path
) -> None:
    python = fresh_environment(tmp_path / 'env')
    pip_install(python, wheel)
    printed = call([python, '-c', IMPORT_CONFIG], cwd=tmp_path).splitlines()
    assert printed == [__version__, 'mmdet_ext.CIoULoss', 'mmdet_ext.ATSSAssigner', '18 mmdet 12']


@pytest.mark.subprocess
def test_mim_downloads_the_config_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip('mim')
    python = fresh_environment(tmp_path / 'env')
    pip_install(python, wheel)
    command = [python, '-m', 'mim', 'download', 'mmdet_ext', '--config', Path(CONFIG).stem]
    call([*command, '--dest', tmp_path / 'here'], cwd=tmp_path)
    text = (tmp_path / 'here' / Path(CONFIG).name).read_text()
    assert "type='mmdet_ext.ATSSAssigner'" in text


@pytest.mark.subprocess
def test_mim_finds_the_tools_of_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip('mim')
    python = fresh_environment(tmp_path / 'env')
    pip_install(python, wheel)
    in_mim, in_engine = map(Path, call([python, '-c', FIND_PACKAGE], cwd=tmp_path).split())
    assert in_engine.name == 'mmdet_ext'
    assert in_mim.name == (
        f'mmdet_ext-{__version__}.dist-info' if installed_family() == 'onedl' else 'mmdet_ext'
    )
    for folder in (in_mim, in_engine):
        assert {
            path.relative_to(folder / '.mim').as_posix()
            for path in (folder / '.mim').rglob('*')
            if path.is_file() and '__pycache__' not in path.parts
        } == mim_files()
    words = ['make_shapes', '--out', tmp_path / 'shapes', '--train', '1', '--val', '1']
    printed = call([python, '-m', 'mim', 'run', 'mmdet_ext', *words], cwd=tmp_path)
    assert f'{in_mim}/.mim/tools/data/make_shapes.py' in printed
    assert (tmp_path / 'shapes' / 'annotations').is_dir()


@pytest.mark.subprocess
def test_editable_install_is_found_by_the_hosts_and_follows_edits(
    source: Path, tmp_path: Path
) -> None:
    pytest.importorskip('mim')
    python = fresh_environment(tmp_path / 'env')
    pip_install(python, '-e', source)
    package = source / 'mmdet_ext'
    in_mim, in_engine = map(Path, call([python, '-c', FIND_PACKAGE], cwd=tmp_path).split())
    # onedl-mim looks for tools and configs in the checkout itself.
    assert in_mim == (source if installed_family() == 'onedl' else package)
    assert in_engine == package
    (source / 'configs' / 'added_later.py').write_text('answer = 42\n')
    assert (package / '.mim' / 'configs' / 'added_later.py').read_text() == 'answer = 42\n'
    assert not (package / '.mim' / 'configs' / 'stale.py').exists()


def test_model_index_is_valid_and_names_existing_configs() -> None:
    modelindex = pytest.importorskip('modelindex')
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    assert index.check(silent=True) == []
    configs = [model.config for model in index.models]
    assert CONFIG in configs
    assert [name for name in configs if not (ROOT / name).is_file()] == []
    assert [model.name for model in index.models] == [Path(name).stem for name in configs]
