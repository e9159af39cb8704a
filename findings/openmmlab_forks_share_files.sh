#!/usr/bin/env bash
# OpenMMLab's maintained forks overwrite the stock packages, and uninstalling one deletes the other.
#
# Versions:  mmengine 0.10.7, onedl-mmengine 0.10.12, pip 25.3
# Input:     a new environment in which both are installed, one after the other, as `pip install mmdet`
#            does beside onedl-mmengine, and `pip install onedl-mmcv` beside mmengine.
# Seen:      both packages hold the folder mmengine/. pip installs the second without a word and lists
#            both; the files are those of the second. Uninstalling the first removes the files of the
#            second with it: pip still lists the second, `pip install` of it says "already satisfied",
#            and `import mmengine` fails.
# Matters:   the same holds of mmcv, mmdet, mmpretrain, mmsegmentation and mim. Whoever tries a fork and
#            takes the stock package away afterwards has neither; `pip install --force-reinstall` of the
#            one that is wanted restores it.
# Fails if any of this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cd "$folder"
pip=(venv/bin/python -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet pip==25.3
"${pip[@]}" install --quiet --no-deps mmengine==0.10.7
"${pip[@]}" install --no-deps onedl-mmengine==0.10.12 >installed.txt 2>&1
"${pip[@]}" list --format freeze >both.txt
cp venv/lib/python3*/site-packages/mmengine/version.py version.py
"${pip[@]}" uninstall --quiet --yes mmengine
"${pip[@]}" list --format freeze >one.txt
"${pip[@]}" install --no-deps onedl-mmengine >again.txt 2>&1
status=0
venv/bin/python -c 'import mmengine' >imported.txt 2>&1 || status=$?
"${pip[@]}" install --quiet --no-deps --force-reinstall onedl-mmengine==0.10.12
python3 - "$status" <<'PYTHON'
import re
import sys
from pathlib import Path


def read(name):
    return Path(name).read_text()


seen = {
    'both are listed': re.findall('^.*mmengine', read('both.txt'), re.M) == ['mmengine', 'onedl-mmengine'],
    # A folder of packages in pip's settings that lacks one is a remark of its own.
    'pip warns': bool(re.search('warn(?!ing: Location)|conflict|overwrit', read('installed.txt'), re.I)),
    "the second's files": "version('onedl-mmengine')" in read('version.py'),
    'the second is listed after the first is gone': 'onedl-mmengine==0.10.12' in read('one.txt'),
    'pip says it is there': 'already satisfied: onedl-mmengine' in read('again.txt'),
    'it can be imported': sys.argv[1] == '0',
    'it is absent': "No module named 'mmengine'" in read('imported.txt'),
    'its files are back': any(Path('venv').glob('lib/python3*/site-packages/mmengine/version.py')),
}
for what, answer in seen.items():
    print(f'{what}: {answer}')
expected = [True, False, True, True, True, False, True, True]
if list(seen.values()) != expected:
    sys.exit(f'the behaviour has changed; expected {expected}')
print('as described')
PYTHON
