"""Tests of the set-up: versions, keys of the cache, progress, and messages of failures."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = str(ROOT / 'tools')
# The tools import each other like scripts. The path is removed again, because it has a `test.py`.
sys.path.insert(0, TOOLS)
try:
    import setup_common
    import setup_compiler
    import setup_env
    import setup_hosts
    import setup_mmcv
    import setup_torch
finally:
    sys.path.remove(TOOLS)

CONSTRAINTS = (ROOT / 'requirements' / 'constraints.txt').read_text(encoding='utf-8')
Usage = namedtuple('Usage', 'total used free')


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv('MMDET_EXT_CACHE', str(tmp_path / 'cache'))
    yield tmp_path / 'cache'


#: What an index offers: releases, and what torchvision states about torch.
TORCHVISIONS = {
    '0.29.2': 'torch (>=2.14.0)',
    '0.29.1': 'torch (>=2.14.0)',
    '0.29.0': 'torch (==2.14.0)',
    '0.28.0': 'torch==2.13.0',
    '0.27.1': 'torch==2.12.1',
    '0.27.0': 'torch==2.12.0',
}


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Answer pip's questions as an index with these releases would; return the questions."""
    asked: list[tuple[str, ...]] = []
    releases = {
        'torch': '2.16.0rc1, 2.15.0, 2.14.1, 2.13.0',
        'torchvision': ', '.join(TORCHVISIONS),
    }

    def answer(_: Path, *words: str) -> str | None:
        asked.append(words)
        if words[:2] == ('index', 'versions'):
            return f'{words[2]} (x)\nAvailable versions: {releases[words[2]]}\n'
        stated = TORCHVISIONS.get(words[-1].removeprefix('torchvision==='))
        if stated is None:
            return None
        item = {'metadata': {'requires_dist': ['numpy', stated, "scipy; extra == 'scipy'"]}}
        return 'WARNING: a remark\n' + json.dumps({'install': [item]})

    monkeypatch.setattr(setup_torch, 'ask_pip', answer)
    return asked


@pytest.mark.parametrize(
    ('torch', 'vision'),
    [
        ('2.14.1', '0.29.1'),
        ('2.14.0', '0.29.0'),
        ('2.13.0', '0.28.0'),
        ('2.12.1', '0.27.1'),
        # No release of its own: the newest that admits it.
        ('2.14.3', '0.29.2'),
        ('2.15.0', '0.29.2'),
    ],
)
def test_torchvision_is_one_that_states_this_torch(
    torch: str, vision: str, index: list[tuple[str, ...]]
) -> None:
    assert setup_torch.choose_torchvision(Path('venv'), torch) == vision


@pytest.mark.parametrize('torch', ['2.12.9', '2.18.0', '2.13.0+cpu'])
def test_torch_without_a_torchvision_is_refused_with_the_newest_pair(
    torch: str, index: list[tuple[str, ...]]
) -> None:
    with pytest.raises(setup_common.SetupError) as caught:
        setup_torch.choose_torchvision(Path('venv'), torch)
    message = str(caught.value)
    assert message.startswith(f'TORCH={torch}: the package index offers no torchvision for it')
    assert message.endswith('The newest pair: TORCH=2.15.0, with torchvision 0.29.2')


def test_an_index_out_of_reach_is_not_taken_for_an_absent_torchvision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup_torch, 'ask_pip', lambda *_: None)
    with pytest.raises(setup_common.SetupError, match='lists no torchvision: check the network'):
        setup_torch.choose_torchvision(Path('venv'), '2.13.0')


@pytest.mark.parametrize(
    ('stated', 'torch', 'expected'),
    [
        ('torch (>=2.14.0)', '2.14.0', True),
        ('torch (>=2.14.0)', '2.13.0', False),
        ('torch==2.13.0', '2.13.0+cpu', True),
        ('torch>=2.4,<2.6', '2.5.1', True),
        ('torch>=2.4,<2.6', '2.6.0', False),
        ('torch<=2.6', '2.6.0', True),
        ('torch<=2.6', '2.6.1', False),
        ('torch!=2.5.0,>2.3', '2.5.0', False),
        ('torch==2.13', '2.13.0', True),
        ('torch', '2.1.0', True),
        ('torchdata==1.0', '2.1.0', False),
        ('torch~=2.1', '2.1.0', False),  # a form that no torchvision uses is no promise
    ],
)
def test_requirements_are_read_as_pip_reads_them(stated: str, torch: str, expected: bool) -> None:
    assert setup_torch.admits(['numpy', stated], torch) is expected


@pytest.mark.parametrize('torch', ['2.11', '1.13.1', '2.3.1', 'latest', '2.11.0; rm'])
def test_other_forms_of_a_torch_release_are_refused(torch: str) -> None:
    with pytest.raises(setup_common.SetupError, match=r'TORCH=.*three numbers, like TORCH=2.11.0'):
        setup_torch.check_torch(torch)


PINNED_TORCH = setup_env.pinned('torch', CONSTRAINTS)
PINNED_VISION = setup_env.pinned('torchvision', CONSTRAINTS)


def test_constraints_keep_all_lines_for_the_pinned_torch() -> None:
    lines = setup_env.effective_constraints(CONSTRAINTS, PINNED_TORCH, PINNED_VISION).splitlines()
    assert f'torch==={PINNED_TORCH}' in lines
    assert f'torchvision==={PINNED_VISION}' in lines
    assert 'sympy==1.14.0' in lines
    assert len(lines) == len(CONSTRAINTS.splitlines())


def test_constraints_drop_the_dependencies_of_another_torch() -> None:
    lines = setup_env.effective_constraints(CONSTRAINTS, '2.6.0', '0.21.0').splitlines()
    assert [line for line in lines if line.startswith('torch')] == [
        'torch===2.6.0',
        'torchvision===0.21.0',
    ]
    gone = {'sympy', 'mpmath', 'networkx', 'Jinja2', 'fsspec', 'filelock'}
    assert [line for line in lines if line.split('==')[0] in gone] == []
    assert 'mmdet==3.3.0' in lines


def test_pins_replace_the_lines_of_the_constraints() -> None:
    pins = ('opencv-python==4.14.0.94', 'PANDAS==2.2.3')
    text = setup_env.effective_constraints(CONSTRAINTS, PINNED_TORCH, PINNED_VISION, pins)
    lines = [line for line in text.splitlines() if line.lower().startswith(('opencv', 'pandas'))]
    assert lines == ['opencv-python==4.14.0.94', 'PANDAS==2.2.3']


@pytest.mark.parametrize('pin', ['opencv-python', 'torch==2.6.0', 'numpy>=2', 'a==1; x'])
def test_other_forms_of_a_pin_are_refused(pin: str) -> None:
    with pytest.raises(setup_common.SetupError, match='expected NAME==VERSION'):
        setup_env.check_pin(pin)


def test_families_have_the_same_modules_and_other_distributions() -> None:
    stock, forks = setup_hosts.STOCK, setup_hosts.ONEDL
    # MMPose has no fork.
    assert [m for m in stock.distributions if m != 'mmpose'] == list(forks.distributions)
    assert not set(stock.distributions.values()) & set(forks.distributions.values())
    assert str(setup_env.chosen_operators(stock, CONSTRAINTS)) == 'mmcv 2.1.0'
    assert str(setup_env.chosen_operators(forks, CONSTRAINTS)) == 'onedl-mmcv 2.3.6'
    assert setup_hosts.read_family('') is stock
    with pytest.raises(setup_common.SetupError, match='HOST=mine: expected one of stock, onedl'):
        setup_hosts.read_family('mine')


def test_lists_of_a_family_exist_and_name_no_package_of_another() -> None:
    for family in setup_hosts.FAMILIES.values():
        others = {
            name
            for other in setup_hosts.FAMILIES.values()
            for name in other.distributions.values()
            if other is not family
        }
        added = setup_hosts.choose_hosts(('all',), (), family)
        assert added == (('pose', 'seg') if family.name == 'stock' else ('seg',))
        own = [family.prefix + name for name in ('det', 'cls', 'mim', *added)]
        lists = family.lists(added)
        ours = ['face', 'deploy', 'eval', 'gallery', 'page', 'test', 'dev', 'docs']
        assert list(lists) == ['build', 'runtime', *own, *ours]
        for name in lists:
            text = (ROOT / 'requirements' / f'{name}.txt').read_text()
            named = {line.split('>')[0].split(';')[0].strip() for line in text.splitlines()}
            assert not named & others, name


def test_hosts_are_read_as_a_list() -> None:
    assert setup_hosts.read_hosts('') == ()
    assert setup_hosts.read_hosts(' seg, seg') == ('seg',)
    assert setup_hosts.read_hosts('seg pose,all') == ('all', 'pose', 'seg')
    with pytest.raises(setup_common.SetupError, match='HOSTS=seg,pos: pos unknown; .* seg, all'):
        setup_hosts.read_hosts('seg,pos')


def test_hosts_of_another_family_are_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = tmp_path / 'lib' / 'python3.11' / 'site-packages'
    for name in ('mmcv-2.1.0', 'mmengine-0.10.7', 'onedl_mim-0.5.1', 'mmcv_tools-1.0'):
        (packages / f'{name}.dist-info').mkdir(parents=True)
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(setup_env, 'run_pip', lambda _, *words: calls.append(words))
    setup_env.remove_other_families(tmp_path, setup_hosts.ONEDL)
    assert calls == [('uninstall', '-y', 'mmengine', 'mmcv')]
    assert 'holds hosts of stock, onedl is asked for' in capsys.readouterr().out
    setup_env.remove_other_families(tmp_path, setup_hosts.STOCK)
    assert calls[1:] == [('uninstall', '-y', 'onedl-mim')]
    # Where a module is there twice, uninstalling one takes files of the other: both go.
    (packages / 'onedl_mmcv-2.3.6.dist-info').mkdir()
    setup_env.remove_other_families(tmp_path, setup_hosts.STOCK)
    assert calls[2:] == [('uninstall', '-y', 'onedl-mmcv', 'onedl-mim', 'mmcv')]


@pytest.mark.parametrize('family', setup_hosts.FAMILIES.values(), ids=lambda family: family.name)
def test_constraints_pin_all_requirements_and_no_cuda_library(family: setup_hosts.Family) -> None:
    pins = [*CONSTRAINTS.splitlines(), *family.pins()]
    names = {line.split('==')[0].lower() for line in pins if '==' in line}
    for name in family.lists(setup_hosts.choose_hosts(('all',), (), family)):
        for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines():
            if line and not line.startswith('#'):
                assert line.split('>')[0].split('=')[0].split(';')[0].lower() in names, line
    assert [name for name in names if name.startswith(('nvidia', 'cuda', 'triton'))] == []


def test_fingerprint_differs_by_choice_and_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = setup_env.Choice()
    first = setup_env.digest('2.11.0', chosen)
    assert setup_env.digest('2.11.0', chosen) == first
    others = [
        setup_env.Choice(host='onedl'),
        setup_env.Choice(hosts=('seg',)),
        setup_env.Choice(pins=('opencv-python==4.14.0.94',)),
    ]
    prints = {setup_env.digest('2.11.0', other) for other in others}
    assert len(prints | {first, setup_env.digest('2.10.0', chosen)}) == 5
    monkeypatch.setattr(platform, 'python_version', lambda: '3.99.0')
    assert setup_env.digest('2.11.0', chosen) != first


def test_what_is_not_asked_for_stays_as_it_was_chosen() -> None:
    state = {'torch': '2.10.0', 'host': 'onedl', 'hosts': ['seg'], 'pins': ['numpy==2.2.6']}
    kept = setup_env.complete(setup_env.Choice(), state)
    assert kept == setup_env.Choice('2.10.0', 'onedl', ('seg',), ('numpy==2.2.6',))
    asked = setup_env.Choice(torch='2.13.0', host='stock')
    changed = setup_env.complete(asked, state)
    assert changed == setup_env.Choice('2.13.0', 'stock', ('seg',), ('numpy==2.2.6',))
    assert setup_env.complete(setup_env.Choice(), {}).host == 'stock'


def test_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('MMDET_EXT_CACHE', raising=False)
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    assert setup_mmcv.cache_root() == tmp_path / '.cache' / 'mmdet_ext'
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert setup_mmcv.cache_root() == tmp_path / 'xdg' / 'mmdet_ext'
    monkeypatch.setenv('MMDET_EXT_CACHE', '~/mine')
    assert setup_mmcv.cache_root() == tmp_path / 'mine'


def test_missing_compiler_is_reported_before_any_change(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    assert setup_env.main(['--venv', str(tmp_path / 'env')]) == 2
    message = capsys.readouterr().err
    standard = f'C++{setup_compiler.release_standard(PINNED_TORCH)}'
    assert message.startswith(f'error: no working {standard} compiler (tried c++, g++, clang++)')
    assert 'apt install g++' in message
    assert not (tmp_path / 'env').exists()


def test_a_cached_wheel_needs_no_compiler(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operators = setup_mmcv.Operators('mmcv', '2.1.0')
    key = setup_mmcv.wheel_key(operators, '2.11.0', 'cpu')
    (cache / 'wheels' / key).mkdir(parents=True)
    (cache / 'wheels' / key / 'mmcv-2.1.0-x.whl').touch()
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: Usage(0, 0, 10**12))
    setup_env.preflight(tmp_path / 'env', operators, '2.11.0')


def test_message_for_a_small_disk_has_free_and_needed_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: Usage(0, 0, 6_500_000_000))
    setup_env.check_disk([(tmp_path / 'a' / 'b', 6.0)])
    # Two folders on one file system share its space.
    with pytest.raises(setup_common.SetupError, match=r'6\.5 GB free, about 7\.0 GB needed'):
        setup_env.check_disk([(tmp_path / 'a', 6.0), (tmp_path / 'c', 1.0)])


def test_old_python_is_refused() -> None:
    setup_env.check_python((3, 10))
    with pytest.raises(setup_common.SetupError, match='Python 3.9 .* too old: 3.10 or newer'):
        setup_env.check_python((3, 9))


def test_failed_pip_shows_its_reason_alone(tmp_path: Path) -> None:
    python = tmp_path / 'bin' / 'python'
    python.parent.mkdir()
    noise = "WARNING: Location 'file:///x/' is ignored: it is neither a file nor a directory."
    reason = 'ERROR: No matching distribution'
    python.write_text(f'#!/bin/sh\necho "{noise}"\necho "{reason}"\nexit 1\n')
    python.chmod(0o755)
    with pytest.raises(setup_common.SetupError) as caught:
        setup_common.run_pip(tmp_path, 'install', 'anything')
    message = str(caught.value)
    assert 'package index could not be reached, or has no matching version' in message
    assert reason in message
    assert 'is ignored' not in message


def test_a_finished_environment_is_recognised_without_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError('went to work on a finished environment')

    monkeypatch.setattr(setup_env, 'preflight', fail)
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'python').touch()
    monkeypatch.setattr(setup_env, 'ROOT', tmp_path)
    monkeypatch.setattr(
        setup_env, 'digest', lambda torch, choice: f'print of {torch} {choice.hosts}'
    )
    (tmp_path / 'mmdet_ext' / '.mim' / 'configs').mkdir(parents=True)
    setup_env.write_state(tmp_path, {'torch': '2.10.0', 'done': 'print of 2.10.0 ()'})
    # The set-up keeps the torch that was chosen for this environment.
    assert setup_env.main(['--venv', str(tmp_path)]) == 0
    assert 'is up to date' in capsys.readouterr().out
    with pytest.raises(AssertionError, match='went to work'):
        setup_env.main(['--venv', str(tmp_path), '--torch', '2.11.0'])
    with pytest.raises(AssertionError, match='went to work'):
        setup_env.main(['--venv', str(tmp_path), '--hosts', 'seg'])


def test_make_refuses_an_absent_python_and_shows_help_by_default() -> None:
    if shutil.which('make') is None:
        pytest.skip('make is not installed')
    old = subprocess.run(
        ['make', 'env', 'PYTHON=no-such-python'], cwd=ROOT, capture_output=True, text=True
    )
    assert old.returncode == 2
    assert 'no working Python 3.10 or newer (tried: no-such-python)' in old.stderr
    # Some shells export HOST with the name of the machine.
    env = os.environ | {'HOST': 'my-machine'}
    asked = subprocess.run(
        ['make', '-n', 'env'], cwd=ROOT, env=env, capture_output=True, text=True
    ).stdout
    assert '--host ""' in asked
    asked = subprocess.run(
        ['make', '-n', 'test', 'HOST=onedl'], cwd=ROOT, env=env, capture_output=True, text=True
    ).stdout
    assert '--host "onedl" --hosts "all"' in asked
    shown = subprocess.run(['make'], cwd=ROOT, capture_output=True, text=True).stdout
    assert 'make test      Lint, types and all tests' in shown
