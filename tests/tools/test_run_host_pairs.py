"""Running the tests on several sets of versions, and what is recorded of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests._helpers.tools import load_tool

run_host_pairs = load_tool('dev/run_host_pairs.py')

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a.test_b" name="one"/>
<testcase classname="tests.a.test_b" name="two[x-1]"><failure message="no"/></testcase>
<testcase classname="tests.a.test_b" name="three"><skipped message="absent"/></testcase>
<testcase classname="" name="four"><error message="at set-up"/></testcase>
</testsuite></testsuites>"""


def test_words_of_a_pair_become_options_of_the_set_up() -> None:
    words = ['python=python3.12', 'torch=2.13.0', 'host=onedl', 'opencv-python=4.14.0.94']
    pair = run_host_pairs.read_pair(words)
    command = run_host_pairs.set_up_command(pair, Path('env'))
    assert command[0] == 'python3.12'
    assert command[2:] == [
        '--venv',
        'env',
        '--hosts',
        'all',
        '--torch',
        '2.13.0',
        '--host',
        'onedl',
        '--pin',
        'opencv-python==4.14.0.94',
    ]
    plain = run_host_pairs.set_up_command({}, Path('env'))
    assert (plain[0], plain[2:]) == (sys.executable, ['--venv', 'env', '--hosts', 'all'])


@pytest.mark.parametrize('words', [['torch'], ['torch='], ['=2.13.0'], ['torch=2.1', 'torch=2.2']])
def test_other_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_host_pairs.main(['--pair', *words]) == 2
    assert f'error: --pair {" ".join(words)}: expected' in capsys.readouterr().err


def test_tests_are_counted_and_failures_named(tmp_path: Path) -> None:
    report = tmp_path / 'report.xml'
    report.write_text(REPORT)
    assert run_host_pairs.counts(report) == {
        'passed': 1,
        'failed': 2,
        'skipped': 1,
        'failures': ['test_b::two[x-1]', '::four'],
    }


@pytest.mark.parametrize(('code', 'written'), [(0, True), (1, True), (2, True), (1, False)])
def test_tests_that_did_not_run_to_their_end_leave_no_row(
    code: int, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted pytest writes a report of the tests that it ran, which is not all of them."""

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        if 'pytest' not in command:
            return SimpleNamespace(returncode=0)
        (report,) = [word for word in command if word.startswith('--junitxml=')]
        if written:
            Path(report.partition('=')[2]).write_text(REPORT)
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(run_host_pairs.subprocess, 'run', run)
    facts = json.dumps({'torch': '2.14.1'})
    monkeypatch.setattr(run_host_pairs.subprocess, 'check_output', lambda *_, **__: facts)
    if code < 2 and written:
        found = run_host_pairs.run_pair({}, tmp_path, 'fast', [])
        assert (found['passed'], found['failed'], found['torch']) == (1, 2, '2.14.1')
        assert found['note'] == 'test_b::two[x-1], ::four'
        return
    with pytest.raises(run_host_pairs.PairError, match='did not run to their end'):
        run_host_pairs.run_pair({}, tmp_path, 'fast', [])


def row(**changes: Any) -> dict[str, Any]:
    base = dict(host='stock', python='3.11.7', torch='2.14.1', torchvision='0.29.1', numpy='2.4.6')
    return {**base, 'opencv': '5.0.0.93', 'tests': 'all', 'passed': 10, **changes}


def test_a_new_run_replaces_the_row_of_the_same_versions_alone(tmp_path: Path) -> None:
    results = tmp_path / 'results' / 'hosts.json'
    for entry in (row(), row(torch='2.9.1'), row(tests='fast'), row(passed=12)):
        run_host_pairs.record(entry, results)
    rows = json.loads(results.read_text())
    assert [(r['torch'], r['tests'], r['passed']) for r in rows] == [
        ('2.9.1', 'all', 10),
        ('2.14.1', 'all', 12),
        ('2.14.1', 'fast', 10),
    ]


def test_an_environment_that_fails_leaves_no_row_and_the_next_pair_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(pair: dict[str, str], venv: Path, tests: str, only: list[str]) -> dict[str, Any]:
        assert venv.parent != tmp_path and not venv.exists()
        if pair['torch'] == '2.13.0':
            raise run_host_pairs.PairError('no such torch')
        return row(torch=pair['torch'], tests=tests, failed=0)

    monkeypatch.setattr(run_host_pairs, 'run_pair', run)
    results = tmp_path / 'hosts.json'
    pairs = ['--pair', 'torch=2.13.0', '--pair', 'torch=2.12.1', '--tests', 'fast']
    assert run_host_pairs.main([*pairs, '--results', str(results)]) == 2
    assert [r['torch'] for r in json.loads(results.read_text())] == ['2.12.1']
    shown = capsys.readouterr()
    assert 'pair 2/2: torch 2.12.1' in shown.out
    assert 'error: no such torch' in shown.err
