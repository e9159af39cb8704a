"""Data set of templates: its metainfo, its report, landmarks, and parts that it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdet_ext.data.synthetic.faces import make_faces
from mmdet_ext.face.datasets import FaceTemplatesDataset
from mmdet_ext.face.datasets import templates as module
from mmdet_ext.face.transforms.align import TEMPLATE


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp('templates')
    make_faces(folder)
    return folder


def dataset(root: Path, **options: Any) -> Any:
    lists = {'ann_file': 'templates.txt', 'pair_file': 'template_pairs.txt', **options}
    return FaceTemplatesDataset(**lists, data_root=str(root), data_prefix='faces')


def test_metainfo_holds_templates_and_shares_them_between_copies(root: Path) -> None:
    found = dataset(root)
    table = found.metainfo['templates']
    assert table['template'].tolist() == table['image'].tolist() == list(range(8))
    assert table['same'].tolist() == [True, False] * 4
    assert found.metainfo['templates']['pairs'] is table['pairs']
    assert found[7]['img_path'].endswith('p7/p7_0002.ppm') and found[7]['gt_label'] == -1


def test_the_report_counts_what_was_dropped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, int]] = []
    monkeypatch.setattr(module, 'log_report', lambda text, odd: said.append((text, odd)))
    dataset(root)
    assert said[0][0].endswith(
        'templates.txt: 8 images of 8 templates, 8 pairs (4 of one person, 4 of two)'
    )
    lines = (root / 'templates.txt').read_text().replace('p4/p4_0002', 'p4/gone')
    (root / 'fewer.txt').write_text(lines)
    assert len(dataset(root, ann_file='fewer.txt', absent='drop')) == 7
    assert '7 images of 7 templates, 6 pairs' in said[1][0] and '1 of 8 images' in said[1][0]
    assert [odd for _, odd in said] == [False, True]
    with pytest.raises(ValueError, match='1 of 8 images are absent'):
        dataset(root, ann_file='fewer.txt')


def test_landmarks_align_the_images(root: Path) -> None:
    numbers = ' '.join(f'{x} {y}' for x, y in TEMPLATE)
    names = [line.split()[0] for line in (root / 'templates.txt').read_text().splitlines()]
    (root / 'points.txt').write_text('\n'.join(f'{name} {numbers} 0.5' for name in names))
    align = dict(type='mmdet_ext.AlignFace')
    found = dataset(
        root, landmark_file='points.txt', pipeline=[dict(type='mmdet_ext.LoadFace'), align]
    )
    entry = found[3]
    assert entry['img'].shape == (112, 112, 3)
    np.testing.assert_allclose(entry['align_matrix'], [[1, 0, 0], [0, 1, 0]], atol=1e-4)
    assert found.metainfo['templates']['score'].tolist() == [0.5] * 8


def test_parts_are_refused(root: Path) -> None:
    for part in ('get_subset', 'get_subset_'):
        with pytest.raises(ValueError, match=f'{part}: a part of the images would break'):
            getattr(dataset(root), part)(3)
