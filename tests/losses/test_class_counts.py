"""Counts and weights as config options: lists, files and their errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmdet_ext.losses.class_counts import resolve_class_weights, resolve_counts


def test_counts_from_a_list_and_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps({'classes': ['a', 'b'], 'counts': [3, 0], 'images': 2}))
    for counts in ([3, 0], (3, 0), np.array([3, 0]), torch.tensor([3, 0]), path, str(path)):
        assert resolve_counts(counts) == [3.0, 0.0]


WRONG: dict[str, tuple[str, str]] = {
    'no json': ('{', 'is no json'),
    'a list': ('[1, 2]', "has no list 'counts', found list"),
    'another file': ('{"images": []}', r"has no list 'counts', found \['images'\]"),
    'no class': ('{"counts": []}', 'must be a list of one number per class'),
    'text': ('{"counts": [1, "2"]}', "must be numbers from 0, got '2' for class 1"),
    'negative': ('{"counts": [-1]}', 'must be numbers from 0, got -1 for class 0'),
    'infinite': ('{"counts": [1, Infinity]}', 'got inf for class 1'),
    'truth values': ('{"counts": [true]}', 'got True for class 0'),
    'nothing': ('{"counts": [0, 0]}', 'are all 0'),
}


@pytest.mark.parametrize(('text', 'message'), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_reported(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / 'counts.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        resolve_counts(path)
    assert 'counts.json' in str(error.value)


def test_a_missing_file_and_no_counts_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'there is no file .*no\.json.*class_counts\.py'):
        resolve_counts(tmp_path / 'no.json')
    with pytest.raises(TypeError, match='got 5'):
        resolve_counts(5)  # type: ignore[arg-type]


def test_weights_as_a_list_a_number_a_tensor_and_a_scheme() -> None:
    assert resolve_class_weights(None, 'w') is None
    assert resolve_class_weights([1, 0.5], 'w') == [1.0, 0.5]
    assert resolve_class_weights(2, 'w') == [2.0]
    assert resolve_class_weights(torch.tensor([1.0, 0.5]), 'w') == [1.0, 0.5]
    assert resolve_class_weights(np.array([1.0, 0.5], np.float32), 'w') == [1.0, 0.5]
    assert resolve_class_weights([np.float32(1), np.int64(2)], 'w') == [1.0, 2.0]
    assert resolve_class_weights(np.float32(2), 'w') == [2.0]
    # At least one count must be above 0; weights may all be 0.
    assert resolve_class_weights([0, 0], 'w') == [0.0, 0.0]
    scheme = {'type': 'effective_number', 'counts': [1, 2], 'beta': 0.5}
    assert resolve_class_weights(scheme, 'w') == pytest.approx([1.2, 0.8])
    assert scheme == {'type': 'effective_number', 'counts': [1, 2], 'beta': 0.5}


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ([], 'w must be a list of one number per class'),
        ('abc', "w must be a list of one number per class, got 'abc'"),
        ([0, -1], 'w must be numbers from 0, got -1 for class 1'),
        ({'type': 'inverse_log', 'counts': [0, 0]}, 'counts are all 0'),
        ({'type': 'inverse_log', 'counts': np.array([0, 0])}, 'counts are all 0'),
        ([1, float('nan')], 'w must be numbers from 0, got nan for class 1'),
        ({}, "w: 'type' must be one of"),
        ({'type': 'inverse_log'}, "w: 'counts' is missing"),
        ({'type': 'inverse_log', 'counts': [1], 'ofset': 1}, "has no option 'ofset'; it has"),
        ({'type': 'inverse_log', 'counts': [1], 'offset': 1}, 'offset must be above 1'),
    ],
)
def test_wrong_weights_are_reported(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_class_weights(value, 'w')
