"""Imports that break the plan of `tests/test_layers.py`."""

from __future__ import annotations

FUNCTIONAL = 'mmdet_ext.functional'
NUMERICS = f'{FUNCTIONAL}.numerics'
BOXES = f'{FUNCTIONAL}.boxes'

#: Module -> source that breaks a rule.
WRONG = {
    'numerics import boxes': (f'{NUMERICS}.checks', f'from {BOXES}.overlap import box_iou'),
    'numerics import a host': (f'{NUMERICS}.reduction', 'import mmengine.logging'),
    'numerics import numpy': (f'{NUMERICS}.precision', 'import numpy as np'),
    'order imports a host': (f'{NUMERICS}.order', 'from mmcv.ops import nms'),
    'boxes import classification': (
        f'{BOXES}.pair',
        f'from {FUNCTIONAL}.classification import focal',
    ),
    'classification imports boxes': (
        f'{FUNCTIONAL}.classification.focal',
        f'from {BOXES} import overlap',
    ),
    'embedding imports boxes': (f'{FUNCTIONAL}.embedding.margins', f'import {BOXES}.pair'),
    'embedding imports scoring': (
        f'{FUNCTIONAL}.embedding.distances',
        'from ..scoring import similarity',
    ),
    'assignment imports classification': (
        f'{FUNCTIONAL}.assignment.simota',
        f'from {FUNCTIONAL}.classification.labels import x',
    ),
    'segmentation imports scoring': (
        f'{FUNCTIONAL}.segmentation.dice',
        f'from {FUNCTIONAL}.scoring import confusion',
    ),
    'functional imports the registry': (
        f'{BOXES}.overlap',
        'from mmdet_ext.registry import MODELS',
    ),
    'within a function': (
        f'{BOXES}.overlap',
        'def f():\n    from mmdet_ext.losses import CIoULoss',
    ),
    'relative': (f'{BOXES}.overlap', 'from ...losses import iou'),
    'relative, of the package': (f'{BOXES}.overlap', 'from ... import losses'),
    'of the package': (f'{BOXES}.overlap', 'from mmdet_ext import losses'),
    'functional imports face': (
        f'{FUNCTIONAL}.embedding.margins',
        'from mmdet_ext.face.margins import fixed',
    ),
    'losses import detection': ('mmdet_ext.losses.iou', 'from mmdet_ext.detection import host'),
    'losses import face': ('mmdet_ext.losses.iou', 'from mmdet_ext.face.losses import FeatureLoss'),
    'losses import mmdet': ('mmdet_ext.losses.iou', 'from mmdet.models import losses'),
    'compat imports the registry': (
        'mmdet_ext.compat.checkpoint',
        'from mmdet_ext.registry import MODELS',
    ),
    'engine imports a task': ('mmdet_ext.engine.loops', 'import mmdet_ext.face.heads'),
    'detection imports face': (
        'mmdet_ext.detection.heads.any',
        'from mmdet_ext.face.heads import MarginHead',
    ),
    'detection imports mmpretrain': (
        'mmdet_ext.detection.heads.any',
        'from mmpretrain.models import ImageClassifier',
    ),
    'detection imports the catalog': (
        'mmdet_ext.detection.assigners.any',
        'from mmdet_ext.catalog import cases',
    ),
    'face imports mmdet': ('mmdet_ext.face.heads.margin_head', 'from mmdet.registry import MODELS'),
    'face imports mmpretrain': (
        'mmdet_ext.face.heads.any',
        'def f():\n    import mmpretrain.models',
    ),
    'the gallery imports torch': ('mmdet_ext.face.gallery.exact', 'import torch'),
    'the gallery imports the data': (
        'mmdet_ext.face.gallery.storage',
        'from mmdet_ext.data.images import image_problem',
    ),
    'the page imports torch': ('mmdet_ext.face.page.desk', 'import torch'),
    'face imports Gradio': ('mmdet_ext.face.recognition.drawing', 'import gradio'),
    'face imports detection': (
        'mmdet_ext.face.datasets.any',
        'from mmdet_ext.detection import datasets',
    ),
    'face, relative, imports detection': (
        'mmdet_ext.face.hooks.any',
        'from ...detection import host',
    ),
    'face imports the catalog': (
        'mmdet_ext.face.samplers.any',
        'from mmdet_ext.catalog.cases import CASES',
    ),
    'segmentation imports mmseg': (
        'mmdet_ext.segmentation.metrics.any',
        'def f():\n    from mmseg.evaluation import IoUMetric',
    ),
    'segmentation imports mmdet': (
        'mmdet_ext.segmentation.metrics.any',
        'from mmdet.registry import METRICS',
    ),
    'segmentation imports face': (
        'mmdet_ext.segmentation.metrics.any',
        'from mmdet_ext.face.metrics import embedding_metric',
    ),
    'segmentation imports detection': (
        'mmdet_ext.segmentation.metrics.any',
        'from mmdet_ext.detection import host',
    ),
    'face imports segmentation': (
        'mmdet_ext.face.metrics.any',
        'from mmdet_ext.segmentation.metrics import labels',
    ),
    'losses of poses import mmpose': (
        'mmdet_ext.pose.losses.any',
        'def f():\n    from mmpose.registry import MODELS',
    ),
    'pose imports detection': ('mmdet_ext.pose.heads.any', 'from mmdet_ext.detection import host'),
    'data import torch': ('mmdet_ext.data.coco.voc', 'import torch'),
    'data import a host': ('mmdet_ext.data.synthetic.shapes', 'from mmcv import imread'),
    'data import plots': ('mmdet_ext.data.images', 'from mmdet_ext.plots import style'),
    'evaluation imports torch': ('mmdet_ext.evaluation.columns', 'import torch'),
    'evaluation imports a host': (
        'mmdet_ext.evaluation.annotations',
        'from mmengine.fileio import get',
    ),
    'analysis imports torch': ('mmdet_ext.analysis.run_report', 'import torch'),
    'analysis imports a host': ('mmdet_ext.analysis.run_report', 'import mmengine'),
    'analysis imports plots': ('mmdet_ext.analysis.run_report', 'import mmdet_ext.plots.runs'),
    'plots import torch': ('mmdet_ext.plots.face', 'import torch'),
    'deploy imports torch': ('mmdet_ext.deploy.detector', 'def f():\n    import torch'),
    'deploy imports a host': ('mmdet_ext.deploy.images', 'from mmcv import imresize'),
    'deploy imports export': (
        'mmdet_ext.deploy.metadata',
        'from mmdet_ext.export.onnx_file import KEY',
    ),
    'export imports detection': (
        'mmdet_ext.export.targets',
        'from mmdet_ext.detection import export',
    ),
    'the catalog imports face': (
        'mmdet_ext.catalog.cases',
        'from mmdet_ext.face.datasets import DigitsDataset',
    ),
    'the package imports torch': ('mmdet_ext', 'import torch'),
    'the package imports its registry': ('mmdet_ext', 'from mmdet_ext.registry import MODELS'),
}
