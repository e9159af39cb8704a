"""Tool of galleries with real recognisers: an exported file, and a config with a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmdet_ext.face.gallery import FaceGallery
from tests._helpers.exported import image_files
from tests._helpers.tools import load_tool
from tests.tools.test_export_tool import FACES

main = load_tool('face/gallery.py').main


@pytest.fixture
def trained(tmp_path: Path) -> list[str]:
    """Write a small recogniser, and images of two people; return its options."""
    from mmpretrain.registry import MODELS

    config = Config(FACES)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    config.dump(tmp_path / 'face.py')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'face.pth')
    for name, sizes in (('ann', ((80, 50), (40, 24))), ('bob', ((41, 90),))):
        (tmp_path / 'people' / name).mkdir(parents=True)
        image_files(tmp_path / 'people' / name, sizes)
    return ['--config', str(tmp_path / 'face.py'), '--checkpoint', str(tmp_path / 'face.pth')]


@pytest.mark.slow
def test_a_file_and_its_checkpoint_find_the_same_people(
    trained: list[str], tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    gallery, people = str(tmp_path / 'gallery'), str(tmp_path / 'people')
    assert main(['enrol', gallery, people, *trained, '--recogniser', 'small']) == 0
    export = load_tool('deploy/export.py').main
    assert export([trained[1], trained[3], '--to', 'onnx']) == 0
    model = ['--model', str(tmp_path / 'face.onnx')]
    images = [str(tmp_path / 'people' / 'ann'), str(tmp_path / 'people' / 'bob')]
    assert main(['search', gallery, *images, *model]) == 2
    assert "of the recogniser 'sha256:" in capsys.readouterr().err
    found = []
    for number, words in enumerate((model, trained)):
        out = tmp_path / f'{number}.json'
        words = [*words, '--recogniser', 'small', '--k', '2', '--out', str(out)]
        assert main(['search', gallery, *images, *words]) == 0
        found.append(json.loads(out.read_text())['found'])
    assert found[0].keys() == found[1].keys() and len(found[0]) == 3
    for one, other in zip(found[0].values(), found[1].values(), strict=True):
        pairs = zip(one['candidates'], other['candidates'], strict=True)
        assert all(abs(a['cosine'] - b['cosine']) < 1e-3 for a, b in pairs)


def test_a_recogniser_is_identified_by_its_files(
    trained: list[str], tmp_path: Path, capsys: Any
) -> None:
    gallery, people = str(tmp_path / 'gallery'), str(tmp_path / 'people')
    assert main(['enrol', gallery, people, *trained]) == 0
    first = FaceGallery.open(gallery).recogniser
    assert first.startswith('sha256:')
    content = torch.load(trained[3], weights_only=True)
    torch.save(
        dict(state_dict={k: v * 1 for k, v in content['state_dict'].items()}, meta=dict(a=1)),
        trained[3],
    )
    assert main(['enrol', gallery, people, *trained, '--existing', 'add']) == 2
    assert first in capsys.readouterr().err
    assert main(['list', gallery]) == 0
    assert main(['search', gallery, people, '--model', 'a', *trained]) == 2
