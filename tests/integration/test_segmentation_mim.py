"""Commands of a user: `mim train mmseg`, `mim test mmseg`, `--tta` and `--resume`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.data.synthetic.shapes import make_shapes
from tests._helpers.configs import CONFIGS, shrink_segmentation
from tests._helpers.processes import run_python

LEAF = CONFIGS / 'segmentation' / 'unet' / 'unet_s4_dice_ce_36e_shapes.py'


def mim(*words: str | Path, cwd: Path) -> str:
    return run_python('-m', 'mim', *words, cwd=cwd)


@pytest.mark.subprocess
@pytest.mark.slow
def test_train_test_resume(tmp_path: Path) -> None:
    pytest.importorskip('mmseg', reason='mmsegmentation is not installed')
    root, config, run = tmp_path / 'shapes', tmp_path / 'tiny.py', tmp_path / 'run'
    make_shapes(root, train=8, val=4, width=96, height=76, preview=False, masks=True)
    shrink_segmentation(LEAF, root, log_level='INFO').dump(config)

    mim('train', 'mmseg', config, '--work-dir', run, cwd=tmp_path)
    first = load_from_local(str(run / 'epoch_1.pth'), 'cpu')
    assert first['meta']['iter'] == 2
    assert len(list(run.glob('*/confusion_matrix.png'))) == 1  # beside the log of the training

    test = ('test', 'mmseg', config, '--checkpoint', run / 'epoch_1.pth', '--work-dir')
    tested = mim(*test, tmp_path / 'tested', cwd=tmp_path)
    assert re.search(r'class +IoU +Acc +share\n *background +\d+\.\d\d', tested)
    (written,) = (tmp_path / 'tested').glob('*/segmentation.json')
    assert written.with_name('confusion_matrix.png').stat().st_size > 10_000
    content = json.loads(written.read_text())
    assert f'mIoU: {content["figures"]["mIoU"]:.2f}' in tested
    assert content['pixels'] + content['ignored_pixels'] == 2 * 96 * 76
    # The validation of the training gave the same.
    (validated,) = run.glob('*/segmentation.json')
    assert json.loads(validated.read_text()) == content

    mirrored = mim(*test, tmp_path / 'mirrored', '--tta', cwd=tmp_path)
    (written,) = (tmp_path / 'mirrored').glob('*/segmentation.json')
    assert json.loads(written.read_text())['pixels'] == content['pixels']
    assert 'mIoU' in mirrored

    options = ('--cfg-options', 'train_cfg.max_epochs=2')
    mim('train', 'mmseg', config, '--work-dir', run, '--resume', *options, cwd=tmp_path)
    second = load_from_local(str(run / 'epoch_2.pth'), 'cpu')
    assert second['meta']['epoch'] == 2 and second['meta']['iter'] == 4
    logged = [
        checkpoint['message_hub']['log_scalars']['train/loss'].data[0].tolist()
        for checkpoint in (first, second)
    ]
    assert len(logged[1]) == 4 and logged[1][:2] == logged[0]
