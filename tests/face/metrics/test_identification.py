"""Identification metric: enrolment, results of the functional form, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS
from torch import Tensor

from mmdet_ext.face.metrics import FaceIdentificationMetric
from mmdet_ext.functional.scoring.identification import match_rates, search_gallery, tpir_at_fpir


def faces(images: int = 5, identities: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images * identities) % identities
    centres = torch.randn(identities, 16, generator=generator)
    return centres[labels] + torch.randn(len(labels), 16, generator=generator), labels


def evaluated(
    metric: FaceIdentificationMetric, embeddings: Tensor, labels: Tensor
) -> dict[str, float]:
    data = [
        {'sample_idx': k, 'gt_label': label[None], 'embedding': row}
        for k, (row, label) in enumerate(zip(embeddings, labels, strict=True))
    ]
    metric.process(None, data[::-1])
    found: dict[str, float] = metric.evaluate(len(data))
    return found


def expected(
    embeddings: Tensor, labels: Tensor, enrolled: Tensor, fpirs: list[float], rank: int = 1
) -> dict[str, float]:
    found = search_gallery(
        embeddings[~enrolled], labels[~enrolled], embeddings[enrolled], labels[enrolled]
    )
    rates = match_rates(found, 10)
    figures = {f'face/rank-{k}': float(rates[k - 1]) for k in (1, 5, 10)}
    for point in tpir_at_fpir(found, fpirs, rank) if fpirs else []:
        figures[f'face/tpir@fpir={point.bound:.0e}'] = point.tpir
        figures[f'face/threshold@fpir={point.bound:.0e}'] = point.threshold
    return figures


def assert_holds(found: dict[str, float], figures: dict[str, float]) -> None:
    assert {name: found[name] for name in figures} == pytest.approx(figures, abs=1e-9)


@pytest.mark.parametrize('count', [1, 2])
def test_first_images_are_enrolled_and_the_others_searched(count: int) -> None:
    embeddings, labels = faces()
    metric = FaceIdentificationMetric(gallery_per_identity=count)
    found = evaluated(metric, embeddings, labels)
    assert_holds(found, expected(embeddings, labels, torch.arange(100) < 20 * count, []))
    assert found['face/mated_probes'] == 100 - 20 * count
    assert found['face/nonmated_probes'] == 0
    assert (found['face/gallery_identities'], found['face/gallery_pictures']) == (20, 20 * count)
    assert 0.2 < found['face/rank-1'] < found['face/rank-5'] < 1
    assert not any('fpir' in name for name in found)
    assert all(type(value) is float for value in found.values())


def test_distractors_and_nonmated_identities_by_label_and_name() -> None:
    embeddings, labels = faces()
    metric = FaceIdentificationMetric(
        distractors=[3, 'person 7'],
        nonmated=['person 0', 12, 13, 14],
        fpirs=[0.2, 0.1],
        tpir_rank=3,
    )
    metric.dataset_meta = {'classes': [f'person {k}' for k in range(20)]}
    found = evaluated(metric, embeddings, labels)
    enrolled = torch.isin(labels, torch.tensor([3, 7]))
    strangers = torch.isin(labels, torch.tensor([0, 12, 13, 14]))
    enrolled |= (torch.arange(100) < 20) & ~strangers
    assert_holds(found, expected(embeddings, labels, enrolled, [0.2, 0.1], rank=3))
    assert found['face/gallery_identities'] == 16
    assert found['face/gallery_pictures'] == 14 + 10
    assert (found['face/mated_probes'], found['face/nonmated_probes']) == (14 * 4, 20)


def test_a_share_of_the_identities_is_nonmated_from_the_last_on() -> None:
    embeddings, labels = faces()
    found = evaluated(FaceIdentificationMetric(nonmated=0.25, distractors=[19]), embeddings, labels)
    # 5 of the 19 other identities: labels 14 to 18.
    enrolled = (torch.arange(100) < 14) | (labels == 19)
    assert_holds(found, expected(embeddings, labels, enrolled, [0.1]))
    assert found['face/nonmated_probes'] == 25
    assert 'face/tpir@fpir=1e-02' not in found


@pytest.mark.parametrize('unknown', ['distractors', 'nonmated'])
def test_unknown_images_have_an_identity_of_their_own_each(unknown: Any) -> None:
    embeddings, labels = faces()
    labels = torch.where(labels >= 17, -1, labels)
    found = evaluated(FaceIdentificationMetric(unknown=unknown), embeddings, labels)
    own = torch.where(labels < 0, 1000 + torch.arange(100), labels)
    enrolled = (torch.arange(100) % 100 < 20) & (labels >= 0)
    if unknown == 'distractors':
        enrolled |= labels < 0
        assert_holds(found, expected(embeddings, own, enrolled, []))
        assert (found['face/gallery_identities'], found['face/nonmated_probes']) == (32, 0)
    else:
        assert_holds(found, expected(embeddings, own, enrolled, [0.1]))
        assert (found['face/gallery_identities'], found['face/nonmated_probes']) == (17, 15)


@pytest.mark.parametrize('given', ['option', 'dataset'])
def test_images_to_enrol_may_be_listed(given: str) -> None:
    embeddings, labels = faces()
    chosen = [0, 21, 42, 63, 84]  # identities 0 to 4
    metric = FaceIdentificationMetric(gallery=chosen if given == 'option' else 'dataset')
    metric.dataset_meta = {'gallery': np.array(chosen)}
    found = evaluated(metric, embeddings, labels)
    enrolled = torch.isin(torch.arange(100), torch.tensor(chosen))
    assert_holds(found, expected(embeddings, labels, enrolled, [0.1]))
    assert (found['face/mated_probes'], found['face/nonmated_probes']) == (20, 75)


def test_identities_with_too_few_images_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(FaceIdentificationMetric, 'say', lambda self, text, *_: logged.append(text))
    embeddings, labels = faces()
    labels[40] = 20  # one image of its own
    evaluated(FaceIdentificationMetric(), embeddings, labels)
    assert logged == [
        '1 of 21 identities have no more than 1 images: enrolled, but never searched',
        'no FPIR without non-mated probes; name identities in nonmated for it',
    ]


def test_json_holds_the_cmc_and_the_points(tmp_path: Path) -> None:
    embeddings, labels = faces()
    metric = METRICS.build(
        {
            'type': 'mmdet_ext.FaceIdentificationMetric',
            'nonmated': 0.5,
            'fpirs': [0.1],
            'out_dir': str(tmp_path),
        }
    )
    found = evaluated(metric, embeddings, labels)
    content = json.loads((tmp_path / 'identification.json').read_text())
    assert {f'face/{name}': value for name, value in content['figures'].items()} == found
    assert len(content['cmc']) == 10 and content['cmc'][-1] == 1.0
    assert content['cmc'][4] == found['face/rank-5']
    (point,) = content['open_set']
    assert point['bound'] == 0.1 and point['fpir'] == point['false_positives'] / 50 <= 0.1
    assert point['tpir'] == found['face/tpir@fpir=1e-01']
    assert (tmp_path / 'cmc.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'nonmated': 0.5, 'fpirs': [0.01]}, r'fpirs holds 0\.01, below 1 / 50: 50 non-mated'),
        ({'fpirs': [0.1]}, 'mated and 0 non-mated'),
        ({'distractors': [77]}, r'distractors: no image of 1 identities was evaluated: \[77\]'),
        ({'nonmated': ['Nobody']}, r"nonmated: no image of 1.*\['Nobody'\]; labels are 0 to 19"),
        ({'nonmated': 'Somebody'}, 'nonmated must be a list'),
        ({'distractors': [1, 2], 'nonmated': [2, 3]}, r'both name the identities \[2\]'),
        ({'gallery': [0, 500]}, 'gallery: 1 of the images were not evaluated, sample_idx 500'),
        ({'gallery': [0, 1], 'nonmated': [1]}, 'gallery names 1 images of identities'),
        ({'gallery': 'dataset'}, r"needs metainfo\['gallery'\]"),
        ({'gallery_per_identity': 5}, 'no probe has its identity in the gallery'),
    ],
)
def test_errors_name_what_cannot_be_evaluated(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluated(FaceIdentificationMetric(**options), *faces())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'gallery': 'last'}, "got 'last'"),
        ({'unknown': 'probes'}, "'distractors' or 'nonmated', got 'probes'"),
        ({'nonmated': 1.5}, r'share must be in \(0, 1\), got 1\.5'),
        ({'nonmated': 1}, 'a list of labels or names, or a share of the identities .*, got 1'),
        (
            {'nonmated': 's1'},
            "a list of labels or names, or a share of the identities .*, got 's1'",
        ),
        ({'distractors': 's1'}, "distractors must be a list of labels or names, got 's1'"),
        ({'gallery': 3}, 'got 3. For the first k images .* gallery_per_identity=k'),
        ({'ranks': []}, 'ranks is empty'),
        ({'ranks': [0, 1]}, 'ranks must be a whole number from 1 on, got 0'),
        ({'ranks': (1, 1.5)}, r'ranks must be a whole number from 1 on, got 1\.5'),
        (
            {'gallery_per_identity': 0},
            'gallery_per_identity must be a whole number from 1 on, got 0',
        ),
        ({'tpir_rank': 0}, 'tpir_rank must be a whole number from 1 on, got 0'),
        ({'fpirs': [2.0]}, r'fpirs holds 2\.0'),
        ({'fpirs': ['0.1']}, "fpirs holds '0.1'; a rate is a number"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceIdentificationMetric(**options)


def test_one_rank_and_one_rate_may_stand_without_brackets() -> None:
    found = evaluated(FaceIdentificationMetric(ranks=2, fpirs=0.5, nonmated=0.3), *faces())
    listed = evaluated(FaceIdentificationMetric(ranks=[2], fpirs=[0.5], nonmated=0.3), *faces())
    assert found == listed and {'face/rank-2', 'face/tpir@fpir=5e-01'} <= set(found)
