"""Tests of the units in which mmcv's operators are compiled."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = str(ROOT / 'tools')
# The tools import each other like scripts. The path is removed again, because it has a `test.py`.
sys.path.insert(0, TOOLS)
try:
    import setup_common
    import setup_mmcv
    import setup_units
finally:
    sys.path.remove(TOOLS)

CSRC = 'mmcv/ops/csrc/pytorch'
SETUP = """
from setuptools import Extension, setup
import glob
files = glob.glob('./mmcv/ops/csrc/pytorch/*.cpp') + \\
    glob.glob('./mmcv/ops/csrc/pytorch/cpu/*.cpp')
flags = ['-std=c++14'] if old else ['/std:c++17']
"""
needs_compiler = pytest.mark.skipif(shutil.which('c++') is None, reason='no C++ compiler')


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write files of operators into a folder such as an unpacked distribution."""
    for name, text in files.items():
        path = root / CSRC / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / 'setup.py').write_text(SETUP)
    return root


def source(name: str, text: str) -> setup_units.Source:
    """Make a file of operators."""
    return setup_units.Source(f'{CSRC}/{name}', text)


def places(units: list[setup_units.Unit]) -> dict[str, int]:
    """Return the number of the unit of each file."""
    return {s.path[len(CSRC) + 1 :]: k for k, unit in enumerate(units) for s in unit.sources}


def test_each_file_is_in_one_unit_and_the_slowest_unit_comes_first() -> None:
    files = [source(f'{k}.cpp', 'x' * (1000 * k + 1)) for k in range(40)]
    units = setup_units.plan_units(files)
    assert sorted(s.path for u in units for s in u.sources) == sorted(s.path for s in files)
    seconds = [unit.seconds for unit in units]
    assert len(units) == 4
    assert seconds == sorted(seconds, reverse=True)
    # The longest of 40 files takes 1.6 s; no unit may be off by more than that.
    assert seconds[0] - seconds[-1] < 1.6


@pytest.mark.parametrize(
    'text',
    [
        'struct PreCalc {\n  int a;\n};\n',
        'template <typename T>\nstruct PreCalc {\n  T a;\n};\n',
        'template <typename T>\nvoid add(T* a, const T& b) {\n  *a += b;\n}\n',
        'static int width(int a) { return a; }\n',
        'inline float width(\n    float a) { return a; }\n',
    ],
)
def test_files_that_define_the_same_are_never_in_one_unit(text: str) -> None:
    files = [source(f'{k}.cpp', text) for k in range(3)]
    assert sorted(places(setup_units.plan_units(files)).values()) == [0, 1, 2]
    # More such files than units: each further one gets its own.
    files = [source(f'{k}.cpp', text) for k in range(6)]
    assert len(setup_units.plan_units(files)) == 6


@pytest.mark.parametrize(
    'text',
    [
        'Tensor nms_impl(Tensor boxes, float threshold);\n',
        'struct Point;\n',
        'int area(int a) { return a; }\n',
    ],
)
def test_declarations_and_functions_of_all_files_do_not_keep_files_apart(text: str) -> None:
    files = [source(f'{k}.cpp', text) for k in range(5)]
    assert len(setup_units.plan_units(files, count=1)) == 1


def test_files_with_a_large_header_share_a_unit() -> None:
    script = '#include <torch/script.h>\n'
    files = [source(f'sparse_{k}.cpp', script + 'y' * 10_000) for k in range(3)]
    files += [source('pybind.cpp', '#include <torch/extension.h>\n' + 'm.def("f", &f);' * 99)]
    files += [source(f'{k}.cpp', 'x' * 9000) for k in range(30)]
    units = setup_units.plan_units(files)
    found = places(units)
    assert found['pybind.cpp'] == 0
    assert len({found[f'sparse_{k}.cpp'] for k in range(3)}) == 1
    assert units[0].sources[0].path.endswith('pybind.cpp')
    # 9 s for the common headers, 8 s for its own, 99 operators at 0.16 s, 1514 bytes at 0.04 ms.
    alone = setup_units.Unit([files[3]])
    assert alone.seconds == pytest.approx(9 + 8 + 99 * 0.16 + len(files[3].text) * 4e-5)


def test_macros_end_with_their_file_and_open_namespaces_come_last() -> None:
    unit = setup_units.Unit(
        [
            source('a.cpp', 'using namespace std;\n'),
            source('cpu/psamask.cpp', '#ifndef min\n#define min(a, b) a\n#endif\n'),
            source('z.cpp', 'int f();\n'),
        ]
    )
    assert unit.text().splitlines()[1:] == [
        f'#include "../{CSRC}/cpu/psamask.cpp"',
        '#undef min',
        f'#include "../{CSRC}/z.cpp"',
        f'#include "../{CSRC}/a.cpp"',
    ]


@needs_compiler
@pytest.mark.subprocess
def test_units_of_files_that_collide_are_compiled_and_linked(tmp_path: Path) -> None:
    files = {
        f'{name}.cpp': (
            '#define twice(x) (2 * (x))\n'
            'struct Cell {\n  int a;\n};\n'
            f'int {name}(int a) {{ return Cell{{twice(a)}}.a + {k}; }}\n'
        )
        for k, name in enumerate('abce')
    }
    # It follows `a.cpp` in one unit, whose macro must not reach it.
    files['cpu/d.cpp'] = 'int twice(int a) { return a; }\nint d(int a) { return twice(a); }\n'
    root = tree(tmp_path, files)
    setup_mmcv.prepare_sources(root, 17, in_units=True)
    units = sorted((root / setup_units.FOLDER).glob('*.cpp'))
    assert [text.count('#include') for text in map(Path.read_text, units)] == [2, 1, 1, 1]
    main = tmp_path / 'main.cpp'
    main.write_text(
        'int a(int); int b(int); int c(int); int d(int); int e(int);\n'
        'int main() { return a(1) + 2 * b(1) + 3 * c(1) + 4 * e(1) + 50 * d(1); }\n'
    )
    program = tmp_path / 'main'
    subprocess.run(['c++', *map(str, units), str(main), '-o', str(program)], check=True)
    # 2 + 2 * (2 + 1) + 3 * (2 + 2) + 4 * (2 + 3) + 50
    assert subprocess.run([str(program)]).returncode == 90


def test_failed_units_are_replaced_by_single_files(tmp_path: Path) -> None:
    root = tree(tmp_path, {'a.cpp': '', 'cpu/a.cpp': '', 'b.cpp': ''})
    files = setup_units.read_sources(root)
    setup_units.write_units(root, [setup_units.Unit(files[:1]), setup_units.Unit(files[1:])])
    folder = root / setup_units.FOLDER
    # A unit of one file cannot be split: then the failure is that file's own.
    assert setup_units.split_units(root, ['unit_00', 'unit_77']) == 0
    assert setup_units.split_units(root, ['unit_00', 'unit_01']) == 2
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found.pop('unit_00.cpp').endswith(f'#include "../{CSRC}/a.cpp"\n')
    assert found == {
        'unit_01_00_b.cpp': f'#include "../{CSRC}/b.cpp"\n',
        'unit_01_01_a.cpp': f'#include "../{CSRC}/cpu/a.cpp"\n',
    }


def test_setup_py_compiles_the_units_by_the_chosen_standard(tmp_path: Path) -> None:
    root = tree(tmp_path, {'a.cpp': '', 'cpu/b.cpp': ''})
    setup_mmcv.prepare_sources(root, 20, in_units=True)
    text = (root / 'setup.py').read_text()
    assert "['-std=c++20'] if old else ['/std:c++20']" in text
    assert CSRC not in text
    assert f"glob.glob('./{setup_units.FOLDER}/*.cpp')" in text
    # Operators for CUDA are compiled as mmcv compiles them.
    plain = tree(tmp_path / 'plain', {'a.cpp': ''})
    setup_mmcv.prepare_sources(plain, 17, in_units=False)
    assert (plain / 'setup.py').read_text() == SETUP.replace('c++14', 'c++17')
    assert not (plain / setup_units.FOLDER).exists()


def test_an_unknown_setup_py_compiles_file_by_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path, {'a.cpp': ''})
    (root / 'setup.py').write_text("files = glob('elsewhere/*.cpp')\n")
    setup_mmcv.prepare_sources(root, 20, in_units=True)
    assert (root / 'setup.py').read_text() == "files = glob('elsewhere/*.cpp')\n"
    assert not (root / setup_units.FOLDER).exists()
    assert 'compiling file by file' in capsys.readouterr().out


@pytest.mark.subprocess
def test_a_unit_that_fails_is_compiled_file_by_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path, {'a.cpp': '', 'b.cpp': '', 'c.cpp': ''})
    setup_units.write_units(root, [setup_units.Unit(setup_units.read_sources(root))])
    # As a compiler that fails on several files in one.
    code = (
        'from pathlib import Path\n'
        f'for path in sorted(Path({setup_units.FOLDER!r}).iterdir()):\n'
        '    if path.read_text().count("include") > 1:\n'
        '        print("FAILED: [code=1] /x/" + path.stem + ".o ")\n'
        '        raise SystemExit(1)\n'
        '    print(path.stem)\n'
    )
    command = [sys.executable, '-c', code]
    setup_mmcv.compile_wheel(command, root, {'MAX_JOBS': '2'}, root / 'log', 'mmcv')
    assert (root / 'log').read_text().split() == ['unit_00_00_a', 'unit_00_01_b', 'unit_00_02_c']
    assert 'unit_00 did not compile: compiling its 3 files singly' in capsys.readouterr().out


@pytest.mark.parametrize(
    'line',
    [
        'ATen.h:5:2: error: #error C++20 or later is required',
        'c++: fatal error: Killed signal terminated program cc1plus',
    ],
)
@pytest.mark.subprocess
def test_a_failure_that_smaller_units_would_share_ends_the_build(line: str, tmp_path: Path) -> None:
    root = tree(tmp_path, {'a.cpp': '', 'b.cpp': ''})
    setup_units.write_units(root, [setup_units.Unit(setup_units.read_sources(root))])
    code = f"print('FAILED: [code=1] /x/unit_00.o '); print({line!r}); raise SystemExit(1)"
    command = [sys.executable, '-c', code]
    with pytest.raises(setup_common.SetupError, match='compilation failed'):
        setup_mmcv.compile_wheel(command, root, {'MAX_JOBS': '1'}, root / 'log', 'mmcv')
    assert [path.name for path in (root / setup_units.FOLDER).iterdir()] == ['unit_00.cpp']
