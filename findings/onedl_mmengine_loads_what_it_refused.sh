#!/usr/bin/env bash
# OneDL's MMEngine loads a checkpoint without weights_only once it has refused it with weights_only.
#
# Versions:  mmengine 0.10.7, onedl-mmengine 0.10.12, torch 2.11.0
# Input:     three checkpoints: weights alone; weights beside a pathlib path; weights beside a date.
#            From torch 2.6 on, torch.load admits tensors and plain containers alone by default.
# Seen:      stock mmengine loads the first and raises UnpicklingError for the other two, which names
#            the class. onedl-mmengine loads all three: it logs "Could not safely load weights ...
#            Falling back to weights_only=False" and loads again, with everything that a file may ask for.
# Matters:   with the fork, the protection that torch 2.6 turned on does not hold: whatever is in a file
#            that is named in load_from, in --resume or in an inferencer is unpickled. Only a warning in
#            the log tells; with a log level of ERROR nothing does.
# Fails if any of this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for package in mmengine==0.10.7 onedl-mmengine==0.10.12; do
    python3 -m venv "$folder/$package"
    "$folder/$package/bin/pip" install --quiet --disable-pip-version-check \
        "$package" torch==2.11.0 numpy==2.4.6 opencv-python-headless==5.0.0.93 'setuptools<81'
done
cat >"$folder/load.py" <<'PYTHON'
import datetime
import pathlib
import sys

import torch
from mmengine.runner import CheckpointLoader

contents = {
    'weights': {},
    'path': {'meta': pathlib.PurePosixPath('a')},
    'date': {'meta': datetime.date(2024, 1, 1)},
}
for name, more in contents.items():
    path = f'{sys.argv[1]}/{name}.pth'
    torch.save({'state_dict': {'a': torch.ones(2)}, **more}, path)
    try:
        loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        print('RESULT', name, 'loaded', loaded.get('meta'))
    except Exception as error:
        print('RESULT', name, type(error).__name__)
PYTHON
stock=$("$folder/mmengine==0.10.7/bin/python" -W ignore "$folder/load.py" "$folder" | grep RESULT)
fork=$("$folder/onedl-mmengine==0.10.12/bin/python" -W ignore "$folder/load.py" "$folder" | grep -E 'RESULT|Falling back')
printf 'mmengine:\n%s\nonedl-mmengine:\n%s\n' "$stock" "$fork"
[ "$(grep -c 'UnpicklingError' <<<"$stock")" = 2 ]
[ "$(grep -c 'RESULT .* loaded' <<<"$stock")" = 1 ]
[ "$(grep -c 'RESULT .* loaded' <<<"$fork")" = 3 ]
[ "$(grep -c 'Falling back to weights_only=False' <<<"$fork")" = 2 ]
echo 'as described'
