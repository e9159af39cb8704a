"""Errors, warnings and options of the verification metric."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mmdet_ext.face.metrics import FaceVerificationMetric
from mmdet_ext.face.metrics.embedding_metric import rate_name
from tests.face.metrics.samples import evaluated, faces, samples, with_pairs


def test_default_fars_that_the_pairs_cannot_show_are_left_out_and_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(FaceVerificationMetric, 'say', lambda self, text, *_: logged.append(text))
    evaluated(FaceVerificationMetric('all'), samples(*faces()))
    assert logged == [
        'FAR 1e-04, 1e-05, 1e-06 left out: 1,650 impostor pairs cannot show so low a rate'
    ]


def test_given_fars_that_the_pairs_cannot_show_are_refused() -> None:
    with pytest.raises(ValueError, match=r'fars holds 0\.0001, below 1 / 1,650: 1,650 impostor'):
        evaluated(FaceVerificationMetric('all', fars=[0.1, 1e-4]), samples(*faces()))


def test_pairs_of_images_that_were_not_evaluated_are_named() -> None:
    metric = FaceVerificationMetric()
    with_pairs(metric)
    data = samples(*faces())
    with pytest.raises(ValueError, match=r"metainfo\['pairs'\]: 2 of the images were not.* 0, 9"):
        evaluated(metric, data[1:9] + data[10:])


def test_error_for_a_data_set_without_pairs_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="FacePairsDataset has it; for any other, set pairs='all'"):
        evaluated(FaceVerificationMetric(), samples(*faces()))


def test_too_few_pairs_for_the_folds_are_refused() -> None:
    metric = FaceVerificationMetric()
    metric.dataset_meta = {
        'pairs': {'index': np.array([[0, 1], [0, 12]]), 'same': np.array([False, True])}
    }
    with pytest.raises(ValueError, match='2 pairs cannot make 10 folds'):
        evaluated(metric, samples(*faces()))


def test_embeddings_that_are_not_finite_are_counted_and_named() -> None:
    embeddings, labels = faces()
    embeddings[[3, 40], 2] = torch.tensor([math.nan, math.inf])
    with pytest.raises(ValueError, match='2 of 60 embeddings hold NaN or infinite.*3, 40'):
        evaluated(FaceVerificationMetric('all'), samples(embeddings, labels))


def test_zero_embeddings_have_similarity_0_and_are_logged() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    found = evaluated(
        FaceVerificationMetric('all', fars=[0.5]), samples(embeddings, torch.tensor([0, 0, 1, 1]))
    )
    assert found['face/zero_embeddings'] == 2
    # Genuine pairs of similarity 1 and 0, four impostor pairs of 0.
    assert found['face/auc'] == 0.75 and found['face/tar@far=5e-01'] == 0.5


def test_unknown_identities_have_no_genuine_pair() -> None:
    embeddings, labels = faces()
    labels = torch.where(labels == 3, -1, labels)
    found = evaluated(FaceVerificationMetric('all'), samples(embeddings, labels))
    assert (found['face/genuine_pairs'], found['face/impostor_pairs']) == (110, 1660)


def test_two_images_with_one_sample_idx_are_refused() -> None:
    data = samples(*faces())
    data[5]['sample_idx'] = 4
    with pytest.raises(ValueError, match='two images have the sample_idx 4'):
        evaluated(FaceVerificationMetric('all'), data)


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (
            {'embedding': None},
            KeyError,
            "no 'embedding', which a head such as mmdet_ext.MarginHead",
        ),
        ({'sample_idx': None}, KeyError, "no 'sample_idx', which the pipeline"),
        ({'embedding': torch.zeros(1, 4)}, ValueError, r'sample_idx 0 must be 1-D, got \(1, 4\)'),
        ({'gt_label': torch.tensor([1, 2])}, ValueError, r'one label per image, got \[1, 2\]'),
    ],
)
def test_wrong_data_samples_are_named(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    metric = FaceVerificationMetric('all')
    with pytest.raises(error, match=message):
        metric.process(None, [{**samples(*faces())[0], **change}])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'pairs': 'some'}, "'dataset' or 'all', got 'some'"),
        ({'similarity': 'l2'}, "'cosine', got 'l2'"),
        ({'folds': 1}, 'folds must be at least 2, got 1'),
        ({'block': 0}, 'block must be at least 1, got 0'),
        ({'hardest': -1}, 'hardest must be at least 0, got -1'),
        ({'fars': []}, 'fars is empty'),
        ({'fars': [0.1, 0.0]}, r'fars holds 0\.0; a rate lies in'),
        ({'fars': [1.1]}, r'fars holds 1\.1'),
        ({'fars': 2}, r'fars holds 2\.0; a rate lies in'),
        ({'fars': '0.1'}, "fars holds '0'; a rate is a number"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceVerificationMetric(**options)


def test_nothing_evaluated_is_an_error() -> None:
    with pytest.raises(ValueError, match='no image was evaluated'):
        FaceVerificationMetric('all').compute_metrics([])


@pytest.mark.parametrize(
    ('rate', 'name'),
    [
        (0.1, '1e-01'),
        (0.05, '5e-02'),
        (0.015, '1.5e-02'),
        (1e-6, '1e-06'),
        (1.0, '1e+00'),
    ],
)
def test_names_of_rates(rate: float, name: str) -> None:
    assert rate_name(rate) == name


def test_one_rate_may_stand_without_brackets() -> None:
    assert evaluated(FaceVerificationMetric('all', 0.05), samples(*faces())) == evaluated(
        FaceVerificationMetric('all', [0.05]), samples(*faces())
    )
