"""Tests of the tool that draws what configs train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('mmdet', reason='MMDetection is absent')

from mmengine.config import Config

from mmdet_ext.detection.inspection.training import TrainingSet, learning_rates
from mmdet_ext.engine.errors import InputError
from tests._helpers.configs import CONFIGS
from tests._helpers.tools import load_tool

CRAFT = CONFIGS / 'craft'


@pytest.fixture(scope='module')
def tool() -> Any:
    return load_tool('analysis/show_training.py')


def config(name: str, root: Path | None = None) -> Config:
    found = Config.fromfile(CRAFT / f'{name}_shapes.py')
    if root is not None:
        for part in (found.train_dataloader.dataset, found.train_dataloader.dataset.get('dataset')):
            if part is not None and 'data_root' in part:
                part.data_root = f'{root}/'
    return found


def test_figures_are_written_for_each_config(
    tool: Any, shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name in ('cutmix', 'early_stopping'):
        config(name, shapes_root).dump(tmp_path / f'{name}.py')
        paths.append(str(tmp_path / f'{name}.py'))
    assert tool.main([*paths, '--count', '2', '--out', str(tmp_path / 'out')]) == 0
    written = {path.name for path in (tmp_path / 'out').iterdir()}
    assert written == {'cutmix.png', 'early_stopping.png', 'learning_rates.png'}
    assert 'early_stopping: ReduceOnPlateauLR follows figures of validation' in (
        capsys.readouterr().out
    )


def test_samples_follow_the_seed_and_keep_colours(shapes_root: Path) -> None:
    import cv2

    data = TrainingSet(config('cutmix', shapes_root))
    one, same, other = (data.sample(1, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.image, same.image) and np.array_equal(one.boxes, same.boxes)
    assert any(not np.array_equal(one.image, data.sample(1, seed).image) for seed in range(4, 10))
    assert other.image.dtype == np.uint8
    assert len(one.boxes) == len(one.labels)
    # Without any change, an image is that of the file, in RGB.
    plain = config('multi_scale', shapes_root)
    plain.train_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs'),
    ]
    data = TrainingSet(plain)
    path = data._data.get_data_info(0)['img_path']
    assert np.array_equal(data.sample(0, 0).image, cv2.imread(path)[..., ::-1])


def test_learning_rates_are_those_of_the_schedules() -> None:
    # 40 images in batches of four: ten steps of an epoch.
    cfg = config('cosine_floor')
    del cfg.param_scheduler[0]
    rates, length, waits = learning_rates(cfg, 40)
    assert (len(rates), length, waits) == (100, 10, ())
    base = 1e-3
    # Eight epochs of cosine down to a twentieth, and two epochs there.
    step = np.arange(80)
    wanted = base * (0.05 + 0.95 * (1 + np.cos(np.pi * step / 80)) / 2)
    assert rates[:80] == pytest.approx(wanted, rel=1e-6)
    # A scheduler's last step is the one before its end.
    assert (rates[80:] == rates[79]).all() and rates[79] == pytest.approx(0.05 * base, rel=0.01)
    # Thirty steps of warm-up before it.
    rates = learning_rates(config('cosine_floor'), 400).rates
    assert rates[0] == pytest.approx(0.01 * base, rel=1e-6) and rates[:40].argmax() == 29
    rates = learning_rates(config('one_cycle'), 40).rates
    assert rates.max() == pytest.approx(2e-3, rel=1e-6) and rates.argmax() == pytest.approx(29, 1)
    assert rates[0] == pytest.approx(2e-3 / 25, rel=1e-6) and rates[-1] < 1e-6


def test_a_schedule_by_epochs_and_one_by_steps() -> None:
    cfg = config('cosine_floor')
    cfg.param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[2], gamma=0.1)]
    cfg.train_cfg.max_epochs = 4
    rates = learning_rates(cfg, 12).rates
    assert rates == pytest.approx([1e-3] * 6 + [1e-4] * 6)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=7)
    cfg.param_scheduler = dict(type='ConstantLR', by_epoch=False, factor=0.5, end=3)
    rates, length, _ = learning_rates(cfg, 12)
    assert length is None
    assert rates == pytest.approx([5e-4] * 2 + [1e-3] * 5)


def test_wrong_input_is_named(
    tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaf = str(CRAFT / 'cutmix_shapes.py')
    out = str(tmp_path / 'out')
    for argv, message in (
        ([leaf, '--count', '0', '--out', out], '--count must be 1 or more, got 0'),
        ([leaf, leaf, '--out', out], 'cutmix_shapes is the name of several configs'),
        ([leaf, '--out', leaf], 'is a file; give a folder'),
        ([str(tmp_path / 'none.py'), '--out', out], 'none.py'),
    ):
        assert tool.main(argv) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    with pytest.raises(InputError, match='no train_dataloader'):
        TrainingSet(Config({}))
    with pytest.raises(InputError, match='no train_cfg'):
        learning_rates(Config({}), 4)
