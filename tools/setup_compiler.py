"""Compiler of mmcv's operators: the C++ standard, the number of jobs, and messages of failures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setup_common import SetupError, last_lines
from setup_torch import numbers

GB_PER_COMPILER = 2.0
SHOWN_ERRORS = 3
#: First release of torch whose builder of extensions passes each standard of C++, the newest first.
#: The headers refuse C++17 from 2.14.0 on.
FIRST_RELEASES = ((20, (2, 12, 0)), (17, (2, 1, 0)))
#: Sources that a compiler accepts only if it knows the standard.
SOURCES = {
    17: '#include <vector>\nint main() { if constexpr (true) return 0; }\n',
    20: (
        '#include <concepts>\n#include <vector>\n'
        'template <typename T> requires std::integral<T> T same(T x) { return x; }\n'
        'int main() { return same(0); }\n'
    ),
}
KILLED = re.compile(
    r'Killed signal terminated|internal compiler error: Killed|virtual memory exhausted|'
    r'out of memory|terminated by signal 9|^\s*Killed\b|FAILED: \[code=137\]',
    re.MULTILINE,
)


def release_standard(torch: str) -> int:
    """Return the C++ standard that a release of torch asks for, by its number alone.

    >>> release_standard('2.11.0'), release_standard('2.14.1+cpu')
    (17, 20)
    """
    release = numbers(torch)
    return next((standard for standard, first in FIRST_RELEASES if release >= first), 17)


def installed_standard(venv: Path, torch: str) -> int:
    """Return the C++ standard that the installed torch asks for.

    It is the flag that torch's own builder of extensions passes (examples in its documentation
    may show newer ones). Without the flag, the number of the release decides.
    """
    for file in venv.glob('lib/python3*/site-packages/torch/utils/cpp_extension.py'):
        text = file.read_text(encoding='utf-8', errors='replace')
        found = re.findall(r'[\'"]-std=c\+\+(\d\d)[\'"]', text)
        if found:
            return min(int(standard) for standard in found)
    return release_standard(torch)


def find_compiler(standard: int, torch: str) -> str:
    """Return a compiler that knows a C++ standard: $CXX, or the first of the usual names.

    Args:
        standard: Year of the standard in two digits, such as 20.
        torch: Release of torch, for the message.
    """
    chosen = os.environ.get('CXX')
    tried = [chosen] if chosen else ['c++', 'g++', 'clang++']
    source = SOURCES.get(standard, SOURCES[20])
    for name in tried:
        command = [*name.split(), f'-std=c++{standard}', '-fsyntax-only', '-x', 'c++', '-']
        if shutil.which(command[0]) is None:
            continue
        if subprocess.run(command, input=source.encode(), capture_output=True).returncode == 0:
            return name
    raise SetupError(
        f'no working C++{standard} compiler (tried {", ".join(tried)}): '
        f"mmcv's operators have to be compiled, and torch {torch} asks for C++{standard}. "
        'Install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; '
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


def parallel_jobs() -> int:
    """Return the number of compilers that processors and memory of the machine allow."""
    has_affinity = hasattr(os, 'sched_getaffinity')
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9
    return max(1, min(processors, int(memory / GB_PER_COMPILER)))


def was_killed(output: str) -> bool:
    """Return whether the output of a build says that a compiler was killed."""
    return KILLED.search(output) is not None


def first_errors(output: str) -> list[str]:
    r"""Return the first errors of the compiler or the linker, each once.

    >>> first_errors('a.cpp:1:2: error: no B\n  note\nb.h:7: fatal error: no C\n')
    ['a.cpp:1:2: error: no B', 'b.h:7: fatal error: no C']
    """
    pattern = r'^\s*(\S+:\d+(?::\d+)?: (?:fatal )?error: .*|.*undefined reference to .*)$'
    found = dict.fromkeys(re.findall(pattern, output, re.MULTILINE))
    return [line.strip() for line in found][:SHOWN_ERRORS]


def is_final(output: str) -> bool:
    """Return whether smaller units would fail too: a killed compiler, or a refusal by `#error`."""
    return was_killed(output) or any(' error: #error ' in line for line in first_errors(output))


def describe_failure(name: str, output: str, log: Path) -> str:
    """Return the message of a failed build: the compiler's first errors, or the last lines."""
    errors = first_errors(output)
    if errors:
        shown = "The compiler's first errors:\n" + '\n'.join(f'    {line}' for line in errors)
    else:
        shown = f'The last lines:\n{last_lines(output, 30)}'
    message = f"{name}'s compilation failed. {shown}\n  The whole log: {log}"
    if was_killed(output):
        message += '\n  A compiler was killed, so memory was short: try MAX_JOBS=1 make env'
    return message
