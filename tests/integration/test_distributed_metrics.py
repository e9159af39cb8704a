"""Metrics of detection in two processes, with an uneven number of images: the figures of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.structures import InstanceData

from tests._helpers.two_ranks import run_on_two_ranks

pytest.importorskip('mmdet', reason='MMDetection is absent')

from mmengine.registry import METRICS

import mmdet_ext.registry  # noqa: F401  names of metrics
from tests.detection.metrics.coco_samples import CLASSES, content, samples_of, written

#: Name -> type and options. The backend of COCO's runs in the process of the metric.
METRICS_OF_BOXES: dict[str, dict[str, Any]] = {
    'COCO': dict(type='mmdet_ext.CocoMetric', classwise=True, time_limit=None),
    'COCO from a file': dict(type='mmdet_ext.CocoMetric', classwise=True, time_limit=None),
    'VOC': dict(
        type='mmdet_ext.VOCAPMetric', iou_thrs=[0.5, 0.75], metric=['mAP', 'recall'], classwise=True
    ),
    'points': dict(
        type='mmdet_ext.OperatingPointMetric', precision=[0.3], classwise=True, resamples=20
    ),
    'points from a file': dict(
        type='mmdet_ext.OperatingPointMetric', recall=[0.3], classwise=True, resamples=20
    ),
}
#: The metric whose files are compared, too; to draw them takes a second.
WRITTEN = 'points'
IMAGES = 11


def made_samples(annotations: Any) -> list[dict[str, Any]]:
    """Make data samples that hold the ground truth in the form of each metric."""
    samples = samples_of(annotations)
    for sample in samples:
        entries = sample['instances']
        for key, flag in (('gt_instances', 0), ('ignored_instances', 1)):
            mine = [entry for entry in entries if entry['ignore_flag'] == flag]
            sample[key] = InstanceData(
                bboxes=torch.tensor([entry['bbox'] for entry in mine]).reshape(-1, 4),
                labels=torch.tensor([entry['bbox_label'] for entry in mine], dtype=torch.int64),
            )
    return samples


def figures_of(folder: Path, out: Path, rank: int = 0, ranks: int = 1) -> dict[str, Any]:
    """Evaluate the images of one rank with all metrics, as MMEngine's sampler divides them.

    The sampler of a test gives the ranks images in turn, and repeats the first ones until all have
    as many: of eleven images the last rank of two has the first once more.
    """
    annotations = content(IMAGES)
    samples = made_samples(annotations)
    share = -(-len(samples) // ranks)
    padded = [*samples, *samples][: share * ranks]
    figures = {}
    for name, options in METRICS_OF_BOXES.items():
        more: dict[str, Any] = {}
        if name.endswith('file'):
            more['ann_file'] = str(folder / 'truth.json')
        if name.startswith('points'):
            more['out_dir'] = str(out) if name == WRITTEN else None
        metric = METRICS.build({**options, **more})
        metric.dataset_meta = {'classes': CLASSES}
        for sample in padded[rank::ranks]:
            metric.process({}, [sample])
        figures[name] = metric.evaluate(len(samples))
    return figures


WORKER = """
import json, sys
from pathlib import Path
import torch.distributed as dist
from tests.integration.test_distributed_metrics import figures_of

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
figures = figures_of(folder, folder / 'two', rank, 2)
(folder / f'{rank}.json').write_text(json.dumps(figures))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.subprocess
@pytest.mark.slow
def test_two_processes_have_the_figures_of_one(tmp_path: Path) -> None:
    written(tmp_path / 'truth.json', content(IMAGES))
    run_on_two_ranks(WORKER, tmp_path)
    expected = figures_of(tmp_path, tmp_path / 'one')
    for name in METRICS_OF_BOXES:
        assert len(expected[name]) > 5, name
    for rank in range(2):
        figures = json.loads((tmp_path / f'{rank}.json').read_text('utf-8'))
        for name, values in expected.items():
            assert figures[name] == pytest.approx(values, nan_ok=True, rel=1e-12), (rank, name)
    one, two = (
        json.loads((tmp_path / side / 'operating_points.json').read_text('utf-8'))
        for side in ('one', 'two')
    )
    assert one == two
