# Faster R-CNN whose two stages measure only pairs that can overlap. The heads are mmdet's.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    train_cfg=dict(
        rpn=dict(assigner=dict(type='mmdet_ext.MaxIoUAssigner')),
        rcnn=dict(assigner=dict(type='mmdet_ext.MaxIoUAssigner')),
    ),
)
