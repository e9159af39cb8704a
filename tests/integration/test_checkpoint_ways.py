"""Every way by which stock opens a checkpoint, in processes that have built no type of ours.

The config names our data set for training and nothing else of ours, so that only its line
``custom_imports`` can install the loading before a checkpoint is opened.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_ext.utils.families import installed_family
from mmdet_ext.utils.mim import mim_name
from tests._helpers.configs import CONFIGS, shrink
from tests._helpers.processes import run_python
from tests.compat.checkpoint_files import needs_torch_2_6

pytestmark = needs_torch_2_6
LEAF = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_stock_12e_bccd.py'


@dataclass
class Trained:
    """Config and checkpoint of a run."""

    config: Path
    checkpoint: Path
    image: Path


@pytest.fixture(scope='module')
def trained(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train two iterations with a detector of mmdet alone."""
    folder = tmp_path_factory.mktemp('ways')
    cfg = shrink(LEAF, shapes_root, work_dir=str(folder / 'run'))
    for split in ('val', 'test'):
        cfg[f'{split}_dataloader'].dataset.type = 'CocoDataset'
    cfg.tta_model = dict(
        type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=9)
    )
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    packed = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    packed += ('flip', 'flip_direction')
    cfg.tta_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(
            type='TestTimeAug',
            transforms=[
                [dict(type='Resize', scale=(96, 72), keep_ratio=True)],
                flips,
                [dict(type='LoadAnnotations', with_bbox=True)],
                [dict(type='PackDetInputs', meta_keys=packed)],
            ],
        ),
    ]
    Runner.from_cfg(cfg).train()
    (config,) = (folder / 'run').glob('*.py')
    image = min((shapes_root / 'images' / 'val').iterdir())
    return Trained(config, folder / 'run' / 'epoch_1.pth', image)


# Before each way, the process is as it was before any import of ours. A way gives the weights that
# it loaded, by their sum, or the error.
WAYS = """
import json, sys, warnings
import mmengine.runner.checkpoint as host
import torch
from mmdet.apis import DetInferencer, init_detector
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader, Runner
register_all_modules()
config, checkpoint, folder = sys.argv[1:]
stock, functions = CheckpointLoader._schemes[''], dict(vars(host))

def runner(**options):
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(dict(work_dir=folder, experiment_name=str(len(found)), **options))
    made = Runner.from_cfg(cfg)
    made.load_or_resume()
    return made

def pretrained():
    init = dict(type='Pretrained', checkpoint=checkpoint, prefix='neck.')
    made = runner(model=dict(neck=dict(init_cfg=init)))
    made._init_model_weights()
    return made.model

ways = {
    'DetInferencer(config, weights)':
        lambda: DetInferencer(config, checkpoint, device='cpu').model,
    'DetInferencer(weights)':
        lambda: DetInferencer(weights=checkpoint, device='cpu').model,
    'DetInferencer(weights) after the import':
        lambda: [__import__('mmdet_ext.compat'), DetInferencer(weights=checkpoint, device='cpu')][1]
        .model,
    'init_detector': lambda: init_detector(config, checkpoint, device='cpu'),
    'load_from': lambda: runner(load_from=checkpoint).model,
    'resume': lambda: runner(load_from=checkpoint, resume=True).model,
    'Pretrained': pretrained,
}
found = {}
for name, way in ways.items():
    CheckpointLoader.register_scheme('', stock, force=True)
    vars(host).update(functions)
    torch.serialization.clear_safe_globals()
    for module in [key for key in sys.modules if key.startswith('mmdet_ext.compat')]:
        del sys.modules[module]
    try:
        weights = way().neck.state_dict()
        found[name] = sum(value.double().sum().item() for value in weights.values())
    except Exception as error:
        found[name] = type(error).__name__
print(json.dumps(found))
"""


@pytest.mark.subprocess
@pytest.mark.slow
def test_checkpoints_load_by_every_way_of_a_config(trained: Trained, tmp_path: Path) -> None:
    from mmdet_ext.compat.checkpoint import load_from_local

    (tmp_path / 'ways.py').write_text(WAYS)
    printed = run_python(
        tmp_path / 'ways.py', trained.config, trained.checkpoint, tmp_path / 'run', cwd=tmp_path
    )
    found = json.loads(printed.splitlines()[-1])
    # No config is read before the file is opened: MMEngine alone refuses its own checkpoint, and
    # its fork loads it.
    if installed_family() != 'onedl':
        assert found.pop('DetInferencer(weights)') == 'UnpicklingError'
    weights = load_from_local(str(trained.checkpoint), 'cpu')['state_dict']
    total = sum(v.double().sum().item() for k, v in weights.items() if k.startswith('neck.'))
    assert abs(total) > 1e-3 and len(found) >= 6
    assert found == {name: pytest.approx(total, rel=1e-9) for name in found}


@pytest.mark.subprocess
@pytest.mark.slow
def test_mim_test_with_augmentation_loads_where_the_training_set_alone_is_ours(
    trained: Trained, tmp_path: Path
) -> None:
    words = ['--checkpoint', trained.checkpoint, '--work-dir', tmp_path / 'tested', '--tta']
    words += ['--cfg-options', 'log_level=INFO']
    words = ['test', mim_name('mmdet'), trained.config, *words]
    printed = run_python('-m', 'mim', *words, cwd=tmp_path)
    assert f'Load checkpoint from {trained.checkpoint}' in printed
    assert re.search(r'coco/bbox_mAP: \d\.\d{4}', printed)


@pytest.mark.subprocess
@pytest.mark.slow
def test_a_tool_of_mmdet_that_reads_no_config_runs_behind_the_import(
    trained: Trained, tmp_path: Path
) -> None:
    import mmdet

    tool = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'model_converters' / 'publish_model.py'
    out = tmp_path / 'published.pth'
    run_python('-m', 'mmdet_ext.compat', tool, trained.checkpoint, out, cwd=tmp_path)
    (published,) = tmp_path.glob('published-*.pth')
    assert 0 < published.stat().st_size < trained.checkpoint.stat().st_size


def test_the_config_of_a_work_folder_keeps_the_import(trained: Trained) -> None:
    assert Config.fromfile(trained.config).custom_imports == dict(
        imports=['mmdet_ext.compat'], allow_failed_imports=False
    )
    named = set(re.findall(r"type='(mmdet_ext[^']*)'", trained.config.read_text()))
    assert named == {'mmdet_ext.CocoDataset'}


def test_a_list_of_a_user_replaces_ours(tmp_path: Path) -> None:
    """Show why a config with imports of its own must name `mmdet_ext.compat` too."""
    (tmp_path / 'base.py').write_text("custom_imports = dict(imports=['mmdet_ext.compat'])\n")
    (tmp_path / 'own.py').write_text(
        "_base_ = 'base.py'\ncustom_imports = dict(imports=['json'], allow_failed_imports=False)\n"
    )
    assert Config.fromfile(tmp_path / 'own.py').custom_imports.imports == ['json']
