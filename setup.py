"""Build script: metadata with version ranges, and the `.mim` extension.

`mim` looks for a package's configs, tools and model index in `<package>/.mim`. Wheels and sdists
have copies of them there. An editable install has links instead, so that edits take effect at once.
onedl-mim looks in the folder of the first file that pip lists, which is the metadata of a wheel.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mmdet_ext'
MIM_PARTS = ('configs', 'tools', 'model-index.yml')
NOT_SHIPPED = shutil.ignore_patterns('__pycache__', '*.py[cod]', '.*')


def read_version() -> str:
    """Read `__version__` as text, because an import could need packages that are not installed."""
    text = (ROOT / PACKAGE / 'version.py').read_text(encoding='utf-8')
    found = re.search(r"^__version__(?:: \w+)? = '([^']+)'", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no line `__version__ = '...'` in {PACKAGE}/version.py")
    return found.group(1)


def read_requirements(name: str) -> list[str]:
    """Return the requirement lines of `requirements/<name>.txt`."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def copy_part(part: str, target: Path) -> None:
    """Copy a file or a folder of the repository to `target`."""
    if (ROOT / part).is_dir():
        shutil.copytree(ROOT / part, target, ignore=NOT_SHIPPED)
    else:
        shutil.copy2(ROOT / part, target)


def copy_mim_extension(package_dir: Path) -> None:
    """Fill `package_dir/.mim` with copies."""
    folder = package_dir / '.mim'
    remove(folder)
    folder.mkdir(parents=True)
    for part in MIM_PARTS:
        copy_part(part, folder / part)


def link_mim_extension(package_dir: Path) -> None:
    """Fill `package_dir/.mim` with links, or with copies if links are not allowed."""
    folder = package_dir / '.mim'
    folder.mkdir(exist_ok=True)
    for part in MIM_PARTS:
        link = folder / part
        remove(link)
        try:
            link.symlink_to(Path('..', '..', part), target_is_directory=(ROOT / part).is_dir())
        except OSError:
            copy_part(part, link)


class BuildPy(build_py):
    """Command that adds the `.mim` extension to what is built."""

    def run(self) -> None:
        """Build the package, then add the extension."""
        if self.editable_mode:
            super().run()
            link_mim_extension(ROOT / PACKAGE)
            return
        # Otherwise this wheel would include files of an earlier build.
        remove(Path(self.build_lib) / PACKAGE)
        super().run()
        copy_mim_extension(Path(self.build_lib) / PACKAGE)


class BdistWheel(bdist_wheel):
    """Command that adds the `.mim` extension to the metadata too.

    pip sorts the list of installed files, where `mmdet_ext-<version>.dist-info/` comes before
    `mmdet_ext/`, and onedl-mim takes the first folder of that list for the package.
    """

    def write_wheelfile(self, wheelfile_base: str, *args: object, **options: object) -> None:
        """Write the file WHEEL, then add the extension, except for an editable install."""
        super().write_wheelfile(wheelfile_base, *args, **options)
        if self.distribution.get_command_obj('editable_wheel', create=False) is None:
            copy_mim_extension(Path(wheelfile_base))


class EditableWheel(editable_wheel):
    """Command that lets mim and MMEngine find an editable install.

    Both take the package's folder to be `join(site-packages, first line of top_level.txt)`, which
    an editable install does not have. An absolute first line makes that join the source folder.
    onedl-mim reads the folder of the checkout from `direct_url.json`, which pip writes.
    """

    def _ensure_dist_info(self) -> None:
        super()._ensure_dist_info()
        top_level = Path(self.dist_info_dir, 'top_level.txt')
        top_level.write_text(f'{ROOT / PACKAGE}\n{PACKAGE}\n', encoding='utf-8')


class SDist(sdist):
    """Command that adds the `.mim` extension to the source distribution."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Fill the folder of the release, then add the extension."""
        super().make_release_tree(base_dir, files)
        copy_mim_extension(Path(base_dir) / PACKAGE)


HOSTS = ('det', 'cls', 'seg', 'mim')


def extras_of(prefix: str) -> dict[str, list[str]]:
    """Return the extras of one family of hosts.

    Args:
        prefix: Prefix of its lists and extras: nothing for the stock family, `onedl-` for the
            maintained forks. Both have the same modules: install one family or the other.
    """
    extras = {name: read_requirements(prefix + name) for name in HOSTS}
    engine = [line for line in extras['det'] if re.match(r'(onedl-)?mm(engine|cv)\b', line)]
    extras['face'] = [*engine, *read_requirements('face')]
    together = sorted({line for lines in extras.values() for line in lines})
    named = {prefix + name: lines for name, lines in extras.items()}
    return named | {prefix.rstrip('-') or 'all': together}


EXTRAS = {
    name: read_requirements(name)
    for name in ('deploy', 'eval', 'gallery', 'page', 'test', 'dev', 'docs')
}
EXTRAS |= extras_of('') | extras_of('onedl-')
# No part of `all`: xtcocotools and chumpy, which mmpose names, do not build in isolation.
EXTRAS['pose'] = read_requirements('pose')

setup(
    name='mmdet-ext',
    version=read_version(),
    description='Losses, label assigners and face recognition for stock OpenMMLab runners',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='object detection, face recognition, OpenMMLab, mmdet, label assignment, loss',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed']},
    include_package_data=False,
    python_requires='>=3.10',
    install_requires=read_requirements('runtime'),
    extras_require=EXTRAS,
    cmdclass={
        'bdist_wheel': BdistWheel,
        'build_py': BuildPy,
        'editable_wheel': EditableWheel,
        'sdist': SDist,
    },
    zip_safe=False,
)
