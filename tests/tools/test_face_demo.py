"""Demonstration of faces, on a few synthetic faces and on bad folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdet_ext.data.synthetic.faces import make_faces
from mmdet_ext.face.studies import scene_demo
from mmdet_ext.studies.face_demo import digit_faces, own_faces, write_config
from tests._helpers.tools import load_tool

tool = load_tool('face/demo.py')
main = tool.main


@pytest.mark.slow
def test_digits_are_written_to_one_folder_each(tmp_path: Path) -> None:
    faces = digit_faces(tmp_path)
    assert faces.train == list('0123456') and faces.test == list('789')
    assert not faces.mirrored
    written = {path.name: len(list(path.iterdir())) for path in tmp_path.iterdir()}
    assert sum(written.values()) == 1797 and set(written) == set('0123456789')
    assert faces.train_images == sum(written[name] for name in faces.train)


def test_own_people_are_divided_into_seen_and_unseen(tmp_path: Path) -> None:
    make_faces(tmp_path)
    faces, report = own_faces(tmp_path / 'faces', seed=0)
    assert report.endswith('16 images of 8 identities')
    assert not set(faces.train) & set(faces.test)
    assert len(faces.test) >= 2 and len(faces.train) >= 2
    assert faces.train_images == sum(
        len(list((tmp_path / 'faces' / name).iterdir())) for name in faces.train
    )
    assert own_faces(tmp_path / 'faces', seed=0) == (faces, report)


@pytest.mark.parametrize(('people', 'message'), [(0, 'identit'), (3, 'at least 4 are wanted')])
def test_too_few_people_are_an_error(
    people: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_faces(tmp_path / 'made')
    folder = tmp_path / 'people'
    folder.mkdir()
    for source in sorted((tmp_path / 'made' / 'faces').iterdir())[:people]:
        source.rename(folder / source.name)
    assert main(['--data', str(folder), '--work-dir', str(tmp_path / 'work')]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.subprocess
def test_it_trains_tests_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Characters that mim's --cfg-options would interpret, and images that cannot be used.
    root = tmp_path / 'my [faces], a=(1) \'x"'
    make_faces(root)
    for name in ('p0', 'p5'):
        (root / 'faces' / name / 'broken.jpg').write_bytes(b'\xff\xd8')
    work = root / 'work, {1}'
    before = sorted(root.joinpath('faces').rglob('*'))
    code = main(
        [
            '--data',
            str(root / 'faces'),
            '--work-dir',
            str(work),
            '--epochs',
            '1',
            '--no-scenes',
        ]
    )
    printed = capsys.readouterr().out
    assert code == 0, printed[-2000:]
    assert '16 images of 8 identities. Left out: 2 images, truncated JPEG' in printed
    report = json.loads((work / 'report.json').read_text())
    assert set(report['figures']) == {'softmax', 'ArcFace'}
    for name, figures in report['figures'].items():
        assert 0 <= figures['auc'] <= 1
        assert f'| {name} | {figures["auc"]:.3f} |' in printed
    for image in ('roc.png', 'hardest_pairs.png', 'similarities.png', 'scatter.png'):
        assert (work / image).read_bytes().startswith(b'\x89PNG'), image
    assert sorted(root.joinpath('faces').rglob('*')) == before


@pytest.mark.subprocess
def test_it_names_the_faces_in_scenes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_demo, 'TRAIN_SCENES', 8)
    monkeypatch.setattr(scene_demo, 'TEST_SCENES', 3)
    make_faces(tmp_path / 'made')
    faces, _ = own_faces(tmp_path / 'made' / 'faces', seed=0)
    run = tmp_path / 'arcface'
    config = Config.fromfile(write_config(tool.LOSSES['ArcFace'], faces, run, epochs=1, seed=0))
    with DefaultScope.overwrite_default_scope('mmpretrain'):  # weights as they are drawn
        torch.save({'state_dict': MODELS.build(config.model).state_dict()}, run / 'epoch_1.pth')
    (run / 'last_checkpoint').write_text(str(run / 'epoch_1.pth'))
    report = tool._scenes(faces, tmp_path, seed=0, epochs=1)
    assert 3 <= report['faces'] <= 12
    assert report['known'] + report['strangers'] == report['found'] <= report['faces']
    printed = capsys.readouterr().out
    assert f'faces found                          {report["found"]:4d} of' in printed
    written = json.loads((tmp_path / 'scenes' / 'recognised.json').read_text())
    assert len(written['found']) == 3 and written['threshold'] == report['threshold']
    assert (tmp_path / 'scenes' / 'recognised.png').read_bytes().startswith(b'\x89PNG')
