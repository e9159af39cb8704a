"""Hooks of the documentation site: generated pages, and formulas as MathML.

mkdocs calls the functions by name (``hooks`` in mkdocs.yml). The API pages follow the folders of
the package, so that a new module is documented without a line anywhere. CONTRIBUTING.md and
CHANGELOG.md lie at the head of the repository; their pages are copies with the links turned.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / 'mmdet_ext'
#: Title of a page -> the file at the head of the repository that it copies.
COPIES = {'Contributing': 'CONTRIBUTING.md', 'Changelog': 'CHANGELOG.md'}
#: What pymdownx.arithmatex makes of ``$...$`` and ``$$...$$``.
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the generated pages to the navigation."""
    assert config.nav is not None
    config.nav += [{title: name.lower()} for title, name in COPIES.items()]
    config.nav.append({'API': api_nav()})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    for name in COPIES.values():
        text = (REPO / name).read_text(encoding='utf-8').replace('](docs/', '](')
        files.append(File.generated(config, name.lower(), content=text))
    for folder in api_folders():
        files.append(File.generated(config, page_of(folder), content=api_page(folder)))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Render the formulas of a page as MathML, which browsers show without a script."""
    return FORMULA.sub(_as_mathml, content)


def _as_mathml(found: re.Match[str]) -> str:
    display = 'block' if found[1] == 'div' else 'inline'
    return str(convert(html.unescape(found[2]).strip(), display=display))


def api_folders() -> list[Path]:
    """List the folders of the package that hold modules."""
    folders = [PACKAGE, *(path for path in sorted(PACKAGE.rglob('*')) if path.is_dir())]
    return [folder for folder in folders if '.mim' not in folder.parts and modules_of(folder)]


def modules_of(folder: Path) -> list[Path]:
    """List the modules of a folder, without its ``__init__``."""
    return [path for path in sorted(folder.glob('*.py')) if not path.name.startswith('_')]


def page_of(folder: Path) -> str:
    """Return the address of the page of a folder."""
    return '/'.join(['api', *folder.relative_to(PACKAGE).parts, 'index.md'])


def api_page(folder: Path) -> str:
    """Write the page of a folder: its modules, one after the other."""
    name = '.'.join(folder.relative_to(REPO).parts)
    lines = [f'# {name}', '']
    for path in modules_of(folder):
        lines += [f'::: {name}.{path.stem}', '']
    return '\n'.join(lines)


def api_nav() -> list[Any]:
    """Return the navigation of the API pages, nested as the folders are."""
    root: list[Any] = []
    sections: dict[Path, list[Any]] = {PACKAGE: root}
    for folder in api_folders():
        missing = [folder, *folder.parents]
        for path in reversed(missing[: missing.index(PACKAGE)]):
            if path not in sections:
                sections[path] = []
                sections[path.parent].append({path.name: sections[path]})
        sections[folder].insert(0, page_of(folder))
    return root
