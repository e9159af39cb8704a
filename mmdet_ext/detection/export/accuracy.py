"""Accuracy of a model file on the test set of a config, by the config's own metric."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.structures import InstanceData

from mmdet_ext.deploy.detector import Detector
from mmdet_ext.export.onnx_file import ExportError

#: Figure of COCO's metric that is compared.
FIGURE = 'coco/bbox_mAP'


class Accuracy:
    """Measurement of model files on the test set of a config.

    Args:
        config: with ``test_dataloader`` and ``test_evaluator``.

    Raises:
        ExportError: if the config has no test set, or its files are absent.
    """

    def __init__(self, config: Config) -> None:
        if not config.get('test_dataloader') or not config.get('test_evaluator'):
            raise ExportError(
                'the config has no test_dataloader and test_evaluator, by which the cost of int8 '
                'is measured'
            )
        self.config = config
        settings = {**config.test_dataloader.dataset, 'pipeline': []}
        try:
            self.dataset = DATASETS.build(settings)
        except OSError as error:
            raise ExportError(
                f'the test set, on which the cost of int8 is measured, cannot be read: {error}'
            ) from error

    def measure(self, detector: Detector, name: str) -> float:
        """Return the mAP (0 .. 1) of a detector.

        Args:
            detector: open model file.
            name: of what is measured, for the progress that is shown.
        """
        evaluator = Evaluator(self.config.test_evaluator)
        evaluator.dataset_meta = self.dataset.metainfo
        count = len(self.dataset)
        for place in range(count):
            item = self.dataset.get_data_info(place)
            (found,) = detector([Path(item['img_path'])])
            sample = DetDataSample(
                metainfo=dict(
                    img_id=item['img_id'],
                    img_path=item['img_path'],
                    ori_shape=(item['height'], item['width']),
                )
            )
            sample.pred_instances = InstanceData(
                bboxes=torch.from_numpy(found.boxes),
                scores=torch.from_numpy(found.scores),
                labels=torch.from_numpy(found.labels),
            )
            evaluator.process([sample])
            if sys.stderr.isatty():
                print(f'\r{name}: {place + 1} of {count} images', end='', file=sys.stderr)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its tables
            figures = evaluator.evaluate(count)
        if FIGURE not in figures:
            raise ExportError(f'the test_evaluator gives no {FIGURE}: {", ".join(figures)}')
        return float(figures[FIGURE])
