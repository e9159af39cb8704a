"""Units of compilation: many files of mmcv's operators in one, which read torch's headers once.

Nearly all of the time that mmcv's 77 files take is spent on torch's headers, which each file
includes. A unit is a file that includes many of them. `pybind.cpp`, with the wrappers of all
operators, takes as long as all other files together, so that four units keep two processors busy
to the end, and no number of units is faster on more processors.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Folder of the units. By its name it is never a Python package, so that no wheel contains it.
FOLDER = 'compile.units'
UNITS = 4
FOLDERS = ('mmcv/ops/csrc/pytorch', 'mmcv/ops/csrc/pytorch/cpu')
# Seconds of one processor, with gcc 12; only their ratios matter.
HEADER_SECONDS = 9.0
EXTRA_HEADERS = {'torch/extension.h': 8.0, 'torch/script.h': 4.0}
SECONDS_PER_BYTE = 4e-5
SECONDS_PER_OPERATOR = 0.16
# What may be defined once per unit: types, templates, and functions of one file.
ONCE = (
    r'^(?:struct|class)\s+(\w+)[^;{]*\{',
    r'^template\s*<[^;{]*?>\s*(?:struct|class)\s+(\w+)[^;{]*\{',
    r'^template\s*<[^;{]*?>[\s\w:<>&*]*?\b(\w+)\s*\(',
    r'^(?:static|inline)\b[\s\w:<>&*]*?\b(\w+)\s*\(',
)


@dataclass(frozen=True)
class Source:
    """One file of the operators.

    Args:
        path: Path in the unpacked distribution.
        text: Content.
    """

    path: str
    text: str

    @property
    def seconds(self) -> float:
        """Time that the compiler takes beyond the headers."""
        operators = len(operator_names(self.text))
        return SECONDS_PER_BYTE * len(self.text) + SECONDS_PER_OPERATOR * operators

    @property
    def headers(self) -> frozenset[str]:
        """Large headers beyond those that all files include."""
        return frozenset(h for h in EXTRA_HEADERS if f'#include <{h}>' in self.text)

    @property
    def once(self) -> frozenset[str]:
        """Names that no other file of the same unit may define."""
        return frozenset(n for p in ONCE for n in re.findall(p, self.text, re.MULTILINE))

    @property
    def macros(self) -> list[str]:
        """Macros that the file leaves behind."""
        return re.findall(r'^\s*#\s*define\s+(\w+)', self.text, re.MULTILINE)


@dataclass
class Unit:
    """Files that are compiled as one."""

    sources: list[Source] = field(default_factory=list)

    @property
    def headers(self) -> frozenset[str]:
        """Large headers of the files."""
        return frozenset[str]().union(*(source.headers for source in self.sources))

    @property
    def seconds(self) -> float:
        """Time that the compiler takes."""
        files = sum(source.seconds for source in self.sources)
        return HEADER_SECONDS + header_seconds(self.headers) + files

    def admits(self, source: Source) -> bool:
        """Return whether a file defines nothing that one of the unit's files defines."""
        return all(source.once.isdisjoint(other.once) for other in self.sources)

    def text(self) -> str:
        """Return the content: macros end with their file; files with `using namespace` go last."""
        lines = ["// Files that share torch's headers. Made by the set-up."]
        for source in sorted(self.sources, key=lambda s: ('using namespace' in s.text, s.path)):
            lines.append(f'#include "../{source.path}"')
            lines += [f'#undef {name}' for name in source.macros]
        return '\n'.join(lines) + '\n'


def operator_names(text: str) -> list[str]:
    """Return the operators that a file exports to Python.

    >>> operator_names('m.def("nms", &nms, "nms (CPU)");  m.def( "roi", &roi);')
    ['nms', 'roi']
    """
    return re.findall(r'\bm\.def\(\s*"(\w+)"', text)


def header_seconds(headers: frozenset[str]) -> float:
    """Return the time that large headers take."""
    return sum(EXTRA_HEADERS[header] for header in headers)


def read_sources(root: Path) -> list[Source]:
    """Read the files of the operators for the CPU, in an unpacked distribution."""
    paths = [path for folder in FOLDERS for path in sorted((root / folder).glob('*.cpp'))]
    return [
        Source(path.relative_to(root).as_posix(), path.read_text(encoding='utf-8'))
        for path in paths
    ]


def plan_units(sources: Sequence[Source], count: int = UNITS) -> list[Unit]:
    """Distribute files over units of about equal time, the slowest unit first.

    The slowest file comes first. Each goes where it brings no further header if it can, and then
    where the unit is fastest with it, if nothing is then defined twice. Further units are made for
    files that fit in none.
    """
    units = [Unit() for _ in range(count)]
    cost = {source: Unit([source]).seconds for source in sources}
    for source in sorted(sources, key=lambda s: (-cost[s], s.path)):
        fitting = [unit for unit in units if unit.admits(source)]
        if not fitting:
            fitting = [Unit()]
            units += fitting
        ranks = [(header_seconds(source.headers - unit.headers), unit.seconds) for unit in fitting]
        fitting[ranks.index(min(ranks))].sources.append(source)
    return sorted((u for u in units if u.sources), key=lambda unit: -unit.seconds)


def write_units(root: Path, units: Sequence[Unit]) -> None:
    """Write the units into an unpacked distribution; ninja takes them in the order of names."""
    folder = root / FOLDER
    folder.mkdir()
    for index, unit in enumerate(units):
        (folder / f'unit_{index:02d}.cpp').write_text(unit.text(), encoding='utf-8')


def split_units(root: Path, names: Sequence[str]) -> int:
    """Replace units by one unit per file; return the number of these files.

    Args:
        root: Folder of the unpacked distribution.
        names: Names of units without suffix; those that hold one file stay.
    """
    count = 0
    for path in (root / FOLDER / f'{name}.cpp' for name in names):
        text = path.read_text(encoding='utf-8') if path.is_file() else ''
        paths = re.findall(r'^#include "\.\./(.+)"$', text, re.MULTILINE)
        if len(paths) < 2:
            continue
        for index, included in enumerate(paths):
            single = path.with_name(f'{path.stem}_{index:02d}_{Path(included).stem}.cpp')
            single.write_text(f'#include "../{included}"\n', encoding='utf-8')
        path.unlink()
        count += len(paths)
    return count


def failed_units(output: str) -> list[str]:
    r"""Return the names of the units that ninja reports as failed.

    >>> failed_units('FAILED: [code=1] /tmp/x/unit_01.o \nc++ ...')
    ['unit_01']
    """
    return re.findall(r'^\s*FAILED: (?:\[code=\d+\] )?\S*?(unit_\w+)\.o\b', output, re.MULTILINE)


def take_units(setup: str) -> str | None:
    """Make a setup.py compile the units; None if it does not name the files in the known way."""
    first, second = (f"'./{folder}/*.cpp'" for folder in FOLDERS)
    if first not in setup or second not in setup:
        return None
    units = f"'./{FOLDER}/*.cpp'"
    return setup.replace(second, f"'./{FOLDER}/none/*.cpp'").replace(first, units)


def finish_times(seconds: Sequence[float], jobs: int) -> list[float]:
    """Return when each unit is finished if they start in this order, sorted.

    >>> finish_times([5.0, 2.0, 2.0, 2.0], jobs=2)
    [2.0, 4.0, 5.0, 6.0]
    """
    free = [0.0] * jobs
    times = []
    for duration in seconds:
        times.append(heapq.heappop(free) + duration)
        heapq.heappush(free, times[-1])
    return sorted(times)
