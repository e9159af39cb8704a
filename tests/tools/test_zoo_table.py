"""tools/analysis/zoo_table.py: figures of a detector, and the zoo itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdet_ext.detection.inspection.cost import (
    build_detector,
    example,
    features_of,
    image_size,
    measure_cost,
)
from mmdet_ext.studies.receptive_field import layer_fields
from tests._helpers.configs import CONFIGS
from tests._helpers.tools import load_tool

zoo_table = load_tool('analysis/zoo_table.py')

ZOO = CONFIGS / 'zoo_small'
DETECTORS = (
    'rcnn sppnet fast_rcnn faster_rcnn mask_rcnn rfcn light_head_rcnn fpn pafpn ssd yolov1 yolov2 '
    'yolov3 yolov4 yolov5 yolox retinanet fcos atss gfl cornernet centernet efficientdet detr '
    'se_resnet'
)


def test_the_zoo_has_a_leaf_per_detector_and_a_page() -> None:
    assert {path.stem.partition('_small_')[0] for path in ZOO.glob('*.py')} == {*DETECTORS.split()}
    page = (CONFIGS.parent / 'docs' / 'zoo.md').read_text(encoding='utf-8')
    assert all(path.stem in page for path in ZOO.glob('*.py'))


@pytest.mark.slow
def test_figures_of_a_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaf = ZOO / 'ssd_small_12e_shapes.py'
    assert zoo_table.main([str(leaf), '--out', str(tmp_path), '--runs', '2']) == 0
    (row,) = json.loads((tmp_path / 'zoo.json').read_text(encoding='utf-8'))['rows']
    # The field of a ResNet-18 by hand: 7 + 2 * 2 for the stem, and then four convolutions of 3 x 3
    # per stage, at 4, 8, 16 and 32 px, of which the first of a later stage comes at the one before.
    assert 11 + 8 * 4 + (8 + 16 * 3) + (16 + 32 * 3) + (32 + 64 * 3) == 435
    layers = {layer['name']: layer for layer in row['layers']}
    assert layers['backbone.layer4.1.conv2']['measured'] == 435
    assert layers['backbone.layer4.1.conv2']['field'] == 435
    # 180 px are padded to 192; the last map of the neck is half as large, and sees two units more.
    assert layers['backbone.layer4.1.conv2']['map_size'] == [6, 8]
    assert layers['neck.extra_convs.0.conv']['map_size'] == [3, 4]
    assert layers['neck.extra_convs.0.conv']['field'] == 435 + 2 * 32
    assert all(layer['agrees'] for layer in row['layers'])
    assert (row['width'], row['height'], row['threads']) == (240, 180, 1)
    assert row['median_ms'] > 0
    assert (tmp_path / 'zoo.md').read_text(encoding='utf-8') in capsys.readouterr().out
    for name in ('costs.png', f'sizes_{leaf.stem}.png'):
        assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['fpn', 'pafpn', 'yolov2', 'yolov3', 'efficientdet', 'centernet'])
def test_formula_and_gradients_agree_in_every_layer_behind_an_upsampling(name: str) -> None:
    (leaf,) = ZOO.glob(f'{name}_small_*.py')
    cfg = Config.fromfile(leaf)
    model = build_detector(cfg)
    layers = layer_fields(*features_of(model, example(cfg, *image_size(cfg, (240, 180)))))
    assert [layer.name for layer in layers if layer.agrees is not True] == []
    assert sum(layer.name.startswith('neck') for layer in layers) >= 2


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'error: no such config: '),
        ('model = dict(', 'config.py: SyntaxError: '),
        ("default_scope = 'mmpretrain'", "config.py is of default_scope 'mmpretrain', and the"),
        ("model = dict(type='mmdet.ChannelMapper')", 'error: cannot measure '),
    ],
)
def test_a_config_of_no_detector_is_an_error_of_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / 'config.py'
    if content:
        config.write_text(content)
    assert zoo_table.main([str(config), '--out', str(tmp_path / 'out')]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('error: ') and message in line
    assert not list(tmp_path.rglob('zoo.*'))


class OneConvolution(nn.Module):
    """Network that predicts by one convolution of 3 x 3 from 3 to 4 channels, and one head of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.attention = nn.MultiheadAttention(8, 1, batch_first=True)
        self.eval()

    def test_step(self, data: dict) -> torch.Tensor:
        self.conv(data['inputs'][0][None].float())
        tokens = torch.zeros(1, 5, 8)
        return self.attention(tokens, tokens, tokens)[0]


def test_operations_by_hand() -> None:
    data = dict(inputs=[torch.zeros(3, 10, 20)], data_samples=[])
    cost = measure_cost(OneConvolution(), data, runs=2)
    convolution = 2 * 9 * 3 * 4 * 10 * 20
    # Four products of 5 x 8 by 8 x 8, then 5 x 8 by 8 x 5, and 5 x 5 by 5 x 8.
    attention = 4 * 2 * 5 * 8 * 8 + 2 * 2 * 5 * 5 * 8
    assert cost.gflops * 1e9 == pytest.approx(convolution + attention)
    assert cost.parameters == 108 + 3 * 64 + 24 + 64 + 8
    assert (cost.width, cost.height) == (20, 10)


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(ValueError, match='runs must be at least 2, got 1'):
        measure_cost(OneConvolution(), dict(inputs=[], data_samples=[]), runs=1)


def test_sizes_that_a_config_gives_its_images() -> None:
    assert image_size(Config.fromfile(ZOO / 'yolov1_small_24e_shapes.py'), (240, 180)) == (448, 448)
    cfg = Config.fromfile(ZOO / 'rcnn_small_12e_shapes.py')
    assert image_size(cfg, (240, 180)) == (240, 180)
    model = build_detector(cfg)
    data = example(cfg, 240, 180)
    assert len(data['data_samples'][0].proposals) > 100
    # The network sees crops, not the image.
    network, size = features_of(model, data)
    assert size == (64, 64) and network.backbone is model.roi_head.bbox_roi_extractor.backbone
