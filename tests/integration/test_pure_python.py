"""Configs in MMEngine's pure-Python style, and what their runs leave: a config and a checkpoint."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.data.synthetic.faces import make_faces
from mmdet_ext.utils.mim import mim_name
from tests._helpers.configs import CONFIGS, bare, shrink, shrink_face
from tests._helpers.processes import run_python
from tests._helpers.same import assert_same
from tests.integration.test_configs import differences

DETECTOR = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_pure_python_12e_bccd.py'
#: The same recipe in the other style.
TWIN_OF_DETECTOR = 'atss_r18_fpn_12e_bccd.py'
FACES = CONFIGS / 'face' / 'demo' / 'cosface_pure_python_demo.py'


@dataclass
class Run:
    """Folder of a finished run, and the results of its test."""

    work_dir: Path
    tested: dict[str, float]

    @property
    def checkpoint(self) -> Path:
        return self.work_dir / 'epoch_1.pth'

    def configs(self) -> dict[str, Config]:
        """Return the config of the work folder, and that of the checkpoint."""
        (dumped,) = self.work_dir.glob('*.py')
        hub = load_from_local(str(self.checkpoint), 'cpu')['message_hub']
        return {
            'work folder': Config.fromfile(dumped),
            'checkpoint': Config.fromstring(hub['runtime_info']['cfg'], '.py'),
        }


@pytest.fixture(
    scope='module',
    params=[
        pytest.param((DETECTOR, shrink), id='detector'),
        pytest.param((FACES, shrink_face), id='faces'),
    ],
)
def run(
    request: pytest.FixtureRequest, shapes_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Train two iterations from the classes that a leaf config names, and test."""
    leaf, make_small = request.param
    root = shapes_root
    if leaf is FACES:
        root = tmp_path_factory.mktemp('faces')
        make_faces(root)
    work_dir = tmp_path_factory.mktemp(leaf.stem)
    cfg = make_small(leaf, root, work_dir=str(work_dir), custom_hooks=[])
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return Run(work_dir, runner.test())


def types(node: Any) -> list[str]:
    """List the types of a config that name ours, in the order of its keys."""
    if isinstance(node, dict):
        own = [node['type']] if str(node.get('type')).startswith('mmdet_ext.') else []
        return own + [kind for key in sorted(node) for kind in types(node[key])]
    if isinstance(node, (list, tuple)):
        return [kind for part in node for kind in types(part)]
    return []


@pytest.mark.slow
def test_what_a_run_leaves_names_our_classes_by_their_paths(run: Run) -> None:
    for cfg in run.configs().values():
        named = types(cfg.to_dict())
        assert len(named) >= 5 and all(kind.count('.') >= 2 for kind in named)
        assert 'mmdet_ext.compat' in cfg.custom_imports.imports


@pytest.mark.slow
@pytest.mark.parametrize('source', ['work folder', 'checkpoint'])
def test_it_tests_as_the_run_did(run: Run, source: str, tmp_path: Path) -> None:
    cfg = again(run, source, tmp_path, load_from=str(run.checkpoint))
    # Of the results of faces, the threshold of an equal error is infinite without any.
    assert Runner.from_cfg(cfg).test() == pytest.approx(run.tested, rel=1e-6, nan_ok=True)


@pytest.mark.slow
def test_it_resumes(run: Run, tmp_path: Path) -> None:
    cfg = again(run, 'work folder', tmp_path, load_from=str(run.checkpoint), resume=True)
    cfg.train_cfg.max_epochs = 2
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    loaded = load_from_local(str(run.checkpoint), 'cpu')
    assert_same(loaded['state_dict'], runner.model.state_dict())
    runner.train()
    resumed = load_from_local(str(tmp_path / 'epoch_2.pth'), 'cpu')
    assert resumed['meta']['epoch'] == 2 and resumed['meta']['iter'] == 4


def again(run: Run, source: str, work_dir: Path, **options: Any) -> Config:
    """Return a config that a run left, to run it in another folder."""
    cfg = run.configs()[source]
    name = f'{work_dir.name}-{source}'
    cfg.merge_from_dict(dict(work_dir=str(work_dir), experiment_name=name, **options))
    return cfg


@pytest.mark.slow
def test_an_inferencer_needs_the_checkpoint_alone(run: Run, shapes_root: Path) -> None:
    from mmdet.apis import DetInferencer

    if 'bbox_head' not in run.configs()['checkpoint'].model:
        pytest.skip('DetInferencer takes a detector')
    image = str(min((shapes_root / 'images' / 'val').iterdir()))
    inferencer = DetInferencer(weights=str(run.checkpoint), device='cpu')
    (found,) = inferencer(image)['predictions']
    assert type(inferencer.model.bbox_head.loss_bbox).__module__ == 'mmdet_ext.losses.iou'
    assert len(found['bboxes']) == len(found['scores']) > 0


@pytest.mark.slow
def test_the_style_changes_the_form_of_types_alone() -> None:
    pair = [
        Config.fromfile(path).to_dict() for path in (DETECTOR, DETECTOR.with_name(TWIN_OF_DETECTOR))
    ]
    assert pair[0].pop('dataset_type', None) == pair[1].pop('dataset_type')
    for path, (ours, theirs) in differences(*pair).items():
        assert path.endswith('.type') and bare(ours) == bare(theirs), path


SMALL = """
from mmengine.config import read_base
with read_base():
    from .{leaf} import *
{body}
"""


@pytest.mark.subprocess
@pytest.mark.slow
def test_mim_trains_it_and_tests_what_the_run_left(shapes_root: Path, tmp_path: Path) -> None:
    """Train with a pure-Python config of a user, which inherits ours."""
    shutil.copytree(CONFIGS / '_base_', tmp_path / '_base_')
    folder = tmp_path / 'detection' / 'atss'
    folder.mkdir(parents=True)
    shutil.copy(DETECTOR, folder)
    body = (
        'for loader in (train_dataloader, val_dataloader, test_dataloader):\n'
        '    loader.update(batch_size=2, num_workers=0, persistent_workers=False)\n'
        f'    loader.dataset.update(data_root={str(shapes_root)!r}, indices=4,\n'
        "        metainfo=dict(classes=('circle', 'square', 'triangle')),\n"
        "        ann_file='annotations/instances_val.json', data_prefix=dict(img='images/val/'))\n"
        f'path = {str(shapes_root / "annotations" / "instances_val.json")!r}\n'
        'val_evaluator.ann_file = test_evaluator.ann_file = path\n'
        'train_cfg.max_epochs = 1\n'
        'model.test_cfg.update(score_thr=0.0, min_bbox_size=-1)\n'
        'del loader, path\n'
    )
    config = folder / 'small.py'
    config.write_text(SMALL.format(leaf=DETECTOR.stem, body=body))
    work_dir = tmp_path / 'run'
    printed = mim('train', config, '--work-dir', work_dir, cwd=tmp_path)
    assert 'Saving checkpoint at 1 epochs' in printed
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    dumped = work_dir / 'small.py'
    assert "type='mmdet_ext.losses.CIoULoss'" in dumped.read_text()
    words = ('--checkpoint', work_dir / 'epoch_1.pth', '--work-dir', tmp_path / 'tested')
    printed = mim('test', dumped, *words, cwd=tmp_path)
    (value,) = re.findall(r'coco/bbox_mAP: (\d\.\d{4})', printed)
    assert float(value) == pytest.approx(lines[-1]['coco/bbox_mAP'], abs=1e-4)


def mim(command: str, *words: str | Path, cwd: Path) -> str:
    """Run ``mim train mmdet`` or ``mim test mmdet`` in a new process; return its output."""
    return run_python('-m', 'mim', command, mim_name('mmdet'), *words, cwd=cwd)
