"""Templates of IJB-B and IJB-C: a loop over the protocol, ranks, repeats, lists and errors."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from torch import Tensor

from mmdet_ext.data.synthetic.faces import make_faces
from mmdet_ext.face.metrics import TemplateVerificationMetric
from mmdet_ext.face.metrics import template_sums as sums_module
from mmdet_ext.functional.scoring.similarity import on_grid
from mmdet_ext.functional.scoring.verification import count_scores, roc_auc, tar_at_far
from tests._helpers.two_ranks import run_on_two_ranks
from tests.face.joined import PIPELINE, Recogniser, run
from tests.face.metrics.samples import samples

IMAGES, PEOPLE, PER_PERSON = 240, 10, 3


def protocol(scored: bool = False, seed: int = 0) -> tuple[dict[str, Any], Tensor]:
    """Return templates of three per person, with stills and videos, and embeddings."""
    rng = np.random.default_rng(seed)
    template = rng.integers(PEOPLE * PER_PERSON, size=IMAGES)
    template[: PEOPLE * PER_PERSON] = np.arange(PEOPLE * PER_PERSON)
    person = template // PER_PERSON
    # Image 0 is in two templates of one person.
    image = np.append(np.arange(IMAGES), 0)
    template = np.append(template, 1)
    table = dict(
        image=image,
        template=10 * template + 5,
        medium=rng.integers(4, size=IMAGES + 1) + 7,
        pairs=[(10 * a + 5, 10 * b + 5) for a in range(30) for b in range(a + 1, 30)],
        same=[a // 3 == b // 3 for a in range(30) for b in range(a + 1, 30)],
    )
    if scored:
        table['score'] = rng.uniform(0.1, 1, IMAGES + 1)
    centers = rng.normal(size=(PEOPLE, 16))
    length = 10 ** rng.uniform(-1, 1, (IMAGES, 1))
    points = length * (centers[person] + 2.5 * rng.normal(size=(IMAGES, 16)))
    return table, torch.tensor(points, dtype=torch.float32)


def slow(table: dict[str, Any], embeddings: Tensor, pooling: str = 'length') -> dict[str, float]:
    """Follow the protocol template by template, medium by medium, pair by pair."""
    image, template, medium = (np.asarray(table[name]) for name in ('image', 'template', 'medium'))
    score = table.get('score', np.ones(len(image)))
    points = embeddings.double().numpy()
    pooled = {}
    for t in np.unique(template):
        total = np.zeros(points.shape[1])
        for m in np.unique(medium[template == t]):
            faces = []
            for row in np.flatnonzero((template == t) & (medium == m)):
                face = points[image[row]]
                if pooling == 'equal':
                    face = face / np.linalg.norm(face)
                faces.append(score[row] * face)
            total = total + np.mean(faces, axis=0)
        pooled[t] = total / np.linalg.norm(total)
    cosines = on_grid(torch.tensor([float(pooled[a] @ pooled[b]) for a, b in table['pairs']]))
    counts = count_scores(cosines, torch.tensor(table['same']))
    figures = {'auc': roc_auc(counts)}
    for point in tar_at_far(counts, [0.1, 0.01]):
        figures[f'tar@far={point.bound:.0e}'] = point.tar
        figures[f'threshold@far={point.bound:.0e}'] = point.threshold
    return {f'face/templates/{name}': value for name, value in figures.items()}


def labels() -> Tensor:
    return torch.full((IMAGES,), -1)


def evaluated(metric: Any, data: list[dict[str, Any]], size: int = IMAGES) -> dict[str, float]:
    for start in range(0, len(data), 7):
        metric.process(None, data[start : start + 7])
    found: dict[str, float] = metric.evaluate(size)
    return found


def assert_holds(found: dict[str, float], figures: dict[str, float]) -> None:
    assert {name: found[name] for name in figures} == pytest.approx(figures, abs=3e-6)


@pytest.mark.parametrize('pooling', ['length', 'equal'])
@pytest.mark.parametrize('scored', [False, True])
def test_figures_equal_a_loop_over_the_protocol(pooling: Any, scored: bool) -> None:
    table, embeddings = protocol(scored)
    metric = TemplateVerificationMetric(pooling=pooling, fars=[0.1, 0.01])
    metric.dataset_meta = {'templates': table}
    found = evaluated(metric, samples(embeddings, labels()))
    expected = slow(table, embeddings, pooling)
    assert_holds(found, expected)
    assert 0.6 < expected['face/templates/auc'] < 0.99
    media = len({*zip(table['template'].tolist(), table['medium'].tolist(), strict=True)})
    counts = ('genuine_pairs', 'impostor_pairs', 'templates', 'media', 'images')
    assert [found[f'face/templates/{name}'] for name in counts] == [30, 405, 30, media, IMAGES]


def test_scores_of_the_detector_may_be_left_out() -> None:
    table, embeddings = protocol(scored=True)
    metric = TemplateVerificationMetric(table, detector_scores=False, fars=[0.1, 0.01])
    found = evaluated(metric, samples(embeddings, labels()))
    del table['score']
    assert_holds(found, slow(table, embeddings))
    with pytest.raises(ValueError, match='detector_scores=True, but the protocol has no score'):
        TemplateVerificationMetric(table, detector_scores=True).process(None, [])


@pytest.mark.parametrize('held', [3, 512])
def test_order_and_repeats_of_images_change_nothing(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums_module, 'HELD', held)
    table, embeddings = protocol()
    data = samples(embeddings, labels())
    expected = evaluated(TemplateVerificationMetric(table), data)
    order = np.random.default_rng(1).permutation(IMAGES)
    metric = TemplateVerificationMetric(table)
    for _ in range(2):  # the second evaluation begins anew
        found = evaluated(metric, [data[k] for k in order] + data[:50])
        assert found == pytest.approx(expected, abs=3e-6)


def test_half_precision_is_pooled_in_full_precision() -> None:
    table, embeddings = protocol()
    data = samples(embeddings.half(), labels())
    metric = TemplateVerificationMetric(table, fars=[0.1, 0.01])
    assert_holds(evaluated(metric, data), slow(table, embeddings.half()))


def states(table: dict[str, Any], parts: list[list[dict[str, Any]]]) -> tuple[Any, list[Any]]:
    """Let each rank process its part, and return the metric of the first and all sums."""
    metrics = [TemplateVerificationMetric(table, fars=[0.1, 0.01]) for _ in parts]
    for metric, part in zip(metrics, parts, strict=True):
        for start in range(0, len(part), 7):
            metric.process(None, part[start : start + 7])
    return metrics[0], [
        None if metric._sums is None else copy.deepcopy(metric._sums.state) for metric in metrics
    ]


@pytest.mark.parametrize('held', [1, 512])
@pytest.mark.parametrize('ranks', [2, 7])
def test_ranks_that_repeat_images_at_their_end_count_each_once(
    ranks: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums_module, 'HELD', held)
    table, embeddings = protocol()
    data = samples(embeddings, labels())
    padded = data + data[: -IMAGES % ranks]
    metric, found = states(table, [padded[rank::ranks] for rank in range(ranks)])
    figures = {f'face/{name}': value for name, value in metric.compute_metrics(found).items()}
    assert_holds(figures, slow(table, embeddings))
    # A rank without an image, and a rank whose images all repeat.
    metric, found = states(table, [data, [], data[-1:]])
    assert found[1] is None or not found[1].held
    figures = {f'face/{name}': value for name, value in metric.compute_metrics(found).items()}
    assert_holds(figures, slow(table, embeddings))


def test_images_that_two_ranks_have_summed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums_module, 'HELD', 2)
    table, embeddings = protocol()
    data = samples(embeddings, labels())
    metric, found = states(table, [data, data[:9]])
    with pytest.raises(ValueError, match=r'images were evaluated by two ranks, sample_idx 0, 1'):
        metric.compute_metrics(found)


def test_a_video_counts_as_one_photograph() -> None:
    table = dict(
        image=range(103),
        template=[0, 1] + [2] * 101,
        medium=[0, 1, 2] + [3] * 100,
        pairs=[(2, 0), (2, 1)],
        same=[True, False],
    )
    still, frame = torch.eye(2)
    embeddings = torch.stack([still, frame, still, *[frame] * 100])
    metric = TemplateVerificationMetric(table, fars=[1.0])
    found = evaluated(metric, samples(embeddings, torch.full((103,), -1)))
    assert found['face/templates/eer_threshold'] == pytest.approx(math.sqrt(0.5), abs=1e-6)
    assert found['face/templates/auc'] == 0.5


def test_images_outside_of_templates_and_zeros_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(TemplateVerificationMetric, 'say', lambda self, text, *_: said.append(text))
    table, embeddings = protocol()
    embeddings[table['image'][table['template'] == 5]] = 0
    more = torch.cat([embeddings, torch.ones(2, 16)])
    metric = TemplateVerificationMetric(table, fars=[0.1])
    found = evaluated(metric, samples(more, torch.full((IMAGES + 2,), -1)))
    assert found['face/templates/zero_templates'] == 1
    zeros = found['face/templates/zero_embeddings']
    assert zeros == len(set(table['image'][table['template'] == 5].tolist()))
    assert said[0] == '2 evaluated images are in no template'
    assert said[1].startswith(f'{int(zeros)} embeddings and 1 of 30 templates are all zero')


def test_errors_name_what_is_wrong_with_images_and_protocol() -> None:
    table, embeddings = protocol()
    data = samples(embeddings, labels())
    with pytest.raises(ValueError, match=r'2 of the images were not evaluated, sample_idx 4, 9'):
        evaluated(
            TemplateVerificationMetric(table), [data[k] for k in range(240) if k not in (4, 9)]
        )
    with pytest.raises(ValueError, match=r"needs metainfo\['templates'\]"):
        evaluated(TemplateVerificationMetric(), data)
    other = {**data[3], 'img_path': 'other.jpg'}
    with pytest.raises(ValueError, match='1 sample_idx belong to two images .*: 3'):
        evaluated(TemplateVerificationMetric(table), [*data, other])
    with pytest.raises(ValueError, match=r'one size, got \[16, 8\]'):
        evaluated(
            TemplateVerificationMetric(table), [data[0], {**data[1], 'embedding': torch.ones(8)}]
        )
    for change, message in (
        (dict(pairs=[(5, 6)], same=[True]), '1 templates of pairs have no image: templates 6'),
        (dict(image=np.zeros(IMAGES + 1, int)), 'images stand twice in a template'),
        (dict(score=np.full(IMAGES + 1, -1.0)), '241 scores of the detector are below 0'),
        (dict(medium=np.ones(IMAGES + 1)), 'medium of a table .* whole numbers: float64'),
        (dict(same=[True]), r'pairs \(K, 2\) and same \(K,\), got'),
    ):
        with pytest.raises(ValueError, match=message):
            evaluated(TemplateVerificationMetric({**table, **change}), data)
    with pytest.raises(ValueError, match='below 1 / 405: 405 impostor pairs'):
        evaluated(TemplateVerificationMetric(table, fars=1e-3), data)
    with pytest.raises(ValueError, match="protocol must be 'dataset', or a mapping"):
        TemplateVerificationMetric('ijbc')  # type: ignore[arg-type]


def test_an_evaluation_that_failed_leaves_nothing_behind() -> None:
    table, embeddings = protocol()
    data = samples(embeddings, labels())
    metric = TemplateVerificationMetric(table, fars=[0.1, 0.01])
    with pytest.raises(ValueError, match='239 of the images were not evaluated'):
        evaluated(metric, data[:1])
    assert_holds(evaluated(metric, data), slow(table, embeddings))


def test_files_hold_the_results_and_the_curve(tmp_path: Path) -> None:
    table, embeddings = protocol()
    evaluator = Evaluator(TemplateVerificationMetric(table, out_dir=str(tmp_path / 'out')))
    evaluator.process(samples(embeddings, labels()))
    found = evaluator.evaluate(IMAGES)
    content = json.loads((tmp_path / 'out' / 'templates.json').read_text())
    written = {f'face/templates/{name}': value for name, value in content['figures'].items()}
    assert written == found
    assert content['roc']['far'][-1] == 1 and sum(content['histogram']['impostors']) == 405


def template_set(root: Path, **options: Any) -> dict[str, Any]:
    return dict(
        type='mmdet_ext.FaceTemplatesDataset',
        data_root=str(root),
        ann_file='templates.txt',
        pair_file='template_pairs.txt',
        data_prefix='faces',
        pipeline=PIPELINE,
        **options,
    )


class Whole(Recogniser):
    """Model whose embedding is every 50th number of the image."""

    def forward(self, inputs: Any, data_samples: Any, mode: str = 'predict') -> Any:
        for image, sample in zip(inputs, data_samples, strict=True):
            sample.embedding = image.float().flatten()[::50] - 127.5
        return data_samples


@pytest.mark.parametrize('workers', [0, 2])
def test_a_stock_runner_tests_made_faces(tmp_path: Path, workers: int) -> None:
    make_faces(tmp_path)
    metric = dict(type='mmdet_ext.TemplateVerificationMetric', fars=[0.25])
    found = run(tmp_path, template_set(tmp_path), metric, Whole(), num_workers=workers)
    assert found['face/templates/auc'] == 1 and found['face/templates/tar@far=2.5e-01'] == 1
    assert found['face/templates/genuine_pairs'] == 4 == found['face/templates/impostor_pairs']
    assert found['face/templates/images'] == 8


def test_joined_sets_of_templates_are_refused(tmp_path: Path) -> None:
    for name in ('one', 'two'):
        make_faces(tmp_path / name)
    joined = dict(
        type='mmengine.ConcatDataset',
        datasets=[template_set(tmp_path / name) for name in ('one', 'two')],
    )
    metric = dict(type='mmdet_ext.TemplateVerificationMetric')
    with pytest.raises(ValueError, match='sample_idx belong to two images'):
        run(tmp_path, joined, metric, Whole())


SCRIPT = """
import os, sys
rank, folder = int(sys.argv[1]), sys.argv[2]
os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_ADDR='127.0.0.1')
import torch.distributed as dist
dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
import torch
from mmdet_ext.face.metrics import TemplateVerificationMetric
from tests.face.metrics.samples import samples
from tests.face.metrics.test_templates import assert_holds, labels, protocol, slow
table, embeddings = protocol()
data = samples(embeddings, labels())
padded = data + [data[1], data[0]]  # each rank repeats an image of the other
metric = TemplateVerificationMetric(table, fars=[0.1, 0.01])
for start in range(rank, len(padded), 2):
    metric.process(None, [padded[start]])
assert_holds(metric.evaluate(len(data)), slow(table, embeddings))
dist.barrier()
"""


@pytest.mark.subprocess
def test_two_processes_equal_one(tmp_path: Path) -> None:
    run_on_two_ranks(SCRIPT, tmp_path)
