"""Source distribution of mmcv, fetched from the index without running its setup.py.

`pip download` asks a source distribution for its metadata and so runs its setup.py. That of mmcv
reads its version from the `locals()` of a function, which Python 3.13 no longer fills from `exec`:
the download fails before the file could be corrected. pip's own parts find and load the file here,
with the index, mirrors, proxies and certificates that the user has set for pip.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from setup_common import SetupError, clean_environment, last_lines, venv_python

DOWNLOAD = """
import hashlib, sys
from pathlib import Path
from pip._internal.commands import create_command
from pip._vendor.packaging.specifiers import SpecifierSet
name, version, folder = sys.argv[1:]
command = create_command('download')
with command.main_context():
    options, _ = command.parse_args(['--no-binary', name, name])
    session = command.get_default_session(options)
    finder = command._build_package_finder(options, session)
    found = finder.find_best_candidate(name, SpecifierSet('==' + version)).best_candidate
    if found is None:
        sys.exit(f'no source distribution of {name} {version} is offered')
    link = found.link
    if link.is_file:
        content = Path(link.file_path).read_bytes()
    else:
        answer = session.get(link.url_without_fragment, headers={'Accept-Encoding': 'identity'})
        answer.raise_for_status()
        content = answer.content
    if link.hash and link.hash != hashlib.new(link.hash_name, content).hexdigest():
        sys.exit(f'{link.filename} differs from the hash that the index states')
    Path(folder, link.filename).write_bytes(content)
"""

#: What mmcv's setup.py says, and what means the same in every Python.
READ_VERSION = (
    ("exec(compile(f.read(), version_file, 'exec'))", 'exec(f.read(), found := {})'),
    ("return locals()['__version__']", "return found['__version__']"),
)


def download_sdist(venv: Path, name: str, version: str, folder: Path) -> Path:
    """Download the source distribution of a release into a folder; return its path.

    Raises:
        SetupError: If the index does not offer it or cannot be reached.
    """
    command = [str(venv_python(venv)), '-W', 'ignore', '-c', DOWNLOAD, name, version, str(folder)]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
    files = sorted(folder.glob('*.tar.gz'))
    if done.returncode or not files:
        raise SetupError(
            f'{name} {version} could not be downloaded:\n{last_lines(done.stderr, 6)}\n'
            '  Check the network, PIP_INDEX_URL and proxies, then run the same command again'
        )
    return files[0]


def read_version_anywhere(setup: str) -> str:
    """Make a setup.py read its version in every Python, if it reads it in the known way.

    >>> read_version_anywhere("    return locals()['__version__']")
    "    return locals()['__version__']"
    """
    if not all(old in setup for old, _ in READ_VERSION):
        return setup
    for old, new in READ_VERSION:
        setup = setup.replace(old, new)
    return setup
