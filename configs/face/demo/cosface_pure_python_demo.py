# CosFace on your own faces, one folder per person, in MMEngine's pure-Python style: types are the
# classes themselves, which editors find and check. head.num_classes is the number of identities in
# the training part, which the log reports.
from mmengine.config import read_base
from mmengine.hooks import EMAHook

with read_base():
    from ..._base_.datasets.face_folder import *
    from ..._base_.face_runtime import *
    from ..._base_.models.face_small import *
    from ..._base_.schedules.face_small_30e import *

from mmcv.transforms import RandomFlip, Resize
from mmpretrain.datasets import PackInputs
from mmpretrain.models import ImageClassifier

from mmdet_ext.face.backbones import IResNet
from mmdet_ext.face.datasets import FaceFolderDataset
from mmdet_ext.face.heads import MarginHead
from mmdet_ext.face.hooks import MarginScheduleHook
from mmdet_ext.face.margins import CosFace
from mmdet_ext.face.metrics import FaceVerificationMetric
from mmdet_ext.face.preprocessor import FaceDataPreprocessor
from mmdet_ext.face.transforms import LoadFace

# Checkpoints load from here on. In this style MMEngine runs an import statement only where its name
# is used, and reads custom_imports only in the dumped config of a work folder.
__import__('mmdet_ext.compat')

model.update(
    type=ImageClassifier,
    data_preprocessor=dict(type=FaceDataPreprocessor),
    backbone=dict(type=IResNet, input_size=40),
    head=dict(type=MarginHead, margin=dict(type=CosFace, m=0.2), scale=16.0),
)

train_pipeline = [
    dict(type=LoadFace),
    dict(type=Resize, scale=(40, 40), interpolation='area'),
    dict(type=RandomFlip, prob=0.5, direction='horizontal'),
    dict(type=PackInputs),
]
test_pipeline = [
    dict(type=LoadFace),
    dict(type=Resize, scale=(40, 40), interpolation='area'),
    dict(type=PackInputs),
]
train_dataloader.dataset.update(type=FaceFolderDataset, pipeline=train_pipeline)
val_dataloader.dataset.update(type=FaceFolderDataset, pipeline=test_pipeline)
test_dataloader = val_dataloader

val_evaluator = dict(type=FaceVerificationMetric, pairs='all')
test_evaluator = val_evaluator

custom_hooks = [
    dict(type=EMAHook, momentum=0.02, update_buffers=True),
    # The margin grows over the first half, so that the identities separate first.
    dict(type=MarginScheduleHook, param='m', start=0.0, stop=0.2, end=15),
]
