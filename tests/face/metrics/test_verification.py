"""Results and files of the verification metric."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from mmengine.structures import BaseDataElement
from sklearn.metrics import roc_auc_score

from mmdet_ext.face.metrics import FaceVerificationMetric
from mmdet_ext.functional.scoring.accuracy import best_accuracy, fold_accuracy
from mmdet_ext.functional.scoring.verification import (
    count_scores,
    equal_error_rate,
    tar_at_far,
)
from tests.face.metrics.samples import brute_force, evaluated, faces, samples, with_pairs


def test_results_of_all_pairs_equal_listing_every_pair() -> None:
    embeddings, labels = faces()
    _, similarities, same = brute_force(embeddings, labels)
    found = evaluated(FaceVerificationMetric('all', block=16), samples(embeddings, labels))
    counts = count_scores(similarities, same)
    assert found['face/auc'] == pytest.approx(roc_auc_score(same, similarities), abs=1e-6)
    eer, eer_threshold = equal_error_rate(counts)
    assert found['face/eer'] == pytest.approx(eer, abs=1e-9)
    assert found['face/eer_threshold'] == pytest.approx(eer_threshold, abs=2e-6)
    assert found['face/accuracy_best'] == pytest.approx(best_accuracy(counts)[0], abs=1e-9)
    balanced, _ = best_accuracy(counts, balanced=True)
    assert found['face/balanced_accuracy_best'] == pytest.approx(balanced, abs=1e-9)
    assert (found['face/genuine_pairs'], found['face/impostor_pairs']) == (120, 1650)
    for point, name in zip(
        tar_at_far(counts, [0.1, 0.01, 0.001]), ['1e-01', '1e-02', '1e-03'], strict=True
    ):
        assert found[f'face/tar@far={name}'] == pytest.approx(point.tar, abs=1e-9)
        assert found[f'face/threshold@far={name}'] == pytest.approx(point.threshold, abs=2e-6)
    assert 'face/tar@far=1e-04' not in found and 'face/accuracy' not in found
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize('fold', [True, False], ids=['folds given', 'contiguous'])
def test_results_of_the_pairs_of_the_data_set_follow_lfw(fold: bool) -> None:
    metric = FaceVerificationMetric(fars=[0.1, 0.05], folds=4, prefix='lfw')
    similarities, same, folds = with_pairs(metric, fold)
    found = evaluated(metric, samples(*faces())[::-1])
    expected = fold_accuracy(similarities, same, folds if fold else 4)
    assert found['lfw/accuracy'] == pytest.approx(expected.mean, abs=1e-12)
    assert found['lfw/accuracy_std'] == pytest.approx(expected.std, abs=1e-12)
    assert found['lfw/accuracy_se'] == pytest.approx(expected.standard_error, abs=1e-12)
    assert found['lfw/accuracy_threshold'] == pytest.approx(np.mean(expected.thresholds))
    assert found['lfw/auc'] == pytest.approx(roc_auc_score(same, similarities), abs=1e-12)
    (point,) = tar_at_far(count_scores(similarities, same), [0.05])
    assert found['lfw/tar@far=5e-02'] == point.tar
    assert (found['lfw/genuine_pairs'], found['lfw/impostor_pairs']) == (100, 100)
    assert 'lfw/accuracy_best' not in found


def test_builds_by_name_and_takes_data_elements() -> None:
    embeddings, labels = faces()
    evaluator = Evaluator(
        METRICS.build({'type': 'mmdet_ext.FaceVerificationMetric', 'pairs': 'all'})
    )
    data = [
        BaseDataElement(
            metainfo={'sample_idx': one['sample_idx']},
            gt_label=one['gt_label'],
            embedding=one['embedding'],
        )
        for one in samples(embeddings, labels)
    ]
    evaluator.process(data)
    found = evaluator.evaluate(60)
    assert found == evaluated(FaceVerificationMetric('all'), samples(embeddings, labels))


def test_order_repeated_images_and_scale_of_embeddings_do_not_matter() -> None:
    embeddings, labels = faces()
    data = samples(embeddings, labels)
    expected = evaluated(FaceVerificationMetric('all'), data)
    metric = FaceVerificationMetric('all')
    # Two ranks, each with an image of the beginning again to be equally many.
    metric.process(None, [*data[1::2], data[1], *data[::2], data[0]])
    assert metric.evaluate(62) == pytest.approx(expected, abs=1e-5)
    scaled = samples(embeddings * 64, labels)
    assert evaluated(FaceVerificationMetric('all'), scaled) == pytest.approx(expected, abs=1e-5)


def test_collected_embeddings_do_not_hold_their_batch() -> None:
    metric = FaceVerificationMetric('all')
    batch = torch.zeros(8, 4, dtype=torch.bfloat16)
    metric.process(None, samples(batch, torch.arange(8))[:1])
    _, _, embedding, _ = metric.results[0]
    assert embedding.base is None and embedding.dtype == np.float32
    batch += 1
    assert embedding.tolist() == [0.0] * 4


@pytest.mark.parametrize('pairs', ['all', 'dataset'])
def test_collapsed_embeddings_keep_their_order_and_are_reported(
    pairs: Any, logged: list[str]
) -> None:
    embeddings, labels = faces()
    direction = torch.randn(1, 24, generator=torch.Generator().manual_seed(3))
    collapsed = embeddings + 3000 * direction
    metric = FaceVerificationMetric(pairs, fars=[0.05])
    index, _, same = brute_force(embeddings, labels)
    if pairs == 'dataset':
        with_pairs(metric)
        index = torch.from_numpy(metric.dataset_meta['pairs']['index'])
        same = torch.from_numpy(metric.dataset_meta['pairs']['same'])
    found = evaluated(metric, samples(collapsed, labels))
    unit = torch.nn.functional.normalize(collapsed.double())
    cosines = (unit[index[:, 0]] * unit[index[:, 1]]).sum(1)
    assert float(cosines.min()) > 1 - 4e-6
    assert found['face/auc'] == pytest.approx(roc_auc_score(same, cosines), abs=1e-5)
    (point,) = tar_at_far(count_scores(cosines, same), [0.05])
    assert found['face/tar@far=5e-02'] == pytest.approx(point.tar, abs=1e-9)
    assert found['face/threshold@far=5e-02'] == pytest.approx(point.threshold, abs=1e-11)
    assert any('have collapsed: all cosines lie within' in text for text in logged)


def test_most_pairs_tied_is_reported(logged: list[str]) -> None:
    embeddings, labels = faces()
    embeddings = 1e-4 * embeddings + torch.ones(24)
    evaluated(FaceVerificationMetric('all'), samples(embeddings, labels))
    assert not any('same similarity' in text for text in logged)
    # One distant embedding makes the set an ordinary one, in which all others are alike.
    embeddings[0] *= -1
    evaluated(FaceVerificationMetric('all'), samples(embeddings, labels))
    assert any('of 1,770 pairs have the same similarity, 1.0000000' in text for text in logged)


def test_a_file_in_place_of_the_folder_is_refused_when_built(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('x')
    for name in ('file', 'file/below'):
        with pytest.raises(NotADirectoryError, match=f'{name}.*file is no folder'):
            FaceVerificationMetric('all', out_dir=str(tmp_path / name))


def test_results_remain_if_a_plot_cannot_be_drawn(
    tmp_path: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError('no font')

    monkeypatch.setattr('mmdet_ext.face.metrics.verification.draw_roc', fails)
    found = evaluated(FaceVerificationMetric('all', out_dir=str(tmp_path)), samples(*faces()))
    assert found == evaluated(FaceVerificationMetric('all'), samples(*faces()))
    assert any('(RuntimeError: no font); the figures are not affected' in text for text in logged)
    assert (tmp_path / 'verification.json').is_file()


@pytest.mark.slow
@pytest.mark.parametrize('pairs', ['all', 'dataset'])
def test_json_holds_roc_with_thresholds_and_the_hardest_pairs(tmp_path: Path, pairs: Any) -> None:
    embeddings, labels = faces()
    metric = FaceVerificationMetric(pairs, hardest=5, out_dir=str(tmp_path / 'out'))
    index, similarities, same = brute_force(embeddings, labels)
    if pairs == 'dataset':
        similarities, same, _ = with_pairs(metric)
        index = torch.from_numpy(metric.dataset_meta['pairs']['index'])
    found = evaluated(metric, samples(embeddings, labels))
    content = json.loads((tmp_path / 'out' / 'verification.json').read_text())
    assert {f'face/{name}': value for name, value in content['figures'].items()} == found
    roc = content['roc']
    assert roc['thresholds'][0] is None and roc['far'][0] == roc['tar'][0] == 0
    for place in (3, len(roc['far']) // 2, -1):
        # Similarities of all pairs may differ by a step of the grid from those of a list.
        accepted = similarities >= roc['thresholds'][place] - 2e-6
        assert roc['far'][place] == pytest.approx(float(accepted[~same].float().mean()), abs=2e-3)
        assert roc['tar'][place] == pytest.approx(float(accepted[same].float().mean()), abs=1e-2)
    assert sum(content['histogram']['genuine']) == found['face/genuine_pairs']
    assert sum(content['histogram']['impostors']) == found['face/impostor_pairs']
    for name, chosen, falling in (
        ('hardest_impostors', ~same, True),
        ('hardest_genuine', same, False),
    ):
        order = similarities[chosen].argsort(descending=falling)[:5]
        listed = content[name]
        assert [one['sample_idx'] for one in listed] == index[chosen][order].tolist()
        assert [one['similarity'] for one in listed] == pytest.approx(
            similarities[chosen][order].tolist(), abs=2e-6
        )
        assert [len(set(one['gt_label'])) for one in listed] == [1 + falling] * 5
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'roc.png',
        'similarities.png',
        'verification.json',
    ]


def test_an_infinite_threshold_is_null_in_json(tmp_path: Path) -> None:
    data = samples(torch.ones(4, 3), torch.tensor([0, 0, 1, 1]))
    found = evaluated(FaceVerificationMetric('all', [0.5], out_dir=str(tmp_path)), data)
    assert 1 < found['face/threshold@far=5e-01'] < 1.00001 and found['face/auc'] == 0.5
    content = json.loads((tmp_path / 'verification.json').read_text(), parse_constant=pytest.fail)
    assert content['figures']['threshold@far=5e-01'] is None


def test_sheet_of_pairs_is_drawn_if_the_files_exist(tmp_path: Path, shared_data: Path) -> None:
    paths = [str(shared_data / 'orl' / f's{k}' / f'{j}.pgm') for k in (1, 2, 3) for j in (1, 2)]
    embeddings = torch.stack(
        [
            torch.from_numpy(cv2.imread(path, cv2.IMREAD_GRAYSCALE)).float().flatten() - 128
            for path in paths
        ]
    )
    labels = torch.arange(6) // 2
    metric = FaceVerificationMetric('all', hardest=3, out_dir=str(tmp_path))
    evaluated(metric, samples(embeddings, labels, img_path=paths))
    content = json.loads((tmp_path / 'verification.json').read_text())
    assert {path for one in content['hardest_genuine'] for path in one['img_path']} == set(paths)
    sheet = cv2.imread(str(tmp_path / 'hardest_pairs.png'))
    assert sheet is not None and sheet.shape[0] > 200 and 20 < sheet.std() < 128
