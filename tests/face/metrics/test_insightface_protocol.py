"""InsightFace's figures of a ``.bin`` file, against its protocol in plain loops."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mmdet_ext.face.datasets import FacePairsDataset
from mmdet_ext.face.metrics import FaceVerificationMetric

PAIRS, FOLDS = 200, 10
NAMES = ('accuracy', 'accuracy_std', 'tar', 'tar_std', 'far')


def write_bin(path: Path, noise: float) -> None:
    """Write pairs of images as InsightFace distributes them: JPEGs, two per flag, by blocks."""
    generator = np.random.default_rng(0)
    people = generator.integers(0, 256, (40, 4, 4, 3)).astype(float)
    images, flags = [], []
    for number in range(PAIRS):
        same = (number // 10) % 2 == 0
        first = int(generator.integers(40))
        second = first if same else (first + int(generator.integers(1, 40))) % 40
        for person in (first, second):
            cells = people[person] + generator.normal(0, noise, (4, 4, 3))
            pixels = np.clip(cells, 0, 255).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            images.append(cv2.imencode('.jpg', pixels)[1].tobytes())
        flags.append(same)
    path.write_bytes(pickle.dumps((images, flags)))


def embed(image: np.ndarray) -> np.ndarray:
    """Return the means of the cells around their mean, as a vector of any length."""
    cells = image.reshape(4, 8, 4, 8, 3).mean((1, 3), dtype=np.float64).ravel()
    centred: np.ndarray = cells - cells.mean()
    return centred


def decoded(content: bytes) -> np.ndarray:
    """Decode an image."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def protocol(path: Path) -> dict[str, float]:
    """Evaluate a file with loops over folds and thresholds, at a FAR of 1e-3."""
    images, flags = pickle.loads(path.read_bytes())
    rows = [embed(decoded(x)) for x in images]
    unit = np.array([row / np.linalg.norm(row) for row in rows])
    distance = ((unit[0::2] - unit[1::2]) ** 2).sum(1)
    same = np.array(flags)
    accuracies, tars, fars = [], [], []
    for test in np.array_split(np.arange(PAIRS), FOLDS):
        train = np.setdiff1d(np.arange(PAIRS), test)
        grid = np.arange(0, 4, 0.01)
        right = [((distance[train] < t) == same[train]).mean() for t in grid]
        accuracies.append(((distance[test] < grid[np.argmax(right)]) == same[test]).mean())
        fine = np.arange(0, 4, 0.001)
        rates = np.array([(distance[train] < t)[~same[train]].mean() for t in fine])
        last = np.flatnonzero(rates <= 1e-3)[-1]
        way = (1e-3 - rates[last]) / (rates[last + 1] - rates[last])
        threshold = fine[last] + way * (fine[last + 1] - fine[last])
        tars.append((distance[test] < threshold)[same[test]].mean())
        fars.append((distance[test] < threshold)[~same[test]].mean())
    return {
        'accuracy': float(np.mean(accuracies)),
        'accuracy_std': float(np.std(accuracies)),
        'tar': float(np.mean(tars)),
        'tar_std': float(np.std(tars)),
        'far': float(np.mean(fars)),
    }


def evaluated(path: Path, **options: Any) -> dict[str, float]:
    """Evaluate a file with the data set and the metric."""
    pairs = FacePairsDataset(str(path), pipeline=[dict(type='mmdet_ext.LoadFace')])
    metric = FaceVerificationMetric(**options)
    metric.dataset_meta = pairs.metainfo
    for number in range(len(pairs)):
        entry = pairs[number]
        embedding = torch.from_numpy(embed(entry['img']))
        metric.process(
            None,
            [
                {
                    'sample_idx': number,
                    'gt_label': torch.tensor([-1]),
                    'embedding': embedding,
                    'img_path': entry['img_path'],
                }
            ],
        )
    found: dict[str, float] = metric.evaluate(len(pairs))
    return found


@pytest.mark.parametrize('noise', [60.0, 110.0])
def test_figures_of_a_bin_file_equal_the_protocol(noise: float, tmp_path: Path) -> None:
    write_bin(tmp_path / 'made.bin', noise)
    found = evaluated(tmp_path / 'made.bin', insightface=True)
    expected = protocol(tmp_path / 'made.bin')
    assert 0.6 < expected['accuracy'] < 1
    for name in NAMES:
        assert found[f'face/insightface_{name}'] == pytest.approx(expected[name], abs=1e-9), name


def test_exact_figures_stay_beside_them(tmp_path: Path) -> None:
    write_bin(tmp_path / 'made.bin', 110.0)
    plain = evaluated(tmp_path / 'made.bin')
    both = evaluated(tmp_path / 'made.bin', insightface=True)
    assert {name: both[name] for name in plain} == plain
    assert sorted(set(both) - set(plain)) == sorted(f'face/insightface_{name}' for name in NAMES)


def test_all_pairs_have_no_folds_for_the_protocol() -> None:
    with pytest.raises(ValueError, match="insightface=True needs pairs='dataset'"):
        FaceVerificationMetric(pairs='all', insightface=True)
