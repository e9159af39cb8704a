"""Import of `mmdet_ext.compat`: what it changes in a process, and a file that runs behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner import CheckpointLoader

import mmdet_ext.compat
from tests.compat.checkpoint_files import needs_torch_2_6
from tests.test_registry import REPO, fresh

IMPORTED = """
import json, sys
import mmdet_ext.compat
import torch
from mmengine.runner import CheckpointLoader
def state():
    return [CheckpointLoader._schemes[''].__module__, len(torch.serialization.get_safe_globals())]
once = state()
mmdet_ext.compat.install_safe_loading()
import mmdet_ext.registry
hosts = [name for name in ('mmdet', 'mmpretrain', 'mmcv') if name in sys.modules]
print(json.dumps([once, state() == once, hosts]))
"""


@needs_torch_2_6
@pytest.mark.subprocess
def test_the_import_installs_safe_loading_once_and_loads_no_detector() -> None:
    (loader, classes), same, hosts = fresh(IMPORTED)
    assert loader == 'mmdet_ext.compat.checkpoint' and classes > 10
    assert same and hosts == []


@pytest.mark.subprocess
@pytest.mark.parametrize('module', ['mmdet_ext.compat', 'mmdet_ext.registry'])
def test_an_absent_mmengine_is_named_with_the_packages_of_both_families(module: str) -> None:
    script = f"""
import json
try:
    import {module}
except ModuleNotFoundError as error:
    print(json.dumps([error.name, str(error)]))
"""
    name, message = fresh(script, 'mmengine')
    assert name == 'mmengine' and 'mmengine, which is not installed' in message
    assert "`pip install 'mmengine>=0.10.4,<1'`" in message
    assert '`pip install onedl-mmengine`' in message


@pytest.mark.subprocess
def test_an_absent_torch_is_named() -> None:
    script = """
import json
try:
    import mmdet_ext.compat
except ModuleNotFoundError as error:
    print(json.dumps([error.name, str(error)]))
"""
    name, message = fresh(script, 'torch')
    assert name == 'torch' and message.endswith('`pip install torch`')


def test_nothing_is_installed_before_torch_2_6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, '__version__', '2.5.1+cpu')
    monkeypatch.setitem(CheckpointLoader._schemes, '', print)
    mmdet_ext.compat.install_safe_loading()
    assert CheckpointLoader._schemes[''] is print


def run_file(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``python -m mmdet_ext.compat``."""
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mmdet_ext.compat', *map(str, words)],
        env={**os.environ, 'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=120,
    )


@needs_torch_2_6
@pytest.mark.subprocess
def test_a_file_runs_as_python_runs_it_and_checkpoints_load(
    stock_file: Path, tmp_path: Path
) -> None:
    (tmp_path / 'beside.py').write_text('NAME = "state_dict"\n')
    tool = tmp_path / 'tool.py'
    tool.write_text(
        'import sys, torch\nfrom beside import NAME\n'
        'if __name__ == "__main__":\n'
        '    print(sys.argv[2:], list(torch.load(sys.argv[1])[NAME]))\n'
    )
    done = run_file(tool, stock_file, '--option')
    assert done.stdout.splitlines()[-1:] == ["['--option'] ['weight']"], done.stderr


@pytest.mark.subprocess
def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run_file(tmp_path / 'no.py')
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert f'there is no file {str(tmp_path / "no.py")!r}' in done.stderr
