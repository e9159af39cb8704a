"""Wheel of mmcv with compiled operators, taken from the user's cache or built for it.

An interrupted build continues from the files that are already compiled, and every clone with the
same torch, Python and platform uses the finished wheel. Operators for the CPU are compiled in
units of many files (`setup_units.py`); those for CUDA file by file, as mmcv's setup.py does it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from setup_common import (
    SetupError,
    clean_environment,
    clock,
    last_lines,
    report,
    venv_python,
)
from setup_compiler import (
    describe_failure,
    find_compiler,
    installed_standard,
    is_final,
    parallel_jobs,
)
from setup_sdist import download_sdist, read_version_anywhere
from setup_units import (
    FOLDER,
    failed_units,
    finish_times,
    operator_names,
    plan_units,
    read_sources,
    split_units,
    take_units,
    write_units,
)

PROGRESS_SECONDS = 5.0
#: Given explicitly, because setuptools takes a CFLAGS of the environment instead of Python's own
#: flags: alone, `-g0` would compile without optimisation.
COMPILER_FLAGS = '-O2 -DNDEBUG -fwrapv -g0'
PREPARED_FILE = 'prepared.json'

TORCH_FACTS = """
import json, re, subprocess, torch
from torch.utils import cpp_extension
nvcc = ''
if cpp_extension.CUDA_HOME:
    try:
        text = subprocess.run([cpp_extension.CUDA_HOME + '/bin/nvcc', '--version'],
                              capture_output=True, text=True).stdout
        nvcc = (re.findall(r'release (\\d+[.]\\d+)', text) or [''])[0]
    except OSError:
        pass
gpu = torch.cuda.is_available()
arch = 'sm%d%d' % torch.cuda.get_device_capability() if gpu else ''
print(json.dumps({'torch': torch.__version__, 'gpu': gpu, 'arch': arch, 'nvcc': nvcc,
                  'cuda': torch.version.cuda or ''}))
"""


EXPORTS = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location('_ext', sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(' '.join(dir(module)))
"""


@dataclass(frozen=True)
class Operators:
    """A release of mmcv, or of a fork with the same module.

    Args:
        distribution: Name of the distribution, such as `mmcv` or `onedl-mmcv`.
        version: Release.
    """

    distribution: str
    version: str

    @property
    def prefix(self) -> str:
        """The name with which its files begin."""
        return self.distribution.replace('-', '_')

    def __str__(self) -> str:
        return f'{self.distribution} {self.version}'


def cache_root() -> Path:
    """Return the user's cache directory for this project."""
    if os.environ.get('MMDET_EXT_CACHE'):
        return Path(os.environ['MMDET_EXT_CACHE']).expanduser().absolute()
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(base).expanduser().absolute() / 'mmdet_ext'


def wheel_key(operators: Operators, torch: str, device: str) -> str:
    """Name all that a compiled mmcv depends on; a device is `cpu` or like `cuda13.0-sm90`."""
    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    system = sysconfig.get_platform().replace('-', '_').replace('.', '_')
    name = f'{operators.distribution}-{operators.version}'
    return f'{name}_torch-{torch}_{python}_{system}_{device}'


def cached_wheel(key: str) -> Path | None:
    """Return the cached wheel of a key, which may be a pattern, or None."""
    return next(iter(sorted((cache_root() / 'wheels').glob(f'{key}/*mmcv-*.whl'))), None)


def parse_step(line: str) -> tuple[int, int] | None:
    """Read the two numbers of a line of ninja such as `[12/77] c++ ...`; None for other lines."""
    found = re.match(r'\s*\[(\d+)/(\d+)\] ', line)
    return (int(found.group(1)), int(found.group(2))) if found else None


def progress_line(done: int, total: int, elapsed: float, times: Sequence[float]) -> str:
    """Format the progress of the compilation.

    Args:
        done: Number of compiled files, at least 1.
        total: Number of all files.
        elapsed: Seconds since the compilation began.
        times: Expected moments at which the files are finished, in any unit, sorted. If their
            number is another one (after an interruption), all files count alike.
    """
    expected = times if len(times) == total else [float(k + 1) for k in range(total)]
    left = elapsed * (expected[-1] / expected[done - 1] - 1)
    return f'  mmcv: compiling {done}/{total}, {clock(elapsed)} elapsed, about {clock(left)} left'


def build_environment(device: str, compiler: str) -> dict[str, str]:
    """Return the environment variables that control mmcv's setup.py."""
    env = clean_environment()
    env['MMCV_WITH_OPS'] = '1'
    env['CFLAGS'] = f'{COMPILER_FLAGS} {env.get("CFLAGS", "")}'.strip()
    env.setdefault('MAX_JOBS', str(parallel_jobs()))
    env['FORCE_CUDA'] = '0' if device == 'cpu' else '1'
    if device == 'cpu':
        env['CUDA_VISIBLE_DEVICES'] = ''
    if compiler != 'c++':
        env['CXX'] = compiler
    return env


def prepare_sources(source: Path, standard: int, in_units: bool) -> None:
    """Make an unpacked distribution compile by another C++ standard, and in units.

    The files of the operators stay as they are. A setup.py that names them in an unknown way
    compiles them file by file.
    """
    file = source / 'setup.py'
    text = file.read_text(encoding='utf-8')
    text = read_version_anywhere(text)
    text = re.sub(r'([-/]std[=:]c\+\+)\d\d\b', rf'\g<1>{standard}', text)
    with_units = take_units(text) if in_units else None
    if with_units is not None:
        write_units(source, plan_units(read_sources(source)))
    elif in_units:
        report('  its setup.py is unknown: compiling file by file')
    file.write_text(with_units or text, encoding='utf-8')


def unpack_sources(
    venv: Path, operators: Operators, folder: Path, standard: int, in_units: bool
) -> Path:
    """Download, unpack and prepare the sources, unless a previous run has done so."""
    source = folder / f'{operators.prefix}-{operators.version}'
    prepared = json.dumps({'standard': standard, 'in_units': in_units})
    marker = folder / PREPARED_FILE
    if source.is_dir() and marker.is_file() and marker.read_text(encoding='utf-8') == prepared:
        report('  going on with an earlier compilation')
        return source
    marker.unlink(missing_ok=True)  # an interruption from here on begins anew
    shutil.rmtree(source, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        sdist = download_sdist(venv, operators.distribution, operators.version, Path(scratch))
        with tarfile.open(sdist) as archive:
            if hasattr(tarfile, 'data_filter'):
                archive.extractall(scratch, filter='data')
            else:
                archive.extractall(scratch)
        prepare_sources(Path(scratch) / source.name, standard, in_units)
        marker.write_text(prepared, encoding='utf-8')
        os.replace(Path(scratch) / source.name, source)
    return source


def run_build(
    command: list[str], source: Path, env: dict[str, str], log: Path, times: Sequence[float] = ()
) -> int:
    """Run the compilation with its output in a log; report its progress; return the exit status.

    Args:
        command: Command line.
        source: Folder in which to run it.
        env: Environment variables.
        log: File for the output.
        times: Expected moments at which the files are finished (`progress_line`).
    """
    began = shown = time.monotonic()
    with (
        log.open('w', encoding='utf-8') as file,
        subprocess.Popen(
            command,
            cwd=source,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            now = time.monotonic()
            if line.lstrip().startswith('building '):
                began = now
            step = parse_step(line)
            if step is not None and (now - shown >= PROGRESS_SECONDS or step[0] == step[1]):
                shown = now
                report(progress_line(*step, now - began, times))
    return process.returncode


def wheel_command(venv: Path, folder: Path) -> list[str]:
    """Return the command that makes a wheel of the current folder."""
    command = [str(venv_python(venv)), '-m', 'pip', 'wheel', '.', '--no-deps', '-v']
    return [*command, '--no-build-isolation', '-w', str(folder)]


def compile_wheel(
    command: list[str], source: Path, env: dict[str, str], log: Path, name: str
) -> None:
    """Run the compilation; files of units that fail are compiled singly in a second run.

    Raises:
        SetupError: If it fails, with the compiler's first errors.
    """
    units = plan_units(read_sources(source)) if (source / FOLDER).is_dir() else []
    jobs = int(env['MAX_JOBS']) if env['MAX_JOBS'].isdigit() else parallel_jobs()
    times = finish_times([unit.seconds for unit in units], max(jobs, 1))
    while run_build(command, source, env, log, times):
        output = log.read_text(encoding='utf-8', errors='replace')
        failed = [] if is_final(output) else failed_units(output)
        files = split_units(source, failed)
        if not files:
            raise SetupError(describe_failure(name, output, log))
        report(f'  {", ".join(failed)} did not compile: compiling its {files} files singly')
        times = []


def check_operators(venv: Path, wheel: Path, source: Path) -> None:
    """Raise unless the compiled module exports all operators that the sources define."""
    binding = source / 'mmcv' / 'ops' / 'csrc' / 'pytorch' / 'pybind.cpp'
    expected = set(operator_names(binding.read_text(encoding='utf-8')))
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as scratch:
        names = [name for name in archive.namelist() if re.match(r'mmcv/_ext.*\.so$', name)]
        if not names:
            raise SetupError(f'{wheel} came out without operators (mmcv/_ext)')
        library = archive.extract(names[0], scratch)
        command = [str(venv_python(venv)), '-W', 'ignore', '-c', EXPORTS, library]
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f'{wheel} cannot be loaded:\n{last_lines(done.stderr, 12)}')
    missing = sorted(expected.difference(done.stdout.split()))
    if missing or not expected:
        raise SetupError(f'{wheel} came out without the operators {", ".join(missing) or "at all"}')


def build_wheel(venv: Path, operators: Operators, torch: str, device: str) -> Path:
    """Compile mmcv and move the wheel to the cache."""
    key = wheel_key(operators, torch, device)
    folder = cache_root() / 'build' / key
    folder.mkdir(parents=True, exist_ok=True)
    standard = installed_standard(venv, torch)
    env = build_environment(device, find_compiler(standard, torch))
    source = unpack_sources(venv, operators, folder, standard, in_units=device == 'cpu')
    shutil.rmtree(folder / 'wheel', ignore_errors=True)
    log = cache_root() / f'{key}.log'
    report(f'  compiling by C++{standard} with {env["MAX_JOBS"]} jobs; log: {log}')
    command = wheel_command(venv, folder / 'wheel')
    compile_wheel(command, source, env, log, operators.distribution)
    wheel = next((folder / 'wheel').glob(f'{operators.prefix}-*.whl'))
    check_operators(venv, wheel, source)
    target = cache_root() / 'wheels' / key / wheel.name
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(wheel, target)
    shutil.rmtree(folder)
    return target


def choose_device(venv: Path) -> str:
    """Return the device to build operators for: `cuda...` with a GPU and a fitting nvcc."""
    command = [str(venv_python(venv)), '-W', 'ignore', '-c', TORCH_FACTS]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f'the installed torch does not work:\n{last_lines(done.stderr, 12)}')
    facts = json.loads(done.stdout.splitlines()[-1])
    if not facts['gpu']:
        return 'cpu'
    if facts['nvcc'].split('.')[0] != facts['cuda'].split('.')[0]:
        found = f'nvcc {facts["nvcc"]}' if facts['nvcc'] else 'no nvcc'
        report(
            f'  a GPU, but {found}, while torch has CUDA {facts["cuda"]}: '
            'building the CPU operators; for CUDA ones install that toolkit and set CUDA_HOME'
        )
        return 'cpu'
    return f'cuda{facts["cuda"]}-{facts["arch"]}'


def provide_wheel(venv: Path, operators: Operators, torch: str) -> Path:
    """Return the wheel from the cache, after building it if necessary."""
    device = choose_device(venv)
    key = wheel_key(operators, torch, device)
    (cache_root() / 'build').mkdir(parents=True, exist_ok=True)
    # If two clones are set up at the same time, one of them compiles.
    with (cache_root() / 'build' / f'{key}.lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report('  another set-up is compiling the same wheel: waiting for it')
            fcntl.flock(lock, fcntl.LOCK_EX)
        wheel = cached_wheel(key)
        if wheel is not None:
            report(f'{operators}: from the cache, {wheel}')
            return wheel
        minutes = '1 to 3' if device == 'cpu' else '5 to 15'
        report(f'{operators}: compiling its operators for {device}, {minutes} minutes on 2 cores')
        return build_wheel(venv, operators, torch, device)
