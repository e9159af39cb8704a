"""Tests of the build of mmcv's operators: C++ standards, failures, keys and progress."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = str(ROOT / 'tools')
# The tools import each other like scripts. The path is removed again, because it has a `test.py`.
sys.path.insert(0, TOOLS)
try:
    import setup_common
    import setup_compiler
    import setup_mmcv
    import setup_sdist
    import setup_units
finally:
    sys.path.remove(TOOLS)

MMCV = setup_mmcv.Operators('mmcv', '2.1.0')
FORK = setup_mmcv.Operators('onedl-mmcv', '2.3.6')
CSRC = 'mmcv/ops/csrc/pytorch'
SETUP = """
from setuptools import Extension, setup
import glob
files = glob.glob('./mmcv/ops/csrc/pytorch/*.cpp') + \\
    glob.glob('./mmcv/ops/csrc/pytorch/cpu/*.cpp')
flags = ['-std=c++14'] if old else ['/std:c++17']
"""
needs_compiler = pytest.mark.skipif(shutil.which('c++') is None, reason='no C++ compiler')


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv('MMDET_EXT_CACHE', str(tmp_path / 'cache'))
    yield tmp_path / 'cache'


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write files of operators into a folder such as an unpacked distribution."""
    for name, text in files.items():
        path = root / CSRC / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / 'setup.py').write_text(SETUP)
    return root


# The standard and the compiler


@pytest.mark.parametrize(
    ('torch', 'standard'),
    [('2.4.0', 17), ('2.11.0+cpu', 17), ('2.12.0', 20), ('2.13.0', 20), ('2.14.1', 20)],
)
def test_standard_follows_from_the_release_before_torch_is_installed(
    torch: str, standard: int
) -> None:
    assert setup_compiler.release_standard(torch) == standard


def test_standard_is_that_of_the_installed_torch(tmp_path: Path) -> None:
    file = tmp_path / 'lib' / 'python3.11' / 'site-packages' / 'torch/utils/cpp_extension.py'
    file.parent.mkdir(parents=True)
    # torch 2.11 shows C++20 in an example, and passes C++17.
    file.write_text(
        "    extra_compile_args={'cxx': ['-g', '-std=c++20', '-fPIC']})\n"
        "    common_cflags += ['-std=c++17', '-fPIC']\n"
    )
    assert setup_compiler.installed_standard(tmp_path, '2.11.0') == 17
    file.write_text("    common_cflags += ['-std=c++23', '-fPIC']\n")
    assert setup_compiler.installed_standard(tmp_path, '2.14.1') == 23
    file.write_text('')
    assert setup_compiler.installed_standard(tmp_path, '2.14.1') == 20


def test_standard_of_this_torch_is_read_from_its_files() -> None:
    torch = pytest.importorskip('torch')
    venv = Path(torch.__file__).parents[4]
    found = setup_compiler.installed_standard(venv, '2.0.0')
    assert found == setup_compiler.release_standard(torch.__version__)


@pytest.mark.parametrize('standard', [17, 20])
def test_a_broken_compiler_is_refused(
    standard: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / 'broken++'
    broken.write_text('#!/bin/sh\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv('CXX', str(broken))
    expected = rf'no working C\+\+{standard} compiler \(tried .*broken\+\+\).*torch 2.14.1 asks'
    with pytest.raises(setup_common.SetupError, match=expected):
        setup_compiler.find_compiler(standard, '2.14.1')


@needs_compiler
@pytest.mark.subprocess
def test_a_compiler_that_knows_only_an_older_standard_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / 'older++'
    older.write_text('#!/bin/sh\nshift\nexec c++ -std=c++17 "$@"\n')
    older.chmod(0o755)
    monkeypatch.setenv('CXX', str(older))
    assert setup_compiler.find_compiler(17, '2.11.0') == str(older)
    with pytest.raises(setup_common.SetupError, match=r'no working C\+\+20 compiler'):
        setup_compiler.find_compiler(20, '2.14.1')


def test_missing_headers_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, 'get_paths', lambda: {'include': str(tmp_path)})
    with pytest.raises(setup_common.SetupError, match='Python.h is missing.*-dev'):
        setup_compiler.check_headers()


def test_jobs_are_limited_by_processors_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {'SC_PHYS_PAGES': 1_250_000, 'SC_PAGE_SIZE': 4000}
    monkeypatch.setattr('os.sysconf', sizes.__getitem__)
    monkeypatch.setattr('os.sched_getaffinity', lambda _: range(64), raising=False)
    assert setup_compiler.parallel_jobs() == 2
    sizes['SC_PHYS_PAGES'] = 100_000
    assert setup_compiler.parallel_jobs() == 1
    sizes['SC_PHYS_PAGES'] = 100_000_000
    assert setup_compiler.parallel_jobs() == 64


def test_build_for_the_cpu_hides_a_gpu_from_mmcv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
    monkeypatch.setenv('CFLAGS', '-O1')
    monkeypatch.setenv('PYTHONPATH', '/somewhere')
    env = setup_mmcv.build_environment('cpu', 'clang++')
    assert (env['FORCE_CUDA'], env['CUDA_VISIBLE_DEVICES']) == ('0', '')
    assert (env['MMCV_WITH_OPS'], env['CXX']) == ('1', 'clang++')
    assert 'PYTHONPATH' not in env
    env = setup_mmcv.build_environment('cuda13.0-sm90', 'clang++')
    assert (env['FORCE_CUDA'], env['CUDA_VISIBLE_DEVICES']) == ('1', '0')


def test_operators_are_optimised_unless_the_user_chooses_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With a CFLAGS in the environment, setuptools drops Python's own flags, `-O3` among them.
    monkeypatch.delenv('CFLAGS', raising=False)
    flags = setup_mmcv.build_environment('cpu', 'c++')['CFLAGS'].split()
    assert {'-O2', '-DNDEBUG', '-g0'} <= set(flags)
    # The compiler takes the last of several levels.
    monkeypatch.setenv('CFLAGS', '-O1')
    assert setup_mmcv.build_environment('cpu', 'c++')['CFLAGS'].split() == [*flags, '-O1']


def test_the_number_of_jobs_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the message of a killed compiler advises."""
    monkeypatch.setenv('MAX_JOBS', '77')
    assert setup_mmcv.build_environment('cpu', 'c++')['MAX_JOBS'] == '77'
    monkeypatch.delenv('MAX_JOBS')
    jobs = setup_mmcv.build_environment('cpu', 'c++')['MAX_JOBS']
    assert jobs == str(setup_compiler.parallel_jobs())


# Failures


def run_compilation(code: str, folder: Path) -> str:
    """Run a script as the compilation; return the message of its failure."""
    command = [sys.executable, '-c', code]
    with pytest.raises(setup_common.SetupError) as caught:
        setup_mmcv.compile_wheel(command, folder, {'MAX_JOBS': '1'}, folder / 'log', 'mmcv')
    return str(caught.value)


@pytest.mark.subprocess
def test_failed_compilation_shows_its_first_errors_and_its_log(tmp_path: Path) -> None:
    lines = ['[1/2] c++ a', 'ATen.h:5:2: error: #error C++20 or later is required']
    lines += [f'b.cpp:{k}:1: error: follows from the first' for k in range(50)]
    lines += ['50 more lines'] * 50
    code = f'print({chr(10).join(lines)!r}); raise SystemExit(1)'
    message = run_compilation(code, tmp_path)
    assert "mmcv's compilation failed. The compiler's first errors:\n    ATen.h:5:2" in message
    assert message.count('error:') == 3
    assert '50 more lines' not in message
    assert str(tmp_path / 'log') in message
    assert 'memory' not in message
    assert (tmp_path / 'log').read_text().splitlines() == lines


@pytest.mark.parametrize(
    'line',
    [
        'c++: fatal error: Killed signal terminated program cc1plus',
        'c++: internal compiler error: Killed (program cc1plus)',
        'virtual memory exhausted: Cannot allocate memory',
        'cc1plus: out of memory allocating 65536 bytes after a total of 1 bytes',
        'FAILED: [code=137] /tmp/x/unit_00.o ',
    ],
)
@pytest.mark.subprocess
def test_only_a_killed_compiler_lets_the_message_speak_of_memory(line: str, tmp_path: Path) -> None:
    message = run_compilation(f'print({line!r}); raise SystemExit(1)', tmp_path)
    assert 'memory was short: try MAX_JOBS=1 make env' in message
    assert line.strip() in message


@pytest.mark.subprocess
def test_a_failure_without_the_compiler_shows_the_last_lines(tmp_path: Path) -> None:
    code = "print('first\\n' * 40 + 'ModuleNotFoundError: no ninja'); raise SystemExit(1)"
    message = run_compilation(code, tmp_path)
    assert 'The last lines:' in message
    assert 'ModuleNotFoundError: no ninja' in message
    assert message.count('first') == 29


def wheel_of(root: Path, names: list[str]) -> Path:
    """Make a wheel whose module `_ext` has some names; Python source serves as the library."""
    wheel = root / 'mmcv-2.1.0.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('mmcv/_ext.so', ''.join(f'{name} = 1\n' for name in names))
    return wheel


@pytest.mark.subprocess
def test_a_wheel_without_some_operators_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = 'm.def("nms", &nms, "nms (CPU)");\n  m.def(\n  "roi_pool", &roi_pool);\n'
    root = tree(tmp_path, {'pybind.cpp': binding})
    code = 'import runpy, sys; print(*runpy.run_path(sys.argv[1]))'
    monkeypatch.setattr(setup_mmcv, 'EXPORTS', code)
    monkeypatch.setattr(setup_mmcv, 'venv_python', lambda _: Path(sys.executable))
    setup_mmcv.check_operators(tmp_path, wheel_of(tmp_path, ['nms', 'roi_pool', 'more']), root)
    with pytest.raises(setup_common.SetupError, match='without the operators roi_pool$'):
        setup_mmcv.check_operators(tmp_path, wheel_of(tmp_path, ['nms', 'more']), root)
    monkeypatch.setattr(setup_mmcv, 'EXPORTS', 'raise ImportError("undefined symbol")')
    with pytest.raises(
        setup_common.SetupError, match='cannot be loaded:\n(.*\n)*.*undefined symbol'
    ):
        setup_mmcv.check_operators(tmp_path, wheel_of(tmp_path, ['nms']), root)
    (root / CSRC / 'pybind.cpp').unlink()
    (root / CSRC / 'pybind.cpp').write_text('')
    monkeypatch.setattr(setup_mmcv, 'EXPORTS', 'print()')
    with pytest.raises(setup_common.SetupError, match='without the operators at all'):
        setup_mmcv.check_operators(tmp_path, wheel_of(tmp_path, []), root)
    with zipfile.ZipFile(tmp_path / 'lite.whl', 'w') as archive:
        archive.writestr('mmcv/ops/nms.py', '')
    with pytest.raises(setup_common.SetupError, match=r'without operators \(mmcv/_ext\)'):
        setup_mmcv.check_operators(tmp_path, tmp_path / 'lite.whl', root)


# Keys, the cache and progress


def test_key_names_all_that_a_compiled_wheel_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, 'get_platform', lambda: 'linux-x86_64')
    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    key = setup_mmcv.wheel_key(MMCV, '2.11.0+cpu', 'cpu')
    assert key == f'mmcv-2.1.0_torch-2.11.0+cpu_{python}_linux_x86_64_cpu'
    key = setup_mmcv.wheel_key(FORK, '2.14.1', 'cpu')
    assert key == f'onedl-mmcv-2.3.6_torch-2.14.1_{python}_linux_x86_64_cpu'


@pytest.mark.parametrize('operators', [MMCV, FORK])
def test_wheel_is_found_under_its_own_key_only(
    operators: setup_mmcv.Operators, cache: Path
) -> None:
    key = setup_mmcv.wheel_key(operators, '2.11.0', 'cpu')
    name = f'{operators.prefix}-{operators.version}-cp311-cp311-linux_x86_64.whl'
    wheel = cache / 'wheels' / key / name
    wheel.parent.mkdir(parents=True)
    assert setup_mmcv.cached_wheel(key) is None
    wheel.touch()
    assert setup_mmcv.cached_wheel(key) == wheel
    for torch, device, found in (
        ('2.11.0', '*', wheel),
        ('2.10.0', '*', None),
        ('2.11.0', 'cuda13.0', None),
    ):
        assert setup_mmcv.cached_wheel(setup_mmcv.wheel_key(operators, torch, device)) == found
    other = FORK if operators is MMCV else MMCV
    assert setup_mmcv.cached_wheel(setup_mmcv.wheel_key(other, '2.11.0', '*')) is None


def test_an_earlier_build_of_another_kind_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(_: Path, name: str, version: str, target: Path) -> Path:
        assert (name, version) == ('onedl-mmcv', '2.3.6')
        folder = tmp_path / 'fresh' / 'onedl_mmcv-2.3.6'
        tree(folder, {'a.cpp': 'new'})
        file = str(target / 'onedl_mmcv-2.3.6')
        return Path(shutil.make_archive(file, 'gztar', tmp_path / 'fresh', folder.name))

    monkeypatch.setattr(setup_mmcv, 'download_sdist', download)
    earlier = tree(tmp_path / 'onedl_mmcv-2.3.6', {'a.cpp': 'old'})
    fresh = setup_mmcv.unpack_sources(Path(), FORK, tmp_path, 17, in_units=True)
    assert fresh == earlier
    assert (fresh / CSRC / 'a.cpp').read_text() == 'new'
    # What is compiled stays there for the next run by the same standard, and for no other.
    (fresh / 'unit_00.o').touch()
    assert setup_mmcv.unpack_sources(Path(), FORK, tmp_path, 17, in_units=True) == fresh
    assert (fresh / 'unit_00.o').exists()
    assert 'going on with an earlier compilation' in capsys.readouterr().out
    setup_mmcv.unpack_sources(Path(), FORK, tmp_path, 20, in_units=True)
    assert not (fresh / 'unit_00.o').exists()
    assert 'c++20' in (fresh / 'setup.py').read_text()
    # Interrupted while the sources of another standard are removed: what is left is not continued.
    monkeypatch.setattr(shutil, 'rmtree', lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        setup_mmcv.unpack_sources(Path(), FORK, tmp_path, 17, in_units=True)
    monkeypatch.undo()
    monkeypatch.setattr(setup_mmcv, 'download_sdist', download)
    (fresh / CSRC / 'a.cpp').unlink()
    setup_mmcv.unpack_sources(Path(), FORK, tmp_path, 20, in_units=True)
    assert (fresh / CSRC / 'a.cpp').exists()


@pytest.mark.parametrize(
    ('line', 'step'),
    [
        ('  [12/77] c++ -MMD -MF active_rotated_filter.o.d', (12, 77)),
        ('[77/77] c++ -o x.o', (77, 77)),
        ('  copying mmcv/ops/nms.py -> build/lib [1/2]', None),
        ('[12/77]', None),
        ('', None),
    ],
)
def test_progress_is_read_from_the_lines_of_ninja(line: str, step: tuple[int, int] | None) -> None:
    assert setup_mmcv.parse_step(line) == step


def test_progress_line_estimates_the_remaining_time() -> None:
    # 12 of 77 equal files took 48 s, so the remaining 65 take 65 * 48 / 12 s = 260 s.
    assert setup_mmcv.progress_line(12, 77, 48.0, []) == (
        '  mmcv: compiling 12/77, 0:48 elapsed, about 4:20 left'
    )
    assert setup_mmcv.progress_line(77, 77, 600.0, []).endswith('10:00 elapsed, about 0:00 left')
    # Two processors: 40 s on the first, 10 + 20 + 14 on the other. 10 s of 44 took 20 s.
    times = setup_units.finish_times([40.0, 10.0, 20.0, 14.0], jobs=2)
    assert times == [10.0, 30.0, 40.0, 44.0]
    assert setup_mmcv.progress_line(1, 4, 20.0, times).endswith('about 1:08 left')
    # After an interruption, ninja counts what is left.
    assert setup_mmcv.progress_line(1, 2, 30.0, times).endswith('about 0:30 left')


@pytest.mark.parametrize(
    ('facts', 'device'),
    [
        ({'gpu': False, 'cuda': '13.0', 'nvcc': '13.0', 'arch': ''}, 'cpu'),
        ({'gpu': True, 'cuda': '13.0', 'nvcc': '', 'arch': 'sm90'}, 'cpu'),
        ({'gpu': True, 'cuda': '13.0', 'nvcc': '12.4', 'arch': 'sm90'}, 'cpu'),
        ({'gpu': True, 'cuda': '13.0', 'nvcc': '13.1', 'arch': 'sm90'}, 'cuda13.0-sm90'),
    ],
)
def test_operators_for_cuda_need_a_gpu_and_a_fitting_nvcc(
    facts: dict[str, object], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = subprocess.CompletedProcess([], 0, stdout=json.dumps(facts) + '\n', stderr='')
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: answer)
    assert setup_mmcv.choose_device(Path('venv')) == device


def test_version_is_read_in_every_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # From Python 3.13 on, `exec` writes into a copy of the names that `locals` returns.
    setup = """
def get_version():
    version_file = 'version.py'
    with open(version_file, encoding='utf-8') as f:
        exec(compile(f.read(), version_file, 'exec'))
    return locals()['__version__']
"""
    (tmp_path / 'version.py').write_text("__version__ = '2.1.0'\n")
    monkeypatch.chdir(tmp_path)
    space: dict[str, Callable[[], str]] = {}
    corrected = setup_sdist.read_version_anywhere(setup)
    exec(corrected, space)
    assert space['get_version']() == '2.1.0'
    assert 'locals()' not in corrected
    other = setup.replace('compile(f.read()', 'compile(f.read().strip()')
    assert setup_sdist.read_version_anywhere(other) == other
