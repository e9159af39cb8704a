"""Command lines of the tools of results: thresholds, comparison, errors, on drawn images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.analysis.detection.columns import Detections, TruthSet
from tests._helpers.results.detections import coco_content, made_set
from tests._helpers.tools import load_tool
from tests.detection.metrics.test_operating_points import samples_of
from tests.detection.metrics.test_sources import dumped

choose_threshold = load_tool('analysis/choose_threshold.py')
compare_results = load_tool('analysis/compare_results.py')
analyze_errors = load_tool('analysis/analyze_errors.py')


@pytest.fixture
def made() -> tuple[TruthSet, Detections]:
    data, found = made_set(5, images=8, classes=3)
    return data, found


@pytest.fixture
def root(made: tuple[TruthSet, Detections], tmp_path: Path) -> Path:
    """Write annotations, images, results, and worse results of the same images."""
    data, found = made
    (tmp_path / 'truth.json').write_text(json.dumps(coco_content(data)), 'utf-8')
    for path in data.paths:
        cv2.imwrite(str(tmp_path / path), np.full((100, 100, 3), 128, np.uint8))
    dumped(samples_of(data, found), tmp_path / 'good.pkl')
    worse = dataclasses.replace(found, label=(found.label + 1) % 3)
    dumped(samples_of(data, worse), tmp_path / 'bad.pkl')
    return tmp_path


def is_png(path: Path) -> bool:
    image = cv2.imread(str(path))
    return image is not None and image.shape[0] > 300 and int(image.std()) > 5


@pytest.mark.slow
def test_thresholds_are_printed_drawn_and_written(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = root / 'out'
    words = [str(root / 'good.pkl'), str(root / 'truth.json'), '--out', str(out)]
    words += ['--precision', '0.3', '--recall', '1', '--resamples', '20', '--iou', '0.5', '0.75']
    assert choose_threshold.main(words) == 0
    printed = capsys.readouterr().out
    assert 'IoU 0.75, 8 images' in printed and 'recall >= 1' in printed
    assert 'not reached' in printed
    report = json.loads((out / 'operating_points.json').read_text('utf-8'))
    best = report['iou_thresholds'][0]['overall']['chosen'][0]
    assert f'{best["threshold"]:.3f}' in printed and best['wish'] == 'best F1'
    assert is_png(out / 'operating_points.png')


@pytest.mark.slow
def test_a_comparison_is_printed_drawn_and_written(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(root / 'good.pkl'), str(root / 'bad.pkl'), str(root / 'truth.json')]
    options = ['--resamples', '40', '--iou', '0.5', '0.75', '--out', str(root / 'out')]
    assert compare_results.main([*words, *options, '--images', str(root)]) == 0
    printed = capsys.readouterr().out
    assert 'first is better' in printed and 'images got worse' in printed
    report = json.loads((root / 'out/comparison.json').read_text('utf-8'))
    assert report['figures']['AP50']['mean']['difference'] < 0
    assert report['worst_images'][0]['errors'][1] > report['worst_images'][0]['errors'][0]
    assert is_png(root / 'out/differences.png') and is_png(root / 'out/worst_images.png')
    assert compare_results.main([*words[:1], *words[:1], words[2], *options]) == 0
    assert 'no image got worse' in capsys.readouterr().out
    assert compare_results.main([*words, *options]) == 0
    assert 'no worst_images.png; give --images' in capsys.readouterr().out


@pytest.mark.slow
def test_errors_are_printed_drawn_and_written(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(root / 'good.pkl'), str(root / 'truth.json'), '--out', str(root / 'out')]
    assert analyze_errors.main([*words, '--images', str(root), '--count', '5']) == 0
    printed = capsys.readouterr().out
    report = json.loads((root / 'out/errors.json').read_text('utf-8'))
    assert is_png(root / 'out/errors.png')
    for kind, entry in report['kinds'].items():
        assert f'{kind:<14}{entry["count"]:>9,}{entry["cost"]:>8.3f}' in printed
        assert (root / f'out/errors_{kind}.png').exists() is (entry['count'] > 0)
    assert is_png(root / 'out/errors_localisation.png')
    assert analyze_errors.main(words) == 0
    assert 'no sheets; give --images' in capsys.readouterr().out


def test_the_test_data_of_a_config_is_the_ground_truth(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='truth.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('class 0', 'class 1', 'class 2')),
        test_mode=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs')],
    )
    loader = dict(batch_size=1, num_workers=0, dataset=data)
    (root / 'config.py').write_text(
        f"default_scope = 'mmdet'\nval_dataloader = {loader!r}\ntest_dataloader = {loader!r}\n",
        'utf-8',
    )
    printed = []
    for truth in ('truth.json', 'config.py'):
        words = [str(root / 'good.pkl'), str(root / truth), '--out', str(root / truth[:2])]
        assert choose_threshold.main([*words, '--resamples', '0']) == 0
        printed.append(capsys.readouterr().out.split('class')[1:])
    # Nothing but the paths of what was written differs.
    assert [part.split('/')[0] for part in printed[0]] == [
        part.split('/')[0] for part in printed[1]
    ]


TOOLS = {
    'choose_threshold': (choose_threshold, 1),
    'compare_results': (compare_results, 2),
    'analyze_errors': (analyze_errors, 1),
}


@pytest.mark.parametrize(('tool', 'results'), TOOLS.values(), ids=TOOLS)
def test_wrong_input_is_an_error_of_one_line(
    tool: object, results: int, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ['--out', str(root / 'out')]
    wrong = {
        'no such file of results': (['absent.pkl'] * results, 'truth.json', []),
        'no such file of annotations': (['good.pkl'] * results, 'absent.json', []),
        'no such config': (['good.pkl'] * results, 'absent.py', []),
        "has no class ['cat']": (['good.pkl'] * results, 'truth.json', ['--classes', 'cat']),
        'is no class; there are 1': (
            ['good.pkl'] * results,
            'truth.json',
            ['--classes', 'class 0'],
        ),
    }
    for message, (files, truth, more) in wrong.items():
        words = [*(str(root / name) for name in files), str(root / truth), *more, *out]
        assert tool.main(words) == 2  # type: ignore[attr-defined]
        error = capsys.readouterr().err
        assert error.startswith('error: ') and message in error and error.count('\n') == 1
    assert not (root / 'out').exists()
