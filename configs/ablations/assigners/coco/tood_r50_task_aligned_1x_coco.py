# TOOD: ATSS in the first epochs, task-aligned assignment afterwards, for a batch at once.
_base_ = 'mmdet::tood/tood_r50_fpn_1x_coco.py'

model = dict(
    bbox_head=dict(type='mmdet_ext.TOODHead'),
    train_cfg=dict(
        initial_assigner=dict(type='mmdet_ext.ATSSAssigner'),
        assigner=dict(type='mmdet_ext.TaskAlignedAssigner'),
    ),
)
