"""Wheel of mmcv with compiled operators, taken from the user's cache or built for it.

Compilation takes minutes. An interrupted build therefore continues from the files that are already
compiled, and every clone with the same torch, Python and platform uses the finished wheel.
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
from collections import deque
from pathlib import Path

from setup_common import (
    SetupError,
    clean_environment,
    clock,
    last_lines,
    report,
    run_pip,
    venv_python,
)

GB_PER_COMPILER = 2.0
PROGRESS_SECONDS = 5.0

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


def cache_root() -> Path:
    """Return the user's cache directory for this project."""
    if os.environ.get('MMDET_EXT_CACHE'):
        return Path(os.environ['MMDET_EXT_CACHE']).expanduser().absolute()
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(base).expanduser().absolute() / 'mmdet_ext'


def wheel_key(mmcv: str, torch: str, device: str) -> str:
    """Name all that a compiled mmcv depends on; a device is `cpu` or like `cuda13.0-sm90`."""
    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    system = sysconfig.get_platform().replace('-', '_').replace('.', '_')
    return f'mmcv-{mmcv}_torch-{torch}_{python}_{system}_{device}'


def cached_wheel(key: str) -> Path | None:
    """Return the cached wheel of a key, which may be a pattern, or None."""
    return next(iter(sorted((cache_root() / 'wheels').glob(f'{key}/mmcv-*.whl'))), None)


def find_compiler() -> str:
    """Return a working C++17 compiler: $CXX, or the first of the usual names."""
    chosen = os.environ.get('CXX')
    tried = [chosen] if chosen else ['c++', 'g++', 'clang++']
    source = '#include <vector>\nint main() { if constexpr (true) return 0; }\n'
    for name in tried:
        command = [*name.split(), '-std=c++17', '-fsyntax-only', '-x', 'c++', '-']
        if shutil.which(command[0]) is None:
            continue
        if subprocess.run(command, input=source.encode(), capture_output=True).returncode == 0:
            return name
    raise SetupError(
        f"no working C++17 compiler (tried {', '.join(tried)}): mmcv's operators have to be "
        'compiled. Install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; '
        'macOS: xcode-select --install), or name it in CXX'
    )


def check_headers() -> None:
    """Raise for a Python without its C headers."""
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if not header.is_file():
        raise SetupError(
            f"{header} is missing: mmcv's operators are compiled against Python's headers. Install "
            f'them (Debian, Ubuntu: apt install python3.{sys.version_info.minor}-dev; '
            'Fedora: dnf install python3-devel) or use another Python: make env PYTHON=...'
        )


def parse_step(line: str) -> tuple[int, int] | None:
    """Read the two numbers of a line of ninja such as `[12/77] c++ ...`; None for other lines."""
    found = re.match(r'\s*\[(\d+)/(\d+)\] ', line)
    return (int(found.group(1)), int(found.group(2))) if found else None


def progress_line(done: int, total: int, elapsed: float) -> str:
    """Format the progress of the compilation.

    Args:
        done: Number of compiled files.
        total: Number of all files.
        elapsed: Seconds since the first file was compiled.
    """
    left = elapsed / max(done - 1, 1) * (total - done)
    return f'  mmcv: compiling {done}/{total}, {clock(elapsed)} elapsed, about {clock(left)} left'


def parallel_jobs() -> int:
    """Return the number of compilers that processors and memory of the machine allow."""
    has_affinity = hasattr(os, 'sched_getaffinity')
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9
    return max(1, min(processors, int(memory / GB_PER_COMPILER)))


def build_environment(device: str) -> dict[str, str]:
    """Return the environment variables that control mmcv's setup.py."""
    env = clean_environment()
    env['MMCV_WITH_OPS'] = '1'
    env['CFLAGS'] = f'{env.get("CFLAGS", "")} -g0'.strip()
    env.setdefault('MAX_JOBS', str(parallel_jobs()))
    env['FORCE_CUDA'] = '0' if device == 'cpu' else '1'
    if device == 'cpu':
        env['CUDA_VISIBLE_DEVICES'] = ''
    compiler = find_compiler()
    if compiler != 'c++':
        env['CXX'] = compiler
    return env


def unpack_sources(venv: Path, mmcv: str, folder: Path) -> Path:
    """Download and unpack mmcv's source distribution, unless a previous run has done so."""
    source = folder / f'mmcv-{mmcv}'
    if source.is_dir():
        report('  going on with an earlier compilation')
        return source
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        run_pip(
            venv,
            'download',
            f'mmcv=={mmcv}',
            '--no-deps',
            '--no-binary',
            'mmcv',
            '--no-build-isolation',
            '-d',
            scratch,
        )
        with tarfile.open(next(Path(scratch).glob('mmcv-*.tar.gz'))) as archive:
            if hasattr(tarfile, 'data_filter'):
                archive.extractall(scratch, filter='data')
            else:
                archive.extractall(scratch)
        os.replace(Path(scratch) / source.name, source)
    return source


def compile_wheel(command: list[str], source: Path, env: dict[str, str], log: Path) -> None:
    """Run the compilation with its output in a log; report its progress."""
    began = shown = 0.0
    tail: deque[str] = deque(maxlen=30)
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
            tail.append(line)
            step = parse_step(line)
            if step is None:
                continue
            now = time.monotonic()
            began, shown = began or now, shown or now
            if now - shown >= PROGRESS_SECONDS or step[0] == step[1]:
                shown = now
                report(progress_line(*step, now - began))
    if process.returncode:
        raise SetupError(
            f"mmcv's compilation failed. The last lines:\n{last_lines(''.join(tail), 30)}\n"
            f'  The whole log: {log}\n  When compilers were killed, memory was short: '
            'try MAX_JOBS=1 make env'
        )


def build_wheel(venv: Path, mmcv: str, key: str, device: str) -> Path:
    """Compile mmcv and move the wheel to the cache."""
    folder = cache_root() / 'build' / key
    folder.mkdir(parents=True, exist_ok=True)
    env = build_environment(device)
    source = unpack_sources(venv, mmcv, folder)
    shutil.rmtree(folder / 'wheel', ignore_errors=True)
    log = cache_root() / f'{key}.log'
    report(f'  compiling with {env["MAX_JOBS"]} jobs; log: {log}')
    command = [str(venv_python(venv)), '-m', 'pip', 'wheel', '.', '--no-deps', '-v']
    command += ['--no-build-isolation', '-w', str(folder / 'wheel')]
    compile_wheel(command, source, env, log)
    wheel = next((folder / 'wheel').glob('mmcv-*.whl'))
    with zipfile.ZipFile(wheel) as archive:
        if not any(re.match(r'mmcv/_ext.*\.so$', name) for name in archive.namelist()):
            raise SetupError(f'{wheel} came out without operators (mmcv/_ext): see {log}')
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


def provide_wheel(venv: Path, mmcv: str, torch: str) -> Path:
    """Return the wheel from the cache, after building it if necessary."""
    device = choose_device(venv)
    key = wheel_key(mmcv, torch, device)
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
            report(f'mmcv {mmcv}: from the cache, {wheel}')
            return wheel
        report(f'mmcv {mmcv}: compiling its operators for {device}, 5 to 15 minutes on 2 cores')
        return build_wheel(venv, mmcv, key, device)
