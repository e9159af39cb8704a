"""A process that is killed while it writes leaves the last complete checkpoint, and it loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests._helpers.processes import run_python

WORKER = Path(__file__).with_name('checkpoint_kills.py')


@pytest.mark.subprocess
@pytest.mark.slow
def test_after_fifty_kills_the_latest_complete_checkpoint_loads(tmp_path: Path) -> None:
    run_python(WORKER, tmp_path, '0', cwd=tmp_path)
    found = json.loads((tmp_path / 'results.json').read_text())
    assert len(found) == 50
    assert not any(one['damaged'] for one in found)
    assert all(one['right'] for one in found if one['latest'])
    numbers = [one['latest'] for one in found]
    # What was complete before a kill stays: no run falls back behind the one before.
    assert numbers == sorted(numbers) and numbers[-1] > 0
    # Most processes write when they are killed.
    assert sum('.writing' in one['left'] for one in found) > 10
