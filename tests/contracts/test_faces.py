"""Contract of every face backbone, metric and hook."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.catalog.face_cases import CHANNELS, INPUT_SIZE
from mmdet_ext.data.synthetic.faces import face_image
from mmdet_ext.registry import HOOKS, METRICS, MODELS, ExtRegistry
from tests._helpers.options import assert_misspelt_options_are_named
from tests._helpers.same import assert_same

HALF = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)


def over(rows: Sequence[Any]) -> Any:
    return pytest.mark.parametrize('case', rows, ids=repr)


def build(nodes: ExtRegistry, case: Any, **options: Any) -> Any:
    return nodes.build({'type': f'mmdet_ext.{case.name}', **case.options, **options})


each_backbone = over(cases_of('backbone'))


def network(case: Any, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    model = build(MODELS, case, **options)
    model.init_weights()
    return model


def images(count: int = 4) -> Tensor:
    made = [face_image(i, 0, (INPUT_SIZE, INPUT_SIZE)) for i in range(count)]
    return (torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float() - 127.5) / 128


@each_backbone
def test_backbone_returns_embeddings_that_differ_between_images(case: Any) -> None:
    model = network(case).eval()
    output = model(images())
    assert isinstance(output, tuple) and output[-1].shape == (4, model.num_features)
    assert model.num_features == CHANNELS
    assert torch.isfinite(output[-1]).all() and output[-1].std(0).min() > 0


@each_backbone
def test_backbone_trains_all_parameters_that_need_a_gradient(case: Any) -> None:
    model = network(case)
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    weigh = torch.randn(4, CHANNELS, generator=torch.Generator().manual_seed(1))
    (model(images())[-1] * weigh).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name
    optimiser.step()
    for name, value in model.state_dict().items():
        changed = not torch.equal(before[name], value)
        fixed = (
            name in dict(model.named_parameters())
            and not dict(model.named_parameters())[name].requires_grad
        )
        assert changed is not fixed, name


@each_backbone
def test_evaluation_is_reproducible_and_independent_of_the_batch(case: Any) -> None:
    model = network(case)
    with torch.no_grad():
        for _ in range(3):
            model(images(6))
        model.eval()
        first, second = model(images())[-1], model(images())[-1]
        alone = torch.cat([model(image[None])[-1] for image in images()])
    assert torch.equal(first, second)
    torch.testing.assert_close(alone, first, rtol=1e-4, atol=1e-4)


@each_backbone
def test_seed_and_checkpoint_fix_the_network(case: Any) -> None:
    one, same, other = network(case), network(case), network(case, seed=1)
    assert_same(dict(one.state_dict()), dict(same.state_dict()))
    with torch.no_grad():
        expected = one.eval()(images())[-1]
        assert not torch.equal(other.eval()(images())[-1], expected)
        assert other.load_state_dict(one.state_dict()) == ([], [])
        copies = [other, copy.deepcopy(one), pickle.loads(pickle.dumps(one))]
        for copied in copies:
            assert torch.equal(copied.eval()(images())[-1], expected)


@each_backbone
@HALF
def test_embedding_has_full_precision_under_autocast(case: Any, dtype: torch.dtype) -> None:
    model = network(case).eval()
    with torch.no_grad():
        expected = model(images())[-1]
        with torch.autocast('cpu', dtype):
            output = model(images())[-1]
    assert output.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(output, expected)
    assert (cosine > 0.99).all()


@each_backbone
def test_backbone_refuses_misspelt_options_and_other_images(case: Any) -> None:
    assert_misspelt_options_are_named(
        lambda **wrong: build(MODELS, case, **wrong), MODELS.get(case.name)
    )
    model = network(case)
    with pytest.raises(ValueError, match=rf'input_size=\({INPUT_SIZE}, {INPUT_SIZE}\)'):
        model(torch.zeros(2, 3, INPUT_SIZE + 1, INPUT_SIZE))
    with pytest.raises(ValueError, match='batch of 1 image'):
        model(images(1))
    for option in ('num_features', 'input_size'):
        with pytest.raises((TypeError, ValueError), match=option):
            build(MODELS, case, **{option: 0})


each_metric = over(cases_of('metric'))
PEOPLE, EACH = 6, 4


def embedded(noise: float = 1.0, seed: int = 0) -> list[dict[str, Any]]:
    """Return data samples of six people with four images each, as an evaluator passes them."""
    rng = np.random.default_rng(seed)
    centers = np.eye(PEOPLE, 16)
    return [
        {
            'embedding': torch.tensor(
                centers[i // EACH] + noise * rng.normal(0, 0.4, 16), dtype=torch.float32
            ),
            'gt_label': torch.tensor([i // EACH]),
            'sample_idx': i,
            'img_path': f'{i}.jpg',
        }
        for i in range(PEOPLE * EACH)
    ]


def evaluate(case: Any, samples: list[dict[str, Any]], size: int | None = None) -> dict[str, Any]:
    evaluator = Evaluator(build(METRICS, case))
    for start in range(0, len(samples), 5):
        evaluator.process(samples[start : start + 5])
    return evaluator.evaluate(len(samples) if size is None else size)


def shares(figures: dict[str, Any]) -> dict[str, float]:
    """Return the figures for which higher is better: no thresholds, counts or error rates."""
    kinds = ('auc', 'tar@', 'rank-', 'tpir@', 'accuracy_best', 'templates/auc', 'templates/tar@')
    return {
        key: value
        for key, value in figures.items()
        if key.partition('/')[2].startswith(kinds) and 'threshold' not in key
    }


@each_metric
def test_perfect_embeddings_are_perfect_and_all_figures_are_floats(case: Any) -> None:
    perfect, good, bad = (evaluate(case, embedded(noise)) for noise in (0.0, 1.0, 50.0))
    assert all(type(value) is float for value in (*perfect.values(), *good.values()))
    assert all(key.startswith('face/') for key in perfect)
    assert shares(perfect) and set(shares(perfect).values()) == {1.0}
    assert all(value <= 1 for value in shares(good).values())
    assert sum(shares(bad).values()) < sum(shares(good).values()) < sum(shares(perfect).values())


@each_metric
def test_order_length_and_repeats_of_embeddings_change_nothing(case: Any) -> None:
    samples = embedded()
    expected = evaluate(case, samples)
    order = np.random.default_rng(1).permutation(len(samples))
    assert evaluate(case, [samples[i] for i in order]) == pytest.approx(expected, abs=1e-9)
    # Ranks repeat images so that all have equally many.
    assert evaluate(case, [*samples, *samples[:3]], len(samples)) == expected
    longer = [{**one, 'embedding': 8 * one['embedding']} for one in samples]
    assert evaluate(case, longer) == pytest.approx(expected, rel=1e-6)
    half = [{**one, 'embedding': one['embedding'].half()} for one in samples]
    assert shares(evaluate(case, half)) == pytest.approx(shares(expected), abs=0.05)


@each_metric
def test_data_elements_of_mmengine_work_as_mappings_do(case: Any) -> None:
    samples = embedded()
    elements = []
    for one in samples:
        element = BaseDataElement(
            metainfo={'sample_idx': one['sample_idx'], 'img_path': one['img_path']}
        )
        element.embedding, element.gt_label = one['embedding'], one['gt_label']
        elements.append(element)
    assert evaluate(case, elements) == evaluate(case, samples)


@each_metric
def test_metric_refuses_misspelt_options_and_unusable_samples(case: Any) -> None:
    assert_misspelt_options_are_named(
        lambda **wrong: build(METRICS, case, **wrong), METRICS.get(case.name)
    )
    samples = embedded()
    for key, error in (('embedding', KeyError), ('sample_idx', KeyError)):
        lacks = [{k: v for k, v in one.items() if k != key} for one in samples]
        with pytest.raises(error, match=f'{case.name}.*{key}'):
            evaluate(case, lacks)
    broken = [*samples[1:], {**samples[0], 'embedding': torch.full((16,), float('nan'))}]
    with pytest.raises(ValueError, match='1 of 24 embeddings hold NaN .*sample_idx 0'):
        evaluate(case, broken)
    with pytest.raises(ValueError, match='no image was evaluated'):
        build(METRICS, case).compute_metrics([])


@each_metric
def test_metric_writes_its_figures_to_out_dir(case: Any, tmp_path: Path) -> None:
    reported = evaluate(case, embedded())
    evaluator = Evaluator(build(METRICS, case, out_dir=str(tmp_path / 'out'), prefix='mine'))
    evaluator.process(embedded())
    figures = evaluator.evaluate(PEOPLE * EACH)
    assert figures == {key.replace('face/', 'mine/'): value for key, value in reported.items()}
    written = {path.suffix for path in (tmp_path / 'out').iterdir()}
    assert written == {'.json', '.png'}
    assert not list((tmp_path / 'out').glob('*.part'))


def test_metrics_can_be_used_together() -> None:
    """MMEngine refuses two metrics with a figure of the same name."""
    evaluator = Evaluator([build(METRICS, row) for row in cases_of('metric')])
    evaluator.process(embedded())
    figures = evaluator.evaluate(PEOPLE * EACH)
    assert len(shares(figures)) == sum(
        len(shares(evaluate(row, embedded()))) for row in cases_of('metric')
    )


@over(cases_of('face head', 'preprocessor'))
def test_head_and_preprocessor_refuse_misspelt_options(case: Any) -> None:
    assert_misspelt_options_are_named(
        lambda **wrong: build(MODELS, case, **wrong), MODELS.get(case.name)
    )


@over(cases_of('hook', 'detection hook'))
def test_hook_builds_and_refuses_misspelt_options(case: Any) -> None:
    hook = build(HOOKS, case)
    assert {key: getattr(hook, key) for key in case.options} == case.options
    assert_misspelt_options_are_named(
        lambda **wrong: build(HOOKS, case, **wrong), HOOKS.get(case.name)
    )
