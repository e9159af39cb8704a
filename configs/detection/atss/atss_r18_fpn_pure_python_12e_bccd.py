# The recipe of atss_r18_fpn_12e_bccd.py in MMEngine's pure-Python style: types are the classes
# themselves, which editors find and check.
from mmengine.config import read_base

with read_base():
    from ..._base_.datasets.bccd import *
    from ..._base_.models.atss_r18_fpn import *
    from ..._base_.runtime import *
    from ..._base_.schedules.adamw_12e import *

from mmdet_ext.detection.assigners import ATSSAssigner
from mmdet_ext.detection.datasets import CocoDataset
from mmdet_ext.losses import CIoULoss

# Checkpoints load from here on. In this style MMEngine runs an import statement only where its name
# is used, and reads custom_imports only in the dumped config of a work folder.
__import__('mmdet_ext.compat')

model.bbox_head.update(num_classes=3, loss_bbox=dict(type=CIoULoss))
model.train_cfg.assigner.update(type=ATSSAssigner)
train_dataloader.dataset.update(type=CocoDataset)
val_dataloader.dataset.update(type=CocoDataset)
test_dataloader.dataset.update(type=CocoDataset)
